"""Artifact meta: complete, closed, and re-stamped without losing anything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trendflow.contracts.artifact import Artifact, ModelUsed
from trendflow.contracts.canonical import canonical_json, content_digest
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import model_signature
from trendflow.contracts.meta import OPTIONAL_META, REQUIRED_META, build_meta, error_meta, restamp_meta

REQUIRED = [
    "producer",
    "producer_version",
    "schema_version",
    "created_at",
    "platform_id",
    "video_id",
    "run_id",
    "config_hash",
    "sampling_policy_version",
    "dataprocessor_version",
    "status",
    "empty_reason",
    "error_code",
    "error",
    "models_used",
    "model_signature",
    "stage_timings_ms",
    "device_used",
    "idempotency_key",
    "input_digest",
    "content_digest",
    "cache_hit",
    "reused_from",
    "warnings",
]
OPTIONAL = [
    "total_frames",
    "processed_frames",
    "analysis_fps",
    "analysis_width",
    "analysis_height",
    "batching",
    "scheduler_knobs",
    "resource_metrics",
    "features_enabled",
    "absent_features",
    "seed",
    "runtime_env",
    "git_commit",
    "computed_at",
    "attempt",
    "prompts_version",
    "thresholds_version",
    "label_vocab_version",
    "db_name",
    "db_version",
    "db_digest",
    "backend_proxy_version",
    "preview_k",
    "preview_map_size",
    "coord_space",
    "upstream_models",
]

IDENTITY = RunIdentity("upload", "my-video", "run-1", "a" * 64, "s1", "0.1.0")
MODEL = ModelUsed("m", "1", "b" * 64, "onnxruntime", "onnx", "fp32", "cpu")
ARTIFACT = Artifact(
    arrays={"x": np.arange(3)},
    warnings=("large_sampling_gap",),
    models_used=(MODEL,),
    meta={"coord_space": "norm_xy"},
    stage_timings_ms={"infer": 12},
    device_used="cpu",
)
WHERE = {"producer": "demo", "producer_version": "1.0.0", "schema_version": "demo_npz_v1"}
KEYS = {"idempotency_key": "c" * 64, "input_digest": "d" * 64}
NOW = "2026-01-02T03:04:05.678Z"


def built(artifact: Artifact = ARTIFACT, **changes: object) -> dict:
    return build_meta(IDENTITY, artifact, **WHERE, **KEYS, content_digest="e" * 64, created_at=NOW, **changes)


def test_the_vocabulary_is_that_of_the_contract() -> None:
    assert sorted(REQUIRED_META) == sorted(REQUIRED)
    assert sorted(OPTIONAL_META) == sorted(OPTIONAL)


def test_meta_is_complete_and_plain_json() -> None:
    meta = built(optional={"attempt": 2})
    assert set(meta) == {*REQUIRED, "coord_space", "attempt"}
    assert json.loads(canonical_json(meta)) == meta
    assert {key: meta[key] for key in IDENTITY.as_dict()} == IDENTITY.as_dict()
    assert meta["model_signature"] == model_signature([MODEL])
    assert (meta["status"], meta["empty_reason"], meta["error"], meta["error_code"]) == ("ok", None, None, None)
    assert (meta["cache_hit"], meta["reused_from"], meta["warnings"]) == (False, None, ["large_sampling_gap"])
    assert meta["created_at"] == NOW


def test_empty_keeps_its_reason() -> None:
    meta = built(Artifact.empty("audio_silent", {"x": np.full(2, np.nan)}))
    assert (meta["status"], meta["empty_reason"]) == ("empty", "audio_silent")


@pytest.mark.parametrize(
    ("artifact", "optional"),
    [
        (replace(ARTIFACT, meta={"comment_text": "hello"}), {}),
        (ARTIFACT, {"run_id": "other"}),
        (ARTIFACT, {"coord_space": "pixel_xy"}),
    ],
    ids=["unknown", "required key overwritten", "contradiction"],
)
def test_keys_outside_the_contract_are_refused(artifact: Artifact, optional: dict) -> None:
    with pytest.raises(TrendFlowError) as caught:
        built(artifact, optional=optional)
    assert caught.value.error_code == "artifact_validation_failed"


def test_error_meta_carries_code_and_sentence_only() -> None:
    error = TrendFlowError("model_load_failed", "The engine refuses the weights.", engine="onnx")
    meta = error_meta(IDENTITY, error, **WHERE, idempotency_key=None, input_digest=None)
    assert set(meta) == set(REQUIRED)
    assert (meta["status"], meta["error_code"]) == ("error", "model_load_failed")
    assert meta["error"] == "The engine refuses the weights."
    assert meta["content_digest"] == content_digest("demo", "demo_npz_v1", "error", None, {})


def test_restamping_changes_the_run_and_nothing_else() -> None:
    meta = built()
    other = replace(IDENTITY, run_id="run-2", dataprocessor_version="0.2.0")
    origin = {"run_id": "run-1", "created_at": NOW, "sha256": "f" * 64}
    later = "2026-02-02T00:00:00.000Z"
    stamped = restamp_meta(meta, other, later, origin)
    changed = {key for key in meta if stamped[key] != meta[key]}
    assert changed == {"run_id", "dataprocessor_version", "created_at", "cache_hit", "reused_from"}
    assert (stamped["cache_hit"], stamped["reused_from"], stamped["created_at"]) == (True, origin, later)
    assert meta == built()


@pytest.mark.parametrize(
    "change",
    [
        {"platform_id": "youtube", "video_id": "dQw4w9WgXcQ"},
        {"video_id": "other"},
        {"config_hash": "0" * 64},
        {"sampling_policy_version": "s2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_answer_to_another_question_cannot_be_restamped(change: dict) -> None:
    with pytest.raises(TrendFlowError, match="another"):
        restamp_meta(built(), replace(IDENTITY, **change), NOW, {"run_id": "r", "created_at": NOW, "sha256": "f" * 64})


def test_errors_are_never_reused() -> None:
    meta = error_meta(IDENTITY, TrendFlowError("timeout", "Late."), **WHERE, idempotency_key=None, input_digest=None)
    with pytest.raises(TrendFlowError, match="never reused"):
        restamp_meta(meta, IDENTITY, NOW, {"run_id": "r", "created_at": NOW, "sha256": "f" * 64})
    with pytest.raises(TrendFlowError, match="reused_from"):
        restamp_meta(built(), IDENTITY, NOW, {"run_id": "r"})
