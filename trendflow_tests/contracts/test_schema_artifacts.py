"""The artifact validator: everything valid passes, every single fault is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.meta import error_meta, restamp_meta
from trendflow.contracts.schema import SchemaRegistry, require_valid, validate_artifact
from trendflow.contracts.schema_types import ArtifactSchema, FieldSchema
from trendflow_tests.contracts.valid_artifacts import IDENTITY, valid_artifact

REGISTRY = SchemaRegistry.load()
SCHEMAS = tuple(REGISTRY)
Fields = list[FieldSchema]

seeds = st.integers(0, 2**32 - 1)


def problems(arrays: dict[str, np.ndarray], meta: dict[str, Any], total_frames: int | None = None) -> list[str]:
    return validate_artifact(REGISTRY, arrays, meta, total_frames=total_frames)


def has_fields(schema: ArtifactSchema, **wanted: Any) -> Fields:
    return [field for field in schema.fields.values() if all(getattr(field, k) == v for k, v in wanted.items())]


@st.composite
def artifacts(
    draw: st.DrawFn, having: Callable[[FieldSchema], object] = lambda field: True
) -> tuple[ArtifactSchema, dict[str, np.ndarray], dict[str, Any]]:
    """Of the schemas with a field like that: a test that discards most of what it draws tests little."""
    schema = draw(st.sampled_from([schema for schema in SCHEMAS if any(map(having, schema.fields.values()))]))
    sizes = {
        "N": draw(st.integers(1, 9)),
        "U": draw(st.integers(9, 20)),
        "L": draw(st.integers(9, 30)),
        "F": draw(st.integers(1, 9)),
        "I": draw(st.integers(0, 9)),
        **{symbol: draw(st.integers(0, 9)) for symbol in ("R", "Q", "G", "E", "W", "M")},
        **{symbol: draw(st.integers(1, 5)) for symbol in ("C", "S", "D", "A", "P")},
    }
    arrays, meta = valid_artifact(schema, sizes, seed=draw(seeds), optional=draw(st.booleans()))
    return schema, arrays, meta


def pick(draw: st.DataObject, arrays: dict[str, np.ndarray], fields: Fields, at_least: int = 1) -> FieldSchema:
    found = [field for field in fields if field.name in arrays and arrays[field.name].size >= at_least]
    assume(found)
    return draw.draw(st.sampled_from(found))


@given(artifacts())
def test_whatever_obeys_the_schema_passes(made):
    _, arrays, meta = made
    assert problems(arrays, meta) == []
    require_valid(REGISTRY, arrays, meta)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.schema_version)
def test_an_empty_artifact_keeps_all_required_arrays(schema):
    zero = dict.fromkeys("ARQGEWMI", 0)
    arrays, meta = valid_artifact(schema, zero, optional=False, status="empty", empty_reason="upstream_empty")
    assert problems(arrays, meta) == []
    lost = next(iter(arrays))
    del arrays[lost]
    assert f"Array {lost!r} is missing." in problems(arrays, meta)


@given(artifacts(), st.data())
def test_a_missing_array_is_found_unless_optional(made, data):
    schema, arrays, meta = made
    name = data.draw(st.sampled_from(sorted(arrays)))
    del arrays[name]
    assert (f"Array {name!r} is missing." in problems(arrays, meta)) == schema.fields[name].required


@given(artifacts())
def test_an_unknown_array_is_refused(made):
    schema, arrays, meta = made
    arrays["surplus"] = np.zeros(3, dtype=np.float32)
    assert problems(arrays, meta) == [f"Array 'surplus' is not in {schema.schema_version}."]


@given(artifacts(), st.data())
def test_a_wrong_dtype_is_found(made, data):
    schema, arrays, meta = made
    name = data.draw(st.sampled_from(sorted(arrays)))
    wrong = np.float32 if schema.fields[name].dtypes == ("float64",) else np.float64
    arrays[name] = np.zeros(arrays[name].shape, dtype=wrong)
    assert any(name in problem and "dtype" in problem for problem in problems(arrays, meta))


@given(artifacts(), st.data())
def test_arrays_of_one_symbol_must_have_one_size(made, data):
    schema, arrays, meta = made
    shared = [
        field
        for field in schema.fields.values()
        if field.name in arrays
        and field.shape
        and sum(field.shape[0].symbol in {d.symbol for d in schema.fields[other].shape} for other in arrays) > 1
    ]
    field = pick(data, arrays, shared)
    assume(field.shape[0].symbol is not None)
    arrays[field.name] = arrays[field.name][:-1]
    assert any("shape" in problem and field.shape[0].symbol in problem for problem in problems(arrays, meta))


@given(artifacts(), st.data())
def test_a_wrong_number_of_dimensions_is_found(made, data):
    _, arrays, meta = made
    name = data.draw(st.sampled_from(sorted(arrays)))
    arrays[name] = arrays[name][None]
    assert any(f"Array {name!r} has shape" in problem for problem in problems(arrays, meta))


@given(artifacts(), st.data(), st.sampled_from([np.inf, -np.inf]))
def test_infinity_is_never_valid(made, data, infinity):
    schema, arrays, meta = made
    floats = [field for field in schema.fields.values() if field.dtypes[0].startswith("float")]
    field = pick(data, arrays, floats)
    arrays[field.name].flat[0] = infinity
    assert f"Array {field.name!r} holds an infinite value." in problems(arrays, meta)


@given(artifacts(), st.data())
def test_nan_is_found_exactly_where_forbidden(made, data):
    schema, arrays, meta = made
    floats = [field for field in schema.fields.values() if field.dtypes[0].startswith("float")]
    field = pick(data, arrays, [field for field in floats if field.name != "feature_values"])
    arrays[field.name].flat[0] = np.nan
    assert (f"Array {field.name!r} holds NaN, which its schema forbids." in problems(arrays, meta)) == field.finite


@given(artifacts(), st.data(), st.booleans())
def test_values_outside_the_range_are_found(made, data, above):
    schema, arrays, meta = made
    numbers = [field for field in schema.fields.values() if field.range[above] is not None]
    field = pick(data, arrays, numbers)
    bound = field.range[above]
    arrays[field.name].flat[0] = bound + (1 if above else -1)
    word = "above its maximum" if above else "below its minimum"
    assert any(field.name in problem and word in problem for problem in problems(arrays, meta))


def test_rounding_of_float32_is_no_range_violation():
    arrays, meta = valid_artifact(REGISTRY.get("core_clip_npz_v3"))
    arrays["consecutive_cosine_prev"][1] = np.nextafter(np.float32(1), np.float32(2))
    assert problems(arrays, meta) == []
    arrays["consecutive_cosine_prev"][1] = 1.001
    assert len(problems(arrays, meta)) == 1


@given(artifacts(lambda field: field.order is not None), st.data())
def test_an_order_that_breaks_is_found(made, data):
    schema, arrays, meta = made
    field = pick(data, arrays, [field for field in schema.fields.values() if field.order is not None], at_least=2)
    if field.order == "increasing":
        arrays[field.name][1] = arrays[field.name][0]
    else:
        assume(arrays[field.name][0] != arrays[field.name][-1])
        arrays[field.name] = arrays[field.name][::-1]
    assert f"Array {field.name!r} is not {field.order} at row 1." in problems(arrays, meta)


@given(artifacts(lambda field: field.index_of is not None), st.data())
def test_an_index_past_its_target_is_found(made, data):
    schema, arrays, meta = made
    field = pick(data, arrays, [field for field in schema.fields.values() if field.index_of is not None])
    target = meta["total_frames"] if field.index_of == "total_frames" else None
    if target is None:
        target = next(
            arrays[other.name].shape[axis]
            for other in schema.fields.values()
            if other.name in arrays
            for axis, dimension in enumerate(other.shape)
            if dimension.symbol == field.index_of and dimension.offset == 0
        )
    arrays[field.name][-1] = target
    assert any(field.name in problem and "outside [0, " in problem for problem in problems(arrays, meta))


@given(artifacts(lambda field: field.row_splits_of), st.data(), st.sampled_from(["start", "end", "falls"]))
def test_broken_row_splits_are_found(made, data, fault):
    schema, arrays, meta = made
    field = pick(data, arrays, [field for field in schema.fields.values() if field.row_splits_of], at_least=3)
    splits = arrays[field.name]
    if fault == "start":
        splits[0] = 1
    elif fault == "end":
        splits[-1] += 1
    else:
        splits[1] = splits[-1] + 1
    expected = {"start": "does not start at 0", "end": f"ends at {splits[-1]} but", "falls": "decreases"}[fault]
    assert any(f"Array {field.name!r} {expected}" in problem for problem in problems(arrays, meta))


def test_rows_of_indices_must_be_sorted_and_unique_each():
    schema = REGISTRY.get("segmenter_npz_v1")
    arrays, meta = valid_artifact(schema, {"C": 2, "I": 6, "U": 9})
    arrays["component_indices"] = np.array([0, 4, 8, 0, 1, 2], dtype=np.int32)
    arrays["component_indices_row_splits"] = np.array([0, 3, 6])
    assert problems(arrays, meta) == []  # falling from 8 to 0 is allowed: another row begins
    arrays["component_indices"] = np.array([0, 4, 4, 0, 1, 2], dtype=np.int32)
    assert any("not sorted and unique" in problem for problem in problems(arrays, meta))


@given(artifacts(), st.data())
def test_repeated_labels_are_found(made, data):
    schema, arrays, meta = made
    field = pick(data, arrays, has_fields(schema, unique=True, dtypes=("<U",)), at_least=2)
    arrays[field.name][1] = arrays[field.name][0]
    assert f"Array {field.name!r} holds a value twice." in problems(arrays, meta)


@given(artifacts(), st.data())
def test_features_are_exactly_those_of_the_schema(made, data):
    schema, arrays, meta = made
    fixed = [feature.name for feature in schema.features.values() if feature.pattern is None]
    assume(fixed)
    lost = data.draw(st.sampled_from(fixed))
    keep = arrays["feature_names"] != lost
    fewer = {**arrays, "feature_names": arrays["feature_names"][keep], "feature_values": arrays["feature_values"][keep]}
    assert problems(fewer, meta) == [f"Feature {lost!r} is missing."]
    renamed = {**arrays, "feature_names": np.where(keep, arrays["feature_names"], "invented")}
    assert f"Feature 'invented' is not in {schema.schema_version}." in problems(renamed, meta)


def test_a_feature_family_accepts_any_member_but_keeps_its_range():
    arrays, meta = valid_artifact(REGISTRY.get("core_object_detections_npz_v3"))
    families = np.char.startswith(arrays["feature_names"], "group_frame_ratio__")
    assert families.sum() == 2
    arrays["feature_values"][families] = 0.5, 1.5
    assert len([problem for problem in problems(arrays, meta) if "above its maximum 1" in problem]) == 1


def test_a_feature_may_be_nan_unless_its_schema_forbids_it():
    arrays, meta = valid_artifact(REGISTRY.get("segmenter_npz_v1"))
    arrays["feature_values"][arrays["feature_names"] == "av_drift_sec"] = np.nan
    assert problems(arrays, meta) == []
    arrays["feature_values"][arrays["feature_names"] == "duration_sec"] = np.nan
    assert problems(arrays, meta) == ["Feature 'duration_sec' is NaN, which its schema forbids."]


def test_total_frames_comes_from_the_caller_or_from_meta():
    arrays, meta = valid_artifact(REGISTRY.get("tempo_extractor_npz_v2"))
    assert "total_frames" not in meta  # audio artifacts have no frame_indices
    arrays, meta = valid_artifact(REGISTRY.get("core_clip_npz_v3"), {"N": 4, "total_frames": 10})
    arrays["frame_indices"] = np.array([0, 3, 6, 9], dtype=np.int32)
    assert problems(arrays, meta, total_frames=10) == []
    assert any("total_frames is 10 in meta but the union has 9" in problem for problem in problems(arrays, meta, 9))
    del meta["total_frames"]
    assert any("outside [0, 9)" in problem for problem in problems(arrays, meta, 9))
    assert problems(arrays, meta) == []


def test_an_error_artifact_holds_nothing_but_meta():
    schema = REGISTRY.get("core_object_detections_npz_v3")
    meta = error_meta(
        IDENTITY,
        TrendFlowError("timeout", "Too slow."),
        producer=schema.producer,
        producer_version="1.0.0",
        schema_version=schema.schema_version,
        idempotency_key=None,
        input_digest=None,
    )
    assert problems({}, meta) == []
    assert problems({"boxes": np.zeros((0, 4), np.float32)}, meta) == ["An error artifact must hold nothing but meta."]


def test_a_restamped_artifact_stays_valid():
    arrays, meta = valid_artifact(REGISTRY.get("cut_detection_npz_v2"))
    other = RunIdentity("upload", "clip_1", "run_2", "c" * 64, "sampling_v1", "0.2.0")
    reused = {"run_id": "run_1", "created_at": meta["created_at"], "sha256": "4" * 64}
    assert problems(arrays, restamp_meta(meta, other, "2026-01-01T00:00:00.000Z", reused)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"producer": "core_clip"}, "producer is 'core_clip'"),
        ({"platform_id": "elsewhere"}, "run identity"),
        ({"run_id": "a/b"}, "run identity"),
        ({"config_hash": "abc"}, "run identity"),
        ({"created_at": "2026-01-01 00:00:00"}, "created_at"),
        ({"status": "done"}, "status 'done'"),
        ({"status": "empty"}, "empty_reason must be set exactly"),
        ({"empty_reason": "audio_silent"}, "empty_reason must be set exactly"),
        ({"status": "empty", "empty_reason": "bored"}, "empty_reason 'bored'"),
        ({"error_code": "timeout", "error": "Late."}, "error_code and error must be set exactly"),
        ({"error": "Late."}, "error_code and error must be set exactly"),
        ({"warnings": ["odd"]}, "['odd'] are not in the vocabulary"),
        ({"warnings": ["av_drift", "av_drift"]}, "distinct codes"),
        ({"model_signature": "0" * 64}, "not the digest of models_used"),
        ({"models_used": [{"model_name": "x"}]}, "seven-string rows"),
        ({"idempotency_key": None}, "idempotency_key"),
        ({"input_digest": "short"}, "input_digest"),
        ({"content_digest": "G" * 64}, "content_digest"),
        ({"device_used": "gpu"}, "device_used"),
        ({"stage_timings_ms": {"decode": -1}}, "stage_timings_ms"),
        ({"cache_hit": True}, "reused_from must be set exactly"),
        ({"invented": 1}, "Meta key 'invented'"),
        ({"status": "error", "error_code": "bad_luck", "error": "Late."}, "error_code 'bad_luck'"),
        ({"total_frames": "many"}, "total_frames is not a number"),
        ({"status": "error", "error_code": "timeout", "error": "x" * 501}, "at most 500 characters"),
        ({"cache_hit": True, "reused_from": {"run_id": "run_0"}}, "reused_from must hold"),
        ({"absent_features": ["x"]}, "absent_features is not a map"),
        ({"coord_space": "norm_xy"}, "coord_space of 'boxes' is 'norm_xy', not 'px'"),
        ({"features_enabled": ["nothing"]}, "features_enabled"),
    ],
)
def test_meta_that_contradicts_the_contract_is_found(changes, said):
    arrays, meta = valid_artifact(REGISTRY.get("core_object_detections_npz_v3"))
    assert problems(arrays, meta) == []
    assert any(said in problem for problem in problems(arrays, {**meta, **changes}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data(), json_values)
def test_meta_of_any_shape_is_answered_with_sentences(data, value):
    """Stored meta is foreign data: a broken one must be reported, not crash the check."""
    arrays, meta = valid_artifact(REGISTRY.get("core_object_detections_npz_v3"))
    key = data.draw(st.sampled_from([*meta, "features_enabled", "absent_features"]))
    found = problems(arrays, {**meta, key: value})
    assert all(isinstance(problem, str) and problem.endswith(".") for problem in found)
    if key in ("content_digest", "producer", "models_used") and value != []:
        assert found
    if key == "stage_timings_ms":
        is_map = isinstance(value, dict)
        times = list(value.values()) if is_map else []
        assert bool(found) != (is_map and all(type(ms) is int and ms >= 0 for ms in times))


@pytest.mark.parametrize("key", ["producer", "content_digest", "warnings", "coord_space"])
def test_missing_meta_is_found(key):
    arrays, meta = valid_artifact(REGISTRY.get("core_object_detections_npz_v3"))
    del meta[key]
    assert problems(arrays, meta)[0] == f"Meta lacks {key}."


def test_a_feature_declared_absent_must_be_nan():
    arrays, meta = valid_artifact(REGISTRY.get("core_clip_npz_v3"))
    names = arrays["feature_names"]
    arrays["feature_values"][:] = 0.5
    meta["absent_features"] = {"entropy_mean__": "role prompt_encoder is not mapped"}
    assert problems(arrays, meta) == ["absent_features names 'entropy_mean__', which has a value."]
    arrays["feature_values"][np.char.startswith(names, "entropy_mean__")] = np.nan
    assert problems(arrays, meta) == []


def test_an_exact_absent_feature_does_not_cover_longer_names():
    arrays, meta = valid_artifact(REGISTRY.get("tempo_extractor_npz_v2"))
    arrays["feature_values"][:] = np.where(arrays["feature_names"] == "tempo_bpm", np.nan, 60)
    arrays["feature_values"][np.char.find(arrays["feature_names"], "tempo_bpm") < 0] = 0.5
    meta["absent_features"] = {"tempo_bpm": "test"}
    assert problems(arrays, meta) == []


def test_an_unknown_schema_is_a_problem_and_a_typed_error():
    arrays, meta = valid_artifact(SCHEMAS[0])
    meta["schema_version"] = "core_clip_npz_v99"
    assert problems(arrays, meta) == ["The schema 'core_clip_npz_v99' is unknown."]
    with pytest.raises(TrendFlowError) as caught:
        require_valid(REGISTRY, arrays, meta)
    assert caught.value.error_code == "artifact_validation_failed"
    with pytest.raises(TrendFlowError, match="unknown"):
        REGISTRY.get("core_clip_npz_v99")
