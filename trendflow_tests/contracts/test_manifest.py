"""The manifest as pure functions: fields of the contract, status copied once, updates that commute and repeat."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.manifest import (
    CANCELLED,
    RUN_TIME_UP,
    add_run_warnings,
    component_row_from_meta,
    content_digests,
    find_row,
    new_manifest,
    retract_row,
    run_status,
    skip_component,
    update_run,
    upsert_row,
)
from trendflow.contracts.meta import build_meta, error_meta

RUN_FIELDS = [
    "platform_id",
    "video_id",
    "run_id",
    "config_hash",
    "sampling_policy_version",
    "dataprocessor_version",
    "created_at",
    "updated_at",
    "finished_at",
    "profile",
    "source",
    "document_digest",
    "resolved_models",
    "preprocessing",
    "frames_dir",
    "warnings",
    "skipped",
    "retry_count",
]
ROW_FIELDS = [
    "name",
    "kind",
    "status",
    "empty_reason",
    "error",
    "error_code",
    "started_at",
    "finished_at",
    "duration_ms",
    "artifacts",
    "producer_version",
    "schema_version",
    "models_used",
    "model_signature",
    "idempotency_key",
    "device_used",
    "batching",
    "cache_hit",
    "reused_from",
    "retry_count",
    "warnings",
    "notes",
]

IDENTITY = RunIdentity("upload", "my-video", "run-1", "a" * 64, "s1", "0.1.0")
T0 = "2026-01-01T00:00:00.000Z"
NAMES = ("segmenter", "core_clip", "cut_detection", "loudness_extractor")
KINDS = dict(zip(NAMES, ("segmenter", "core", "module", "audio"), strict=True))


def artifact_entry(name: str, stem: str) -> dict[str, Any]:
    return {
        "path": f"{name}/{stem}.npz",
        "type": "npz",
        "size": 10,
        "sha256": "1" * 64,
        "content_digest": ("2" if stem == name else "3") * 64,
        "schema_version": f"{stem}_npz_v1",
        "retention_class": "derived",
    }


def meta_of(name: str, artifact: Artifact | TrendFlowError) -> dict[str, Any]:
    where = {"producer": name, "producer_version": "1.0.0", "schema_version": f"{name}_npz_v1"}
    keys = {"idempotency_key": "c" * 64, "input_digest": "d" * 64}
    if isinstance(artifact, TrendFlowError):
        return error_meta(IDENTITY, artifact, **where, **keys)
    return build_meta(IDENTITY, artifact, **where, **keys, content_digest="2" * 64)


def row_of(name: str, second: int = 0, artifact: Artifact | TrendFlowError | None = None) -> dict[str, Any]:
    started = f"2026-01-01T00:00:{second:02d}.000Z"
    return component_row_from_meta(
        meta_of(name, artifact or Artifact(arrays={})),
        kind=KINDS[name],
        artifacts=[artifact_entry(name, name)],
        started_at=started,
        finished_at=started,
        duration_ms=1.5,
    )


def fresh() -> dict[str, Any]:
    return new_manifest(IDENTITY, T0, "starter", {"type": "upload"})


def test_new_manifest_has_exactly_the_fields_of_the_contract() -> None:
    manifest = fresh()
    assert set(manifest) == {"schema_version", "run", "components"}
    assert manifest["schema_version"] == "manifest_v1"
    assert set(manifest["run"]) == set(RUN_FIELDS)
    assert manifest["run"]["source"] == {"type": "upload", "sha256": None, "bytes": None, "duration_sec": None}
    assert manifest["run"]["updated_at"] == manifest["run"]["created_at"] == T0


def test_row_has_exactly_the_fields_of_the_contract() -> None:
    row = row_of("core_clip")
    assert set(row) == set(ROW_FIELDS)
    batching = {"effective_batch_size", "retries_total", "oom_retries", "queue_wait_ms", "gpu_mem_peak_mb"}
    assert set(row["batching"]) == batching


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact(arrays={}, warnings=("near_uniform_probs",), device_used="cuda:1"),
        Artifact.empty("no_faces_in_video", {"x": np.zeros(1)}),
        TrendFlowError("timeout", "Too slow."),
    ],
    ids=["ok", "empty", "error"],
)
def test_row_repeats_what_the_meta_says(artifact: Artifact | TrendFlowError) -> None:
    meta, row = meta_of("core_clip", artifact), row_of("core_clip", artifact=artifact)
    shared = set(row) & set(meta)
    assert {"status", "empty_reason", "error", "error_code", "warnings", "idempotency_key", "device_used"} <= shared
    assert {key: row[key] for key in shared} == {key: meta[key] for key in shared}


def test_a_component_may_have_several_artifacts() -> None:
    row = row_of("segmenter")
    row["artifacts"].append(artifact_entry("segmenter", "dense_signals"))
    assert content_digests(row) == {"segmenter": "2" * 64, "dense_signals": "3" * 64}


@pytest.mark.parametrize(
    ("kind", "artifacts"),
    [("visual", [artifact_entry("core_clip", "core_clip")]), ("core", []), ("core", [{"path": "x"}])],
    ids=["kind", "no artifact", "artifact fields"],
)
def test_malformed_rows_are_refused(kind: str, artifacts: list) -> None:
    with pytest.raises(TrendFlowError) as caught:
        component_row_from_meta(
            meta_of("core_clip", Artifact(arrays={})),
            kind=kind,
            artifacts=artifacts,
            started_at=T0,
            finished_at=T0,
            duration_ms=0,
        )
    assert caught.value.error_code == "artifact_validation_failed"


UPSERTS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 59)), max_size=12)


@given(UPSERTS)
def test_upserts_are_pure_repeatable_and_keep_the_latest_attempt(steps: list[tuple[str, int]]) -> None:
    manifest = fresh()
    for name, second in steps:
        before = copy.deepcopy(manifest)
        after = upsert_row(manifest, row_of(name, second))
        assert manifest == before
        assert upsert_row(after, row_of(name, second)) == after
        manifest = after
    latest = {name: max(second for other, second in steps if other == name) for name, _ in steps}
    assert {row["name"]: int(row["started_at"][17:19]) for row in manifest["components"]} == latest


@given(st.permutations(NAMES))
def test_the_manifest_does_not_tell_who_finished_first(order: list[str]) -> None:
    manifest = fresh()
    for name in order:
        manifest = upsert_row(manifest, row_of(name))
    assert [row["name"] for row in manifest["components"]] == list(NAMES)


def test_a_component_is_skipped_or_has_a_row_never_both() -> None:
    manifest = skip_component(fresh(), "core_clip", "segmenter failed with timeout")
    manifest = skip_component(manifest, "core_clip", "not executed")
    assert manifest["run"]["skipped"] == [{"name": "core_clip", "because": "not executed"}]
    manifest = upsert_row(manifest, row_of("core_clip"))
    assert manifest["run"]["skipped"] == []
    manifest = skip_component(manifest, "core_clip", "not executed")
    assert find_row(manifest, "core_clip") is None


def test_retracting_removes_one_row() -> None:
    manifest = upsert_row(upsert_row(fresh(), row_of("segmenter")), row_of("core_clip"))
    assert [row["name"] for row in retract_row(manifest, "segmenter")["components"]] == ["core_clip"]
    assert retract_row(fresh(), "segmenter") == fresh()


def test_run_block_updates() -> None:
    manifest = update_run(fresh(), source={"type": "upload", "sha256": "1" * 64}, finished_at=T0)
    assert manifest["run"]["source"] == {"type": "upload", "sha256": "1" * 64, "bytes": None, "duration_sec": None}
    assert add_run_warnings(add_run_warnings(manifest, ["av_drift"]), ["av_drift", "partial_failure"])["run"][
        "warnings"
    ] == ["av_drift", "partial_failure"]


@pytest.mark.parametrize("field", ["run_id", "config_hash", "created_at", "updated_at", "profile", "status"])
def test_identity_and_unknown_fields_cannot_be_updated(field: str) -> None:
    with pytest.raises(TrendFlowError, match=field):
        update_run(fresh(), **{field: "x"})


def test_words_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(TrendFlowError, match="made_up"):
        add_run_warnings(fresh(), ["made_up"])
    with pytest.raises(TrendFlowError, match="path"):
        update_run(fresh(), source={"type": "upload", "path": "/home/me/video.mp4"})


DONE = "2026-03-01T10:00:00.000Z"


@pytest.mark.parametrize(
    ("finished", "rows", "expected"),
    [
        (None, {}, "pending"),
        (None, {"a": "ok"}, "running"),
        (None, {"a": "error"}, "error"),
        (None, {"a": "ok", "extra": "error"}, "running"),
        (DONE, {"a": "ok", "b": "empty"}, "success"),
        (DONE, {"a": "ok", "b": "empty", "extra": "error"}, "success"),
        (DONE, {"a": "ok", "b": "error"}, "error"),
        (DONE, {"a": "ok"}, "error"),  # b never ran
        (DONE, {}, "error"),
    ],
)
def test_required_components_decide_the_status_of_a_run(
    finished: str | None, rows: dict[str, str], expected: str
) -> None:
    assert run_status(ended(finished, rows), ["a", "b"]) == expected


def ended(finished: str | None, rows: dict[str, str], notes: str | None = None) -> dict[str, Any]:
    """What of a manifest decides its status; `notes` stand in the row of `extra`."""
    found = [{"name": name, "status": status, "notes": None} for name, status in rows.items()]
    return {
        "run": {"finished_at": finished, "skipped": []},
        "components": [{**row, "notes": notes} if row["name"] == "extra" else row for row in found],
    }


@pytest.mark.parametrize(
    ("rows", "skipped", "expected"),
    [
        ({}, {"a": CANCELLED, "b": CANCELLED, "extra": CANCELLED}, "cancelled"),
        ({"a": "ok", "extra": "error"}, {"b": CANCELLED}, "cancelled"),
        ({"a": "ok", "b": "ok"}, {"extra": CANCELLED}, "cancelled"),  # though nothing required is missing
        ({"a": "error"}, {"b": CANCELLED}, "error"),
        ({"extra": "ok"}, {"a": "extra failed with timeout", "b": CANCELLED}, "error"),  # of an attempt before
        ({"a": "ok"}, {"b": "the run ended with internal_error"}, "error"),
        ({"a": "ok", "b": "ok"}, {"extra": "a failed with timeout"}, "success"),
    ],
)
def test_a_run_was_cancelled_when_nothing_else_keeps_components_from_running(
    rows: dict[str, str], skipped: dict[str, str], expected: str
) -> None:
    manifest = ended(DONE, rows)
    manifest["run"]["skipped"] = [{"name": name, "because": because} for name, because in skipped.items()]
    assert run_status(manifest, ["a", "b"]) == expected


@pytest.mark.parametrize("finished", [None, DONE])
@pytest.mark.parametrize(("notes", "over"), [(RUN_TIME_UP, True), ("another note", False), (None, False)])
def test_a_run_over_its_time_is_an_error_whatever_it_stopped(
    finished: str | None, notes: str | None, over: bool
) -> None:
    manifest = ended(finished, {"a": "ok", "b": "ok", "extra": "error"}, notes)
    assert (run_status(manifest, ["a", "b"]) == "error") == over
