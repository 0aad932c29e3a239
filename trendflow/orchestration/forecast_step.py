"""Forecasting one stored run and keeping the report; without Dagster, whose import takes seconds."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import platform_of, split_partition_key
from trendflow.dataset.stored_tables import SNAPSHOTS, TableStore
from trendflow.inference.first_snapshot import FirstSnapshot, from_file, from_set, from_values
from trendflow.inference.predict import Request, predict, read_models
from trendflow.inference.report import to_json
from trendflow.inference.run_inputs import read_run_inputs
from trendflow.inference.stored_runs import STORE_PREFIX, fetch_run
from trendflow.orchestration.dataset_step import read_channels, read_snapshots
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import run_path_of
from trendflow.presentation.prediction_page import render_prediction_page

PAGE, REPORT = "forecast.html", "prediction_report.json"
_FETCHED = "forecast_models"
_ASSET_NAME = re.compile(r"baseline_[a-z_]+")


@dataclass(frozen=True)
class StoredForecast:
    """A prediction report and where its two presentations lie in the store."""

    document: Mapping[str, Any]
    page_key: str
    json_key: str


def forecast(
    deployment: Deployment,
    run_key: str,
    models: Sequence[Path],
    snapshot: FirstSnapshot | None,
    *,
    requested: str | None = None,
    allow_synthetic: bool = False,
    job_id: str | None = None,
) -> dict[str, Any]:
    """The prediction report of a stored run. `models` are folders of training runs, at most one of each tier.

    What was looked up of the video's channel is used as in training, where it was observed in time. Raises
    `input_constraint_violated` for a deleted video; other errors as in `predict`, `read_models` and `read_run_inputs`.
    """
    video_id, _ = split_partition_key(run_key)
    video = platform_of(video_id), video_id
    if video in tombstones(deployment):
        raise TrendFlowError("input_constraint_violated", "The video was deleted; nothing is forecast for it.")
    if snapshot is not None:
        snapshot = dataclasses.replace(snapshot, channel=read_channels(deployment).rows().get(video))
    request = Request(
        job_id=job_id or str(uuid.uuid4()),
        run=read_run_inputs(deployment.results, run_path_of(run_key)),
        snapshot=snapshot,
        models=read_models(models, deployment.schemas),
        requested=requested,
        allow_synthetic=allow_synthetic,
    )
    return predict(request, deployment.schemas)


def find_models(deployment: Deployment, names: Sequence[str]) -> list[Path]:
    """Folders of training runs. A name is a folder, an asset of the location `training` (`baseline_catboost`) for its
    current run, or the key of a run in the store; what the store holds is copied to the home.

    Raises `weights_missing` for what is none of these.
    """
    return [Path(name) if Path(name).is_dir() else _stored_model(deployment, name) for name in names]


def _stored_model(deployment: Deployment, name: str) -> Path:
    current = TableStore(deployment.store).find(name) if _ASSET_NAME.fullmatch(name) else None
    run_id = name.removeprefix(f"{STORE_PREFIX}/") if current is None else str(current.facts["run_id"])
    return fetch_run(deployment.store, run_id, deployment.settings.home / _FETCHED)


def store_forecast(deployment: Deployment, document: Mapping[str, Any]) -> StoredForecast:
    """Render and store a report beside the report of its run, in place of the last forecast."""
    run_path = f"{document['platform_id']}/{document['video_id']}/{document['run_ids'][0]}"
    folder = f"render_cache/{run_path}"
    stored = StoredForecast(document, f"{folder}/{PAGE}", f"{folder}/{REPORT}")
    deployment.store.put(stored.page_key, render_prediction_page(document).encode())
    deployment.store.put(stored.json_key, to_json(document))
    return stored


class ChosenSnapshot(NamedTuple):
    """`snapshot` is None where nobody looked at the video; `origin` says where it was found, or that it was not."""

    snapshot: FirstSnapshot | None
    origin: str


def choose_snapshot(deployment: Deployment, run_key: str, source: str | None) -> ChosenSnapshot:
    """The first snapshot of a run's video: the one given as `source`, else that of the stored snapshots.

    Raises `dependency_missing` for a file without that video, and what reading a file or the store raises.
    """
    if source is None:
        stored = stored_snapshot(deployment, run_key)
        return ChosenSnapshot(stored, "none given, none stored" if stored is None else "from the stored snapshots")
    return ChosenSnapshot(find_snapshot(source, run_key), "as given")


def find_snapshot(source: str, run_key: str) -> FirstSnapshot:
    """The first snapshot of a run's video: values as `from_values` takes them, else a file or folder.

    Raises `dependency_missing` for a file without that video, and what reading it raises.
    """
    video_id, _ = split_partition_key(run_key)
    platform_id = platform_of(video_id)
    path = Path(source)
    if "=" in source and not path.exists():
        return from_values(source, platform_id, video_id)
    found = from_file(path, platform_id, video_id)
    if found is None:
        raise TrendFlowError("dependency_missing", "The snapshots given hold none of this video.", kind="snapshots")
    return found


def stored_snapshot(deployment: Deployment, run_key: str) -> FirstSnapshot | None:
    """The first snapshot of a run's video among the current snapshots of the store; None when they hold none."""
    if TableStore(deployment.store).find(SNAPSHOTS) is None:
        return None
    video_id, _ = split_partition_key(run_key)
    return from_set(read_snapshots(deployment)[1], platform_of(video_id), video_id)


def content_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """A report without what differs from one forecast to the next: when, by which job, how fast."""
    return {name: value for name, value in document.items() if name not in ("job_id", "timestamps", "stages")}
