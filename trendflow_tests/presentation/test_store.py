"""From a real store to a page: what the loader reads, checks and caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.canonical import content_digest
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import component_row_from_meta, new_manifest, update_run, upsert_row
from trendflow.contracts.schema import SchemaRegistry
from trendflow.presentation.report import render_report
from trendflow.presentation.run_view import DENSE, DENSE_ARRAYS, PAGE_ARRAYS, RunView, load_run_view, with_thumbnails
from trendflow.presentation.thumbnails import encode_jpeg, load_thumbnails, plan_thumbnails, thumbnail_prefix
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.contracts.valid_artifacts import IDENTITY, valid_artifact
from trendflow_tests.presentation.page import Page
from trendflow_tests.presentation.synthetic import CREATED, FINISHED, KINDS, SCHEMAS, SyntheticFrames, arrays_of

DURATION, CUTS = 30.0, (11.875,)


@pytest.fixture(scope="module")
def registry() -> SchemaRegistry:
    return SchemaRegistry.load()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore.open("memory://")


def save_run(store: ObjectStore, registry: SchemaRegistry, identity: Any = IDENTITY, reused: Any = None) -> ResultStore:
    """Every component with schema-valid members, the drawn ones replaced by synthetic curves."""
    results = ResultStore(store)
    synthetic = arrays_of(DURATION, CUTS)
    manifest = new_manifest(identity, CREATED, "starter", {"type": "upload", "duration_sec": DURATION})
    results.create_manifest(manifest)
    for name, kind in KINDS.items():
        stems = {name: SCHEMAS[name], **({DENSE: "dense_signals_npz_v1"} if name == "segmenter" else {})}
        rows, main_meta = [], {}
        for stem, schema_version in stems.items():
            arrays, meta = valid_artifact(registry.get(schema_version))
            arrays = {**arrays, **synthetic[stem]}
            meta = {**meta, **identity.as_dict(), "reused_from": reused, "cache_hit": reused is not None}
            meta["content_digest"] = content_digest(name, schema_version, "ok", None, arrays)
            rows.append(results.write_artifact(identity.run_path, name, stem, arrays, meta))
            main_meta = main_meta or meta
        row = component_row_from_meta(
            main_meta, kind=kind, artifacts=rows, started_at=CREATED, finished_at=FINISHED, duration_ms=10.0
        )
        results.update_manifest(identity.run_path, lambda current, row=row: upsert_row(current, row))
    results.update_manifest(identity.run_path, lambda current: dict(update_run(current, finished_at=FINISHED)))
    return results


def test_a_stored_run_becomes_a_page(store: ObjectStore, registry: SchemaRegistry) -> None:
    results = save_run(store, registry)
    view = load_run_view(results, IDENTITY.run_path, required=KINDS, registry=registry)
    assert view.status == "success"
    assert set(view.arrays("cut_detection")) == {*PAGE_ARRAYS["cut_detection"], "feature_names", "feature_values"}
    assert set(view.dense) == set(DENSE_ARRAYS)
    assert view.units["loudness_extractor"]["lufs_integrated"] == "LUFS"
    page = Page(render_report(with_thumbnails(view, store, lambda: SyntheticFrames(800))))
    (mark,) = page.all("line", "ev-hard_cut")
    assert float(mark["x1"] or "nan") == pytest.approx(1000 * CUTS[0] / DURATION, abs=0.01)
    assert page.all("img")


def test_every_page_array_is_required_by_its_schema(registry: SchemaRegistry) -> None:
    wanted: Mapping[str, tuple[str, ...]] = {
        **{SCHEMAS[name]: arrays for name, arrays in PAGE_ARRAYS.items()},
        "dense_signals_npz_v1": DENSE_ARRAYS,
    }
    for schema_version, names in wanted.items():
        fields = registry.get(schema_version).fields
        assert all(fields[name].required for name in names), schema_version


def test_a_changed_artifact_is_refused(store: ObjectStore, registry: SchemaRegistry) -> None:
    results = save_run(store, registry)
    key = f"result_store/{IDENTITY.run_path}/core_clip/core_clip.npz"
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(TrendFlowError) as caught:
        load_run_view(results, IDENTITY.run_path, required=KINDS)
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_run_without_a_manifest_is_refused(store: ObjectStore) -> None:
    with pytest.raises(TrendFlowError) as caught:
        load_run_view(ResultStore(store), IDENTITY.run_path, required=KINDS)
    assert caught.value.error_code == "dependency_missing"


def no_frames() -> SyntheticFrames:
    raise AssertionError("pictures in the cache must be used")


def load(results: ResultStore, run_path: str) -> RunView:
    return load_run_view(results, run_path, required=KINDS)


def test_pictures_are_made_once(store: ObjectStore, registry: SchemaRegistry) -> None:
    results = save_run(store, registry)
    first = with_thumbnails(load(results, IDENTITY.run_path), store, lambda: SyntheticFrames(800))
    again = with_thumbnails(load(results, IDENTITY.run_path), store, no_frames)
    assert first.thumbnails
    assert again.thumbnails == first.thumbnails
    assert render_report(again) == render_report(first)


def test_a_reused_run_takes_the_pictures_of_its_origin(store: ObjectStore, registry: SchemaRegistry) -> None:
    origin = with_thumbnails(load(save_run(store, registry), IDENTITY.run_path), store, lambda: SyntheticFrames(800))
    later = dataclasses.replace(IDENTITY, run_id="run_2")
    reused = {"run_id": IDENTITY.run_id, "created_at": CREATED, "sha256": "e" * 64}
    view = with_thumbnails(load(save_run(store, registry, later, reused), later.run_path), store, None)
    assert view.thumbnails == origin.thumbnails
    assert load_thumbnails(store, later.run_path) == list(origin.thumbnails)  # its own copy


def test_without_frames_or_cache_the_page_has_no_pictures(store: ObjectStore, registry: SchemaRegistry) -> None:
    view = with_thumbnails(load(save_run(store, registry), IDENTITY.run_path), store, None)
    assert view.thumbnails == ()
    assert not Page(render_report(view)).all("img")


def test_the_plan_has_a_frame_of_every_shot_that_was_sampled() -> None:
    cuts = (3.0, 9.0, 9.05, 20.0)
    arrays = arrays_of(DURATION, cuts)
    times = arrays["segmenter"]["union_timestamps_sec"]
    planned = ("segmenter", "cut_detection", "core_object_detections", "core_face_landmarks")
    wanted = plan_thumbnails(*(arrays[name] for name in planned))
    assert (np.diff(wanted) > 0).all()
    for start, end in zip([0.0, *cuts], [*cuts, DURATION], strict=True):
        inside = (times >= start) & (times < end)
        assert not inside.any() or ((times[wanted] >= start) & (times[wanted] < end)).any()


def test_thumbnails_are_small_even_of_noise(store: ObjectStore) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    assert len(encode_jpeg(noise)) < 40_000
    assert thumbnail_prefix("upload/a/b").startswith("render_cache/upload/a/b/")
