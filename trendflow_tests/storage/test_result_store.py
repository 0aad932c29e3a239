"""Runs in the store: layout, manifest updates, artifacts, orphans and what `validate_run` notices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import canonical_json, sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.manifest import add_run_warnings, component_row_from_meta, find_row, update_run, upsert_row
from trendflow.contracts.meta import restamp_meta
from trendflow.storage.npz import decode, encode
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.retry import ContentionPolicy
from trendflow_tests.storage.runs import (
    CREATED_AT,
    KIND,
    example_arrays,
    first_manifest,
    make_identity,
    meta_for,
    store_component,
)

IDENTITY = make_identity()
RUN = IDENTITY.run_path
FOLDER = f"result_store/{RUN}"


@pytest.fixture
def memory() -> ObjectStore:
    return ObjectStore.open("memory://")


@pytest.fixture
def run(memory: ObjectStore) -> ResultStore:
    """A run with a manifest and one stored component, `core_clip`."""
    results = ResultStore(memory)
    results.create_manifest(first_manifest(IDENTITY))
    store_component(results, IDENTITY, "core_clip", example_arrays())
    return results


def codes(results: ResultStore, **options: Any) -> list[str]:
    return [finding.code for finding in results.validate_run(RUN, **options)]


def test_layout_on_every_store(store: ObjectStore, results: ResultStore) -> None:
    assert results.read_manifest(RUN) is None
    assert results.create_manifest(first_manifest(IDENTITY))
    row = store_component(results, IDENTITY, "core_clip", example_arrays())
    assert [info.key for info in store.list()] == [f"{FOLDER}/core_clip/core_clip.npz", f"{FOLDER}/manifest.json"]
    data = store.get(f"{FOLDER}/core_clip/core_clip.npz")
    assert row["artifacts"] == [
        {
            "path": "core_clip/core_clip.npz",
            "type": "npz",
            "size": len(data),
            "sha256": sha256_hex(data),
            "content_digest": decode(data)[1]["content_digest"],
            "schema_version": "core_clip_npz_v1",
            "retention_class": "derived",
        }
    ]
    assert results.validate_run(RUN) == []
    assert list(results.run_paths()) == [RUN]


def test_artifacts_are_read_whole_or_by_member(store: ObjectStore, results: ResultStore) -> None:
    results.create_manifest(first_manifest(IDENTITY))
    arrays = example_arrays()
    sha256 = store_component(results, IDENTITY, "core_clip", arrays)["artifacts"][0]["sha256"]
    whole = results.read_artifact(RUN, "core_clip", expected_sha256=sha256)
    assert whole.sha256 == sha256
    assert whole.meta["run_id"] == "run-1"
    assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    part = results.read_artifact(RUN, "core_clip", names=["frame_indices"])
    assert list(part.arrays) == ["frame_indices"]
    assert part.meta == whole.meta
    assert (part.size, part.sha256) == (whole.size, None)
    checked = results.read_artifact(RUN, "core_clip", names=["frame_indices"], expected_sha256=sha256)
    assert (list(checked.arrays), checked.sha256) == (["frame_indices"], sha256)
    with pytest.raises(TrendFlowError, match="does not match its sha256"):
        results.read_artifact(RUN, "core_clip", expected_sha256="0" * 64)
    with pytest.raises(ObjectNotFound):
        results.read_artifact(RUN, "core_faces")


def test_sub_artifacts(store: ObjectStore, results: ResultStore) -> None:
    array = np.arange(1000, dtype=np.float16).reshape(10, 100)
    entry = results.write_array(RUN, "core_depth", "maps", array, "maps_npy_v1", retention_class="frames")
    assert (entry["path"], entry["type"], entry["retention_class"]) == ("core_depth/maps.npy", "npy", "frames")
    loaded = results.read_array(RUN, "core_depth", "maps", expected_sha256=entry["sha256"])
    assert np.array_equal(loaded, array)
    with pytest.raises(TrendFlowError, match="sha256"):
        results.read_array(RUN, "core_depth", "maps", expected_sha256="0" * 64)


def test_the_first_manifest_stands(run: ResultStore) -> None:
    before = run.read_manifest(RUN)
    assert not run.create_manifest(first_manifest(IDENTITY, "2027-01-01T00:00:00.000Z"))
    assert run.read_manifest(RUN) == before


def test_updates_touch_updated_at_only_when_something_changed(memory: ObjectStore, run: ResultStore) -> None:
    before = memory.get(f"{FOLDER}/manifest.json")
    run.update_manifest(RUN, lambda manifest: dict(manifest))
    assert memory.get(f"{FOLDER}/manifest.json") == before
    changed = run.update_manifest(RUN, lambda manifest: add_run_warnings(manifest, ["av_drift"]))
    assert changed == run.read_manifest(RUN)
    assert changed["run"]["updated_at"] > CREATED_AT
    assert changed["run"]["created_at"] == CREATED_AT


def test_an_update_that_lost_is_applied_to_the_newer_document(run: ResultStore) -> None:
    interferences = iter(["av_drift", "media_repaired"])

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        code = next(interferences, None)
        if code is not None:  # another writer gets in between read and write
            run.update_manifest(RUN, lambda other: add_run_warnings(other, [code]))
        return add_run_warnings(manifest, ["decode_errors"])

    final = run.update_manifest(RUN, change)
    assert final["run"]["warnings"] == ["av_drift", "decode_errors", "media_repaired"]


def test_endless_contention_ends_as_storage_unavailable(memory: ObjectStore, run: ResultStore) -> None:
    impatient = ResultStore(memory, contention=ContentionPolicy(low=0.001, high=0.002, limit=0.05))
    counter = iter(range(1, 10**6))

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        run.update_manifest(RUN, lambda other: update_run(other, retry_count=next(counter)))
        return add_run_warnings(manifest, ["av_drift"])

    with pytest.raises(TrendFlowError) as caught:
        impatient.update_manifest(RUN, change)
    assert caught.value.error_code == "storage_unavailable"
    manifest = run.read_manifest(RUN)
    assert manifest is not None
    assert manifest["run"]["warnings"] == []


def test_updates_cannot_change_the_identity_or_invent_a_run(run: ResultStore) -> None:
    with pytest.raises(TrendFlowError, match="identity"):
        run.update_manifest(RUN, lambda manifest: {**manifest, "run": {**manifest["run"], "run_id": "other"}})
    with pytest.raises(ObjectNotFound):
        run.update_manifest("upload/my-video/run-9", dict)


@pytest.mark.parametrize("run_path", ["", "upload/my-video", "upload/../x/run", "vimeo/a/b", "upload/my-video/run/x"])
def test_malformed_run_paths_are_refused(run: ResultStore, run_path: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        run.read_manifest(run_path)
    assert caught.value.error_code == "input_constraint_violated"


def test_artifacts_enter_only_their_own_run_and_folder(run: ResultStore) -> None:
    arrays = example_arrays()
    with pytest.raises(TrendFlowError, match="identity"):
        run.write_artifact(RUN, "core_clip", "core_clip", arrays, meta_for(make_identity("run-2"), "core_clip", arrays))
    with pytest.raises(TrendFlowError, match="another producer"):
        run.write_artifact(RUN, "core_faces", "core_faces", arrays, meta_for(IDENTITY, "core_clip", arrays))
    meta = meta_for(IDENTITY, "core_clip", arrays)
    for stem in ("../x", "X", "a.b", ""):
        with pytest.raises(TrendFlowError, match="artifact path"):
            run.write_artifact(RUN, "core_clip", stem, arrays, meta)
    with pytest.raises(TrendFlowError, match="Retention"):
        run.write_artifact(RUN, "core_clip", "core_clip", arrays, meta, retention_class="forever")


def test_runs_of_a_video_newest_first(run: ResultStore) -> None:
    for number, (run_id, video_id) in enumerate([("old", "my-video"), ("new", "my-video"), ("other", "your-video")]):
        run.create_manifest(first_manifest(make_identity(run_id, video_id), f"202{5 + 2 * number}-01-01T00:00:00.000Z"))
    run.write_array("upload/my-video/no-manifest", "core_clip", "x", np.zeros(1), "x_npy_v1")
    found = [manifest["run"]["run_id"] for manifest in run.manifests("upload", "my-video")]
    assert found == ["new", "run-1", "old"]
    assert list(run.manifests("upload", "never-seen")) == []
    assert len(list(run.run_paths())) == 4


def test_an_error_artifact_is_stored_and_replaced_by_a_later_success(run: ResultStore) -> None:
    error = TrendFlowError("model_load_failed", "The engine refuses the weights.")
    row = store_component(run, IDENTITY, "core_faces", {}, error=error, second=1)
    assert (row["status"], row["error_code"]) == ("error", "model_load_failed")
    assert codes(run) == []
    store_component(run, IDENTITY, "core_faces", example_arrays(1), second=2)
    manifest = run.read_manifest(RUN)
    assert manifest is not None
    assert [row["status"] for row in manifest["components"]] == ["ok", "ok"]
    assert codes(run) == []


def test_replacing_an_artifact_retracts_its_row_first(run: ResultStore) -> None:
    """Between the new artifact and its row nothing may claim what the file no longer says."""
    arrays = example_arrays(seed=7)
    run.write_artifact(RUN, "core_clip", "core_clip", arrays, meta_for(IDENTITY, "core_clip", arrays))
    manifest = run.read_manifest(RUN)
    assert manifest is not None
    assert find_row(manifest, "core_clip") is None
    assert codes(run) == ["orphan"]


def test_writing_the_same_bytes_again_keeps_the_row(run: ResultStore) -> None:
    before = run.read_manifest(RUN)
    run.write_artifact(
        RUN, "core_clip", "core_clip", example_arrays(), meta_for(IDENTITY, "core_clip", example_arrays())
    )
    assert run.read_manifest(RUN) == before


LATER = "2026-01-01T00:00:09.000Z"


def test_the_same_result_a_second_time_leaves_the_first_file(memory: ObjectStore, run: ResultStore) -> None:
    """Another attempt's file differs only in what the meta says of time; the row must describe the one that stands."""
    before = memory.get(f"{FOLDER}/core_clip/core_clip.npz")
    arrays = example_arrays()
    row, meta = run.write_or_adopt(
        RUN, "core_clip", "core_clip", arrays, meta_for(IDENTITY, "core_clip", arrays, created_at=LATER)
    )
    assert memory.get(f"{FOLDER}/core_clip/core_clip.npz") == before
    manifest = run.read_manifest(RUN)
    assert manifest is not None
    (stored,) = manifest["components"]
    assert row == stored["artifacts"][0]
    assert meta["created_at"] == CREATED_AT


