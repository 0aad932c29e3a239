"""Idempotency keys against an independent computation, and that every part alone changes the key."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.keys import (
    KEY_PARTS,
    data_version,
    idempotency_key,
    input_digest,
    model_signature,
    models_used_rows,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64
MODEL = ModelUsed("nanodet", "1.5", A, "onnxruntime", "onnx", "fp32", "cpu")
PARTS = {
    "platform_id": "youtube",
    "video_id": "dQw4w9WgXcQ",
    "component": "core_clip",
    "config_hash": A,
    "sampling_policy_version": "s1",
    "producer_version": "1.0.0",
    "schema_version": "core_clip_npz_v3",
    "model_signature": B,
    "input_digest": C,
}
INPUT = {
    "source_sha256": A,
    "document_digest": B,
    "reference": {"prompts.json": C},
    "upstream": {"segmenter": {"segmenter": A, "dense_signals": B}, "core_clip": "error"},
}


def plain_digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_key_is_the_published_one() -> None:
    assert tuple(PARTS) == KEY_PARTS
    assert idempotency_key(**PARTS) == plain_digest(PARTS)


@pytest.mark.parametrize("part", KEY_PARTS)
def test_every_part_alone_changes_the_key(part: str) -> None:
    assert idempotency_key(**{**PARTS, part: PARTS[part] + "x"}) != idempotency_key(**PARTS)


def test_run_and_release_cannot_enter_the_key() -> None:
    assert not {"run_id", "dataprocessor_version"} & set(inspect.signature(idempotency_key).parameters)


def test_input_digest_is_the_published_one() -> None:
    expected = {
        "source_media": A,
        "document": B,
        "reference": {"prompts.json": C},
        "upstream": {"segmenter": {"segmenter": A, "dense_signals": B}, "core_clip": "error"},
    }
    assert input_digest(**INPUT) == plain_digest(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"source_sha256": B},
        {"document_digest": None},
        {"reference": {}},
        {"reference": {"prompts.json": A}},
        {"upstream": {**INPUT["upstream"], "core_clip": {"core_clip": A}}},
        {"upstream": {"segmenter": {"segmenter": B, "dense_signals": B}, "core_clip": "error"}},
        {"upstream": {"segmenter": INPUT["upstream"]["segmenter"]}},
    ],
    ids=["source", "document", "reference gone", "reference content", "soft recovered", "upstream", "soft disabled"],
)
def test_every_input_alone_changes_the_digest(change: dict) -> None:
    assert input_digest(**{**INPUT, **change}) != input_digest(**INPUT)


@pytest.mark.parametrize("change", [{"source_sha256": "A" * 64}, {"document_digest": "x"}, {"reference": {"f": ""}}])
def test_values_that_are_no_digests_are_refused(change: dict) -> None:
    with pytest.raises(TrendFlowError, match="sha256"):
        input_digest(**{**INPUT, **change})


def test_signature_of_no_model_is_that_of_the_empty_list() -> None:
    assert model_signature([]) == hashlib.sha256(b"[]").hexdigest()


@given(st.permutations([MODEL, replace(MODEL, model_name="a"), replace(MODEL, precision="fp16")]))
def test_signature_does_not_depend_on_order(models: list[ModelUsed]) -> None:
    rows = [
        {
            "model_name": name,
            "model_version": "1.5",
            "weights_digest": A,
            "runtime": "onnxruntime",
            "engine": "onnx",
            "precision": precision,
            "device": "cpu",
        }
        for name, precision in (("a", "fp32"), ("nanodet", "fp16"), ("nanodet", "fp32"))
    ]
    assert model_signature(models) == plain_digest(rows)
    assert models_used_rows(models) == rows


@pytest.mark.parametrize("field", list(ModelUsed.__dataclass_fields__))
def test_every_model_field_alone_changes_the_signature(field: str) -> None:
    assert model_signature([replace(MODEL, **{field: "other"})]) != model_signature([MODEL])


@pytest.mark.parametrize(
    "row",
    [
        {"model_name": "x"},
        {**MODEL.__dict__, "batch": "8"},
        {**MODEL.__dict__, "engine": ""},
        {**MODEL.__dict__, "engine": None},
        {**MODEL.__dict__, "device": "cuda:0"},
    ],
    ids=["missing", "extra", "empty", "null", "ordinal"],
)
def test_malformed_model_rows_are_refused(row: dict) -> None:
    with pytest.raises(TrendFlowError) as caught:
        model_signature([row])
    assert caught.value.error_code == "model_spec_invalid"


def test_data_version() -> None:
    assert data_version({"core_clip": A}) == A
    both = {"segmenter": A, "dense_signals": B}
    assert data_version(both) == plain_digest(both) == data_version(dict(reversed(both.items())))
    with pytest.raises(TrendFlowError):
        data_version({})
