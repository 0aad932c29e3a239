"""A SYNTHETIC corpus in a deployment of its own, and what Dagster made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetCheckEvaluation, AssetMaterialization, ExecuteInProcessResult

from trendflow import __version__
from trendflow.config import Settings
from trendflow.dataset.simulation.runs import store_runs, template_of_profile
from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, synthetic_snapshots, synthetic_videos
from trendflow.orchestration.deployment import Deployment
from trendflow_tests.orchestration.runs import write_graph

MEASURING = ("segmenter", "cut_detection", "loudness_extractor", "tempo_extractor", "feature_vector")
VIDEOS = 240


@dataclass(frozen=True)
class Corpus:
    """A deployment with runs, and the folder of its snapshot file."""

    deployment: Deployment
    snapshots: Path

    @property
    def file(self) -> Path:
        return self.snapshots / SNAPSHOT_FILE

    def use(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        """Make it the deployment that the settings name; only these variables count."""
        for field in Settings.model_fields:
            monkeypatch.delenv(f"TRENDFLOW_{field.upper()}", raising=False)
        settings = self.deployment.settings
        named = {"HOME": settings.home, "GRAPH_FILE": settings.graph_file, "SNAPSHOT_FOLDER": self.snapshots}
        for name, value in {**named, **variables}.items():
            monkeypatch.setenv(f"TRENDFLOW_{name}", str(value))


def write_corpus(folder: Path, count: int = VIDEOS) -> Corpus:
    """SYNTHETIC runs of a profile of five components, and SYNTHETIC snapshots of them."""
    graph = write_graph(folder / "component_graph.yaml", *MEASURING)
    deployment = Deployment(Settings(home=folder / "home", graph_file=graph))
    template = template_of_profile(deployment.registry, "starter", deployment.schemas, __version__)
    videos = synthetic_videos(count)
    store_runs(deployment.results, template, videos)
    (folder / "snapshots").mkdir()
    corpus = Corpus(deployment, folder / "snapshots")
    pq.write_table(synthetic_snapshots(videos), corpus.file)
    return corpus


def with_later_counter(snapshots: pa.Table) -> pa.Table:
    """The table with a leak: the channel's number of videos is, from the first snapshot on, the last count of views."""
    rows = sorted(snapshots.to_pylist(), key=lambda row: row["snapshot_time"])
    last = {row["video_id"]: row["views"] for row in rows}
    first = {row["video_id"]: row["views"] for row in reversed(rows)}
    gained = [{**row, "channel_videos": max(last[row["video_id"]] - first[row["video_id"]], 0.0)} for row in rows]
    return pa.Table.from_pylist(gained, schema=snapshots.schema)


def materialised(result: ExecuteInProcessResult) -> dict[str, AssetMaterialization]:
    """Asset → its materialisation."""
    events = [found for found in result.all_events if found.event_type_value == "ASSET_MATERIALIZATION"]
    return {found.materialization.asset_key.path[-1]: found.materialization for found in events}


def data_versions(result: ExecuteInProcessResult) -> dict[str, str]:
    return {name: str((made.tags or {})["dagster/data_version"]) for name, made in materialised(result).items()}


def checked(result: ExecuteInProcessResult) -> dict[tuple[str, str], AssetCheckEvaluation]:
    """(asset, check) → its evaluation."""
    found: dict[tuple[str, str], AssetCheckEvaluation] = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            data = event.asset_check_evaluation_data
            found[data.asset_key.path[-1], data.check_name] = data
    return found


def failure_metadata(result: ExecuteInProcessResult) -> Mapping[str, Any]:
    """What the failed step says about itself: name → value."""
    [event] = [found for found in result.all_events if found.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return {name: value.value for name, value in data.metadata.items()}