@pytest.mark.parametrize("difference", ["nothing stands", "arrays", "key", "damage", "error"])
def test_another_result_takes_the_place_of_what_stands(memory: ObjectStore, run: ResultStore, difference: str) -> None:
    key = f"{FOLDER}/core_clip/core_clip.npz"
    arrays = example_arrays(seed=7 if difference == "arrays" else 0)
    meta = meta_for(IDENTITY, "core_clip", arrays, key=("e" if difference == "key" else "c") * 64, created_at=LATER)
    if difference == "error":
        arrays, meta = {}, meta_for(IDENTITY, "core_clip", {}, error=TrendFlowError("timeout", "It took too long."))
    if difference == "damage":
        data = bytearray(memory.get(key))
        data[len(data) // 2] ^= 1
        memory.put(key, bytes(data))
    if difference == "nothing stands":
        memory.delete(key)
    row, found = run.write_or_adopt(RUN, "core_clip", "core_clip", arrays, meta)
    assert found == meta
    assert row["sha256"] == sha256_hex(memory.get(key)) == sha256_hex(encode(arrays, meta))
    assert row["content_digest"] == meta["content_digest"]


def test_a_reused_artifact_keeps_its_arrays_byte_for_byte(run: ResultStore) -> None:
    """The arrays survive re-stamping, and either run can be deleted without the other."""
    old = run.read_artifact(RUN, "core_clip")
    other = make_identity("run-2")
    origin = {"run_id": "run-1", "created_at": old.meta["created_at"], "sha256": str(old.sha256)}
    meta = restamp_meta(old.meta, other, "2026-03-01T00:00:00.000Z", origin)
    run.create_manifest(first_manifest(other))
    entry = run.write_artifact(other.run_path, "core_clip", "core_clip", old.arrays, meta)
    row = component_row_from_meta(
        meta, kind=KIND, artifacts=[entry], started_at=CREATED_AT, finished_at=CREATED_AT, duration_ms=0.1
    )
    run.update_manifest(other.run_path, lambda manifest: upsert_row(manifest, row))
    assert run.validate_run(other.run_path) == []
    new = run.read_artifact(other.run_path, "core_clip")
    assert new.sha256 != old.sha256
    assert new.meta["content_digest"] == old.meta["content_digest"]
    assert {name: array.tobytes() for name, array in new.arrays.items()} == {
        name: array.tobytes() for name, array in old.arrays.items()
    }


def test_orphans_are_notices(memory: ObjectStore, run: ResultStore) -> None:
    run.write_array(RUN, "core_faces", "crops", np.zeros(3), "crops_npy_v1")
    memory.put(f"{FOLDER}/core_clip/stray.npz", b"whatever")
    assert run.orphans(RUN) == ["core_clip/stray.npz", "core_faces/crops.npy"]
    assert {(finding.severity, finding.code) for finding in run.validate_run(RUN)} == {("notice", "orphan")}


Damage = Callable[[ObjectStore, dict[str, Any]], None]
ARTIFACT_KEY = f"{FOLDER}/core_clip/core_clip.npz"


def rewrite_artifact(store: ObjectStore, manifest: dict[str, Any], **meta_changes: Any) -> None:
    """Change the artifact's meta and pin the manifest to the new file, so only the meta disagrees."""
    arrays, meta = decode(store.get(ARTIFACT_KEY))
    data = encode(arrays, {**meta, **meta_changes})
    store.put(ARTIFACT_KEY, data)
    manifest["components"][0]["artifacts"][0].update(sha256=sha256_hex(data), size=len(data))


def change_arrays(store: ObjectStore, manifest: dict[str, Any]) -> None:
    _, meta = decode(store.get(ARTIFACT_KEY))
    data = encode(example_arrays(seed=1), meta)
    store.put(ARTIFACT_KEY, data)
    manifest["components"][0]["artifacts"][0].update(sha256=sha256_hex(data), size=len(data))


def drop_meta_key(store: ObjectStore, manifest: dict[str, Any]) -> None:
    arrays, meta = decode(store.get(ARTIFACT_KEY))
    del meta["warnings"]
    data = encode(arrays, meta)
    store.put(ARTIFACT_KEY, data)
    manifest["components"][0]["artifacts"][0].update(sha256=sha256_hex(data), size=len(data))


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "artifact removed": (lambda store, manifest: store.delete(ARTIFACT_KEY) and None, {"artifact_missing"}),
    "byte flipped": (
        lambda store, manifest: store.put(ARTIFACT_KEY, store.get(ARTIFACT_KEY)[:-100] + b"x" * 100),
        {"artifact_invalid"},
    ),
    "truncated": (
        lambda store, manifest: store.put(ARTIFACT_KEY, store.get(ARTIFACT_KEY)[:500]),
        {"artifact_invalid"},
    ),
    "arrays exchanged": (change_arrays, {"content_mismatch"}),
    "meta key missing": (drop_meta_key, {"meta_incomplete"}),
    "status differs": (
        lambda store, manifest: manifest["components"][0].update(status="empty", empty_reason="audio_silent"),
        {"row_mismatch"},
    ),
    "reason lost on the way": (
        lambda store, manifest: rewrite_artifact(store, manifest, status="empty", empty_reason="audio_silent"),
        {"content_mismatch", "row_mismatch"},
    ),
    "identity differs": (
        lambda store, manifest: rewrite_artifact(store, manifest, run_id="run-2"),
        {"identity_mismatch"},
    ),
    "release differs": (
        lambda store, manifest: rewrite_artifact(store, manifest, dataprocessor_version="0.2.0"),
        {"identity_mismatch"},
    ),
    "producer differs": (
        lambda store, manifest: rewrite_artifact(store, manifest, producer="clip"),
        {"identity_mismatch"},
    ),
    "size differs": (
        lambda store, manifest: manifest["components"][0]["artifacts"][0].update(size=1),
        {"size_mismatch"},
    ),
    "main artifact not named": (
        lambda store, manifest: manifest["components"][0].update(artifacts=[]),
        {"artifact_missing", "orphan"},
    ),
    "JSON beside the manifest": (
        lambda store, manifest: store.put(f"{FOLDER}/core_clip/extra.json", b"{}"),
        {"unexpected_json"},
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_validate_notices(case: str, memory: ObjectStore, run: ResultStore) -> None:
    damage, expected = DAMAGES[case]
    manifest = run.read_manifest(RUN)
    assert manifest is not None
    damage(memory, manifest)
    memory.put(f"{FOLDER}/manifest.json", canonical_json(manifest))
    assert set(codes(run)) == expected


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"{", "manifest_invalid"), (b"[]", "manifest_invalid"), (b'{"schema_version":"v9"}', "manifest_invalid")],
)
def test_broken_manifests_are_findings(memory: ObjectStore, run: ResultStore, content: bytes, code: str) -> None:
    memory.put(f"{FOLDER}/manifest.json", content)
    assert codes(run) == [code]
    with pytest.raises(TrendFlowError) as caught:
        run.read_manifest(RUN)
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_manifest_in_the_wrong_folder_is_a_finding(memory: ObjectStore, run: ResultStore) -> None:
    stray = json.dumps(first_manifest(make_identity("run-2"))).encode()
    memory.put(f"{FOLDER}/manifest.json", stray)
    assert codes(run) == ["identity_mismatch", "orphan"]
    assert [finding.code for finding in run.validate_run("upload/my-video/none")] == ["manifest_missing"]


def test_a_schema_check_can_be_added(run: ResultStore) -> None:
    seen: list[str] = []

    def check(arrays: Any, meta: Any) -> list[str]:
        seen.extend(arrays)
        return [f"{meta['schema_version']} says no"]

    findings = run.validate_run(RUN, check)
    assert [(finding.code, finding.message) for finding in findings] == [("schema_invalid", "core_clip_npz_v1 says no")]
    assert sorted(seen) == sorted(example_arrays())


def test_youtube_ids_may_begin_with_a_dash(memory: ObjectStore) -> None:
    identity = RunIdentity("youtube", "-dQw4w9WgXc", "-run", "a" * 64, "s1", "unknown")
    results = ResultStore(memory)
    results.create_manifest(first_manifest(identity))
    meta = meta_for(identity, "core_clip", Artifact(arrays={}).arrays)
    results.write_artifact(identity.run_path, "core_clip", "core_clip", {}, meta)
    assert memory.exists("result_store/youtube/-dQw4w9WgXc/-run/core_clip/core_clip.npz")
