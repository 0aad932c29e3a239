"""SYNTHETIC corpora: in the formats of real ones, repeatable, and labelled wherever a name can be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from trendflow.components.registry import Registry, load_registry
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import load_graph
from trendflow.contracts.manifest import find_row
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry, validate_artifact, validate_document
from trendflow.dataset.simulation.runs import Template, store_runs, template_of_profile, template_of_run
from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, synthetic_snapshots, synthetic_videos
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.targets import build_targets
from trendflow.models.catalogue import Catalogue
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import column, store_run
from trendflow_tests.dataset.table.corpora import build

SCHEMAS = SchemaRegistry.load()


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(load_graph(data_path("component_graph.yaml")), SCHEMAS, Catalogue.load())


@pytest.fixture(scope="module")
def template(registry: Registry) -> Template:
    return template_of_profile(registry, "starter", SCHEMAS, "0.1.0")


def test_runs_have_the_form_of_real_ones(registry: Registry, template: Template) -> None:
    store = ObjectStore.open("memory://")
    results = ResultStore(store)
    (path,) = store_runs(results, template, synthetic_videos(1))
    manifest = results.read_manifest(path)
    assert manifest is not None
    assert validate_document(SCHEMAS, "manifest_v1", manifest) == []
    assert {row["name"] for row in manifest["components"]} == set(registry.graph.profile("starter").components)
    assert manifest["run"]["config_hash"] == registry.config_hash("starter")
    row = find_row(manifest, "feature_vector")
    assert row is not None
    stored = results.read_artifact(path, "feature_vector", expected_sha256=row["artifacts"][0]["sha256"])
    assert validate_artifact(SCHEMAS, stored.arrays, stored.meta) == []
    assert len(stored.arrays["feature_names"]) > 250


def test_everything_says_that_it_is_synthetic(tmp_path: Path, template: Template) -> None:
    results = ResultStore(ObjectStore.open("memory://"))
    videos = synthetic_videos(20)
    assert all(name.startswith("SYNTHETIC_") for video in videos for name in (video.video_id, video.channel_id))
    for path in store_runs(results, template, videos):
        manifest = results.read_manifest(path)
        assert manifest is not None
        assert all(
            manifest["run"][key].startswith("SYNTHETIC_") for key in ("video_id", "run_id", "dataprocessor_version")
        )
        assert results.read_artifact(path, "feature_vector").meta["dataprocessor_version"].startswith("SYNTHETIC_")
    rows = synthetic_snapshots(videos).to_pylist()
    assert all(row[key].startswith("SYNTHETIC_") for row in rows for key in ("source", "title", "channel_title"))
    pq.write_table(synthetic_snapshots(videos), tmp_path / SNAPSHOT_FILE)
    found = import_snapshots([tmp_path / SNAPSHOT_FILE])
    with pytest.raises(TrendFlowError, match="SYNTHETIC"):
        build(found, results, config_hash=template.config_hash, required=["feature_vector"])
    built = build(found, results, config_hash=template.config_hash, required=["feature_vector"], allow_synthetic=True)
    assert (built.table.num_rows, built.metadata["excluded"]) == (20, {})
    assert built.version.startswith("SYNTHETIC_")


def test_the_same_seed_invents_the_same(template: Template) -> None:
    stores = [ObjectStore.open("memory://") for _ in range(2)]
    for store in stores:
        store_runs(ResultStore(store), template, synthetic_videos(3, seed=5), seed=5)
    first, second = ({info.key: store.get(info.key) for info in store.list()} for store in stores)
    assert first == second
    assert len(first) == 6
    tables = [synthetic_snapshots(synthetic_videos(3, seed=seed), seed) for seed in (5, 5, 6)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_a_run_is_imitated_in_everything_a_model_checks() -> None:
    results = ResultStore(ObjectStore.open("memory://"))
    real = store_run(results, {"a": 100.0, "b": np.nan}, video="test-video", reasons={"b": "audio_silent"})
    imitated = template_of_run(results, real)
    paths = store_runs(results, imitated, synthetic_videos(30))
    manifests = [results.read_manifest(path) for path in (real, paths[0])]
    told = [
        {row["name"]: [row[key] for key in ("producer_version", "schema_version", "model_signature")] for row in rows}
        for rows in (manifest["components"] for manifest in manifests if manifest)
    ]
    assert told[0] == told[1]
    values = np.array([results.read_artifact(path, "feature_vector").arrays["feature_values"] for path in paths])
    names = results.read_artifact(real, "feature_vector").arrays["feature_names"].tolist()
    assert names == [column("a"), column("b")]
    assert 50 < values[:, 0].mean() < 150
    assert len(np.unique(values[:, 0])) == 30
    assert np.isnan(values[:, 1]).all()
    with pytest.raises(TrendFlowError, match="no run"):
        template_of_run(results, "upload/test-video/another-run")


def test_counters_can_be_forecast_in_part(tmp_path: Path) -> None:
    """Quality moves growth and content; without that nothing could be learnt from either."""
    videos = synthetic_videos(400)
    pq.write_table(synthetic_snapshots(videos), tmp_path / SNAPSHOT_FILE)
    found = import_snapshots([tmp_path / SNAPSHOT_FILE])
    targets = build_targets(found).table.to_pandas().set_index("video_id")
    quality = {video.video_id: video.quality for video in videos}
    known = targets[targets["mask_views_14d"]]
    relation = known["target_views_14d"].corr(known.index.map(quality).to_series(index=known.index), method="spearman")
    assert 0.1 < relation < 0.9
    # …and the defects of real counters are there: snapshots that are missing, counters that fall.
    reasons = {
        reason: int((targets["mask_reason_views_14d"] == reason).sum()) for reason in ("no_snapshot", "decreased")
    }
    assert min(reasons.values()) > 0
    assert json.dumps(reasons)
