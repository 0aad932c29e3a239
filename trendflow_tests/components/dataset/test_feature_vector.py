"""The feature vector: its columns follow from graph and schemas, its values from the artifacts, its gaps from both."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from trendflow.components.base import ComponentInputs, Declaration, Upstream, VideoInfo
from trendflow.components.dataset import feature_vector
from trendflow.components.dataset._columns import EMBEDDINGS
from trendflow.components.registry import load_registry
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_types import parse_artifact_schema
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.contracts.valid_artifacts import valid_artifact

VIDEO = VideoInfo(duration_sec=10.0, analysis_width=320, analysis_height=180, analysis_fps=30.0, source_fps=30.0)
GRAPH = load_graph(data_path("component_graph.yaml"))
SCHEMAS = SchemaRegistry.load()
REGISTRY = load_registry(GRAPH, SCHEMAS)
STATISTICS = ["mean", "std", "min", "max", "p50", "p90"]


def declared(profile: str) -> dict[str, Declaration]:
    return REGISTRY.declarations(profile, feature_vector.SPEC.name, SCHEMAS)


def result(
    name: str, known: Declaration, arrays: Mapping[str, np.ndarray], empty_reason: str | None = None, **meta: Any
) -> Upstream:
    """SYNTHETIC: a stored artifact with these arrays."""
    stamp = {
        "schema_version": known.schema.schema_version,
        "producer_version": known.producer_version,
        "content_digest": name.encode().hex().ljust(64, "0")[:64],
        "absent_features": {},
    }
    return Upstream(name, "empty" if empty_reason else "ok", empty_reason, arrays, {**stamp, **meta})


def measured(name: str, known: Declaration, seed: int, optional: bool) -> Upstream:
    """SYNTHETIC: an artifact with random values that obeys the schema, with the listed members of each family."""
    arrays, _ = valid_artifact(known.schema, seed=seed, optional=optional)
    rng = np.random.default_rng(seed)
    features = {
        feature: float(value)
        for feature, value in zip(arrays["feature_names"].tolist(), arrays["feature_values"], strict=True)
        if feature in known.schema.features
    }
    for family in known.schema.features.values():
        features |= {member: rng.random() for member in family.members}
    return result(name, known, {**arrays, **feature_arrays(features)})


def run(declarations: Mapping[str, Declaration], *upstream: Upstream) -> Artifact:
    inputs = ComponentInputs(VIDEO, {found.name: found for found in upstream}, declarations=declarations)
    artifact = feature_vector.run(inputs)
    assert schema_problems(feature_vector, artifact) == []
    return artifact


def values(artifact: Artifact) -> dict[str, float]:
    arrays = artifact.arrays
    return dict(zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True))


def expected_columns(profile: str) -> list[str]:
    """From the files alone, as the contract puts it."""
    names = []
    for component in GRAPH.profile(profile).components:
        node = GRAPH.components[component]
        if node.kind == "dataset":
            continue
        document = json.loads((SCHEMAS.directory / f"{node.schema_version}.json").read_text(encoding="utf-8"))
        for name, entry in document["features"].items():
            members = entry.get("members", []) if "pattern" in entry else [name]
            names += [f"{component}__{member}__value" for member in members if entry["tier"] == "model_facing"]
        for key, entry in document["fields"].items():
            if entry["tier"] == "model_facing" and not entry["categorical"]:
                names += [f"{component}__{key}__{statistic}" for statistic in entry["flatten"]]
    return sorted(names)


@pytest.mark.parametrize("profile", GRAPH.profiles)
def test_columns_are_a_function_of_graph_and_schemas(profile: str) -> None:
    declarations = declared(profile)
    expected = expected_columns(profile)
    full = [measured(name, known, seed, seed % 2 == 0) for seed, (name, known) in enumerate(declarations.items())]
    empties = [
        result(name, known, feature_arrays({}), "upstream_empty")
        for name, known in reversed(declarations.items())  # the order of arrival does not matter either
    ]
    for upstream in ([], full[:1], full, full[::-1], empties):
        arrays = run(declarations, *upstream).arrays
        assert arrays["feature_names"].tolist() == expected
        assert arrays["prov_component"].tolist() == [name.split("__")[0] for name in expected]
    assert len(set(expected)) == len(expected) > 200


def test_a_column_is_never_a_label_an_index_or_bookkeeping() -> None:
    refused = ("_ids__", "_id__", "_index", "_indices", "_row_splits", "_digest", "_version", "_width__", "__empty")
    allowed = {"segmenter__analysis_width__value", "segmenter__source_width__value"}  # of the picture, not of an array
    for profile in GRAPH.profiles:
        names = set(expected_columns(profile)) - allowed
        assert [name for name in names if any(part in name for part in refused)] == []


@pytest.mark.parametrize("profile", GRAPH.profiles)
def test_gaps_are_nan_with_a_mask_and_a_reason(profile: str) -> None:
    declarations = declared(profile)
    upstream = [measured(name, known, 1, True) for name, known in declarations.items()]
    artifact = run(declarations, *(found for found in upstream if found.name != "cut_detection"))
    found, present = values(artifact), artifact.arrays["feature_present_mask"]
    assert artifact.status == "ok"
    assert present.tolist() == [not np.isnan(value) for value in found.values()]
    missing = {name for name, value in found.items() if np.isnan(value)}
    assert missing == set(artifact.meta["absent_features"]) - set(EMBEDDINGS)
    cuts = {name for name in found if name.startswith("cut_detection__")}
    assert cuts <= missing
    assert {artifact.meta["absent_features"][name] for name in cuts} == {"cut_detection gave no result"}
    rows = artifact.arrays["prov_component"] == "cut_detection"
    assert set(artifact.arrays["prov_content_digest"][rows].tolist()) == {""}
    assert "" not in artifact.arrays["prov_content_digest"][~rows].tolist()
    assert set(artifact.arrays["prov_producer_version"][rows].tolist()) == {
        declarations["cut_detection"].producer_version
    }


def edited(edit: Callable[[dict[str, Any]], None]) -> Declaration:
    """The tempo extractor with an edited schema."""
    document = copy.deepcopy(dict(SCHEMAS.get("tempo_extractor_npz_v2").document))
    edit(document)
    return Declaration(parse_artifact_schema(document), "1.0.0", "media")


def only_field(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        document["features"] = {}
        field = document["fields"]["bpm_by_segment"]
        document["fields"] = {"bpm_by_segment": {**field, "range": None, **changes}}

    return edit


def test_statistics_of_known_numbers() -> None:
    known = edited(only_field(flatten=STATISTICS))
    array = np.array([np.nan, 4, 1, np.nan, 2, 5], np.float32)
    artifact = run({"t": known}, result("t", known, {"bpm_by_segment": array}))
    found = {name.rsplit("__", 1)[1]: value for name, value in values(artifact).items()}
    # of 1 2 4 5: mean 3; squared deviations 4 1 1 4; 0.9 of the way to the last of 3 steps is 4.7
    expected = {"mean": 3.0, "std": 2.5**0.5, "min": 1.0, "max": 5.0, "p50": 3.0, "p90": 4.7}
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_order_of_rows_does_not_matter_and_one_row_has_no_deviation() -> None:
    known = edited(only_field(flatten=STATISTICS))
    array = np.random.default_rng(0).normal(size=50).astype(np.float32)
    first = run({"t": known}, result("t", known, {"bpm_by_segment": array}))
    second = run({"t": known}, result("t", known, {"bpm_by_segment": np.sort(array)}))
    assert values(first) == pytest.approx(values(second), rel=1e-6)
    single = values(run({"t": known}, result("t", known, {"bpm_by_segment": array[:1]})))
    assert np.isnan(single.pop("t__bpm_by_segment__std"))
    assert set(single.values()) == {float(array[0])}


@pytest.mark.parametrize("array", [[], [np.nan, np.nan]])
def test_an_array_without_a_finite_value_has_no_statistic(array: list[float]) -> None:
    known = edited(only_field(flatten=STATISTICS))
    artifact = run({"t": known}, result("t", known, {"bpm_by_segment": np.array(array, np.float32)}))
    assert np.isnan(artifact.arrays["feature_values"]).all()
    assert set(artifact.meta["absent_features"].values()) == {"undefined for this video"}


def test_a_mask_becomes_its_share() -> None:
    known = edited(only_field(flatten=["mean"], dtype="bool"))
    artifact = run({"t": known}, result("t", known, {"bpm_by_segment": np.array([True, False, False, False])}))
    assert values(artifact) == {"t__bpm_by_segment__mean": 0.25}


@pytest.mark.parametrize("change", [{"categorical": True, "dtype": "int32"}, {"tier": "analytics"}, {"tier": "debug"}])
def test_labels_and_other_tiers_are_no_columns(change: dict[str, Any]) -> None:
    known = edited(only_field(flatten=["mean"], **change))
    artifact = run({"t": known}, result("t", known, {"bpm_by_segment": np.arange(3, dtype=np.int32)}))
    assert values(artifact) == {}


def test_reasons_come_from_the_component() -> None:
    known = declared("starter")["tempo_extractor"]
    names = ["tempo_bpm", "tempo_bpm_std", "tempo_agreement", "pulse_clarity_mean", "tempo_valid_ratio"]
    features = feature_arrays({**dict.fromkeys(names, float("nan")), "tempo_valid_ratio": 0.0})
    stated = {"tempo_bpm": "no beat", "pulse_": "too quiet", "pulse_clarity_m": "much too quiet"}
    upstream = result("tempo_extractor", known, features, "tempo_all_segments_failed", absent_features=stated)
    artifact = run({"tempo_extractor": known}, upstream)
    reasons = {name.split("__")[1]: why for name, why in artifact.meta["absent_features"].items()}
    assert reasons["tempo_bpm"] == "no beat"
    assert reasons["tempo_bpm_std"] == "tempo_all_segments_failed", "a name is no prefix of another name"
    assert reasons["pulse_clarity_mean"] == "much too quiet", "the longest prefix is the most precise"
    assert "tempo_valid_ratio" not in reasons, "a measured zero of an empty component stays a zero"


def test_embeddings_are_kept_whole() -> None:
    known = declared("starter")
    frames = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    sound = np.arange(3, dtype=np.float32)
    upstream = [
        result("core_clip", known["core_clip"], {"frame_embeddings": frames}),
        result("clap_extractor", known["clap_extractor"], {"embedding": sound}),
    ]
    artifact = run(known, *upstream)
    np.testing.assert_allclose(artifact.arrays["core_clip__embedding_mean"], frames.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(artifact.arrays["clap_extractor__embedding"], sound)
    assert "text_processor__primary_embedding" not in artifact.arrays
    assert artifact.meta["absent_features"]["text_processor__primary_embedding"] == "text_processor gave no result"


def test_an_embedding_may_be_missing_beside_scalars_whose_names_begin_alike() -> None:
    known = {"clap_extractor": declared("starter")["clap_extractor"]}
    arrays = {"embedding": np.full(4, np.nan, np.float32), **feature_arrays({"embedding_change_mean": 0.5})}
    stated = {"embedding": "the vectors of the windows cancel out"}
    artifact = run(known, result("clap_extractor", known["clap_extractor"], arrays, absent_features=stated))
    assert "clap_extractor__embedding" not in artifact.arrays
    assert artifact.meta["absent_features"]["clap_extractor__embedding"] == stated["embedding"]
    assert values(artifact)["clap_extractor__embedding_change_mean__value"] == 0.5


def test_where_values_come_from() -> None:
    """Only the text component reads text; nothing in these profiles rests on it."""
    for profile in GRAPH.profiles:
        kinds = {name: known.source_kind for name, known in declared(profile).items()}
        assert kinds == {name: "document" if name == "text_processor" else "media" for name in kinds}
    nodes = dict(GRAPH.components)
    nodes["uniqueness"] = dataclasses.replace(nodes["uniqueness"], soft=("text_processor",))
    nodes["video_pacing"] = dataclasses.replace(nodes["video_pacing"], soft=("uniqueness",))
    graph = dataclasses.replace(GRAPH, components=nodes)
    found = {name: graph.source_kind("starter", name) for name in ("uniqueness", "video_pacing", "core_clip")}
    assert found == {"uniqueness": "derived", "video_pacing": "derived", "core_clip": "media"}


def test_a_feature_without_a_column_is_refused() -> None:
    known = declared("starter")["core_object_detections"]
    upstream = result("core_object_detections", known, feature_arrays({"group_frame_ratio__spaceship": 1.0}))
    with pytest.raises(TrendFlowError, match="spaceship") as caught:
        run({"core_object_detections": known}, upstream)
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("stale", [{"schema_version": "tempo_extractor_npz_v1"}, {"producer_version": "0.0.1"}])
def test_a_result_of_another_version_is_refused(stale: dict[str, str]) -> None:
    known = declared("starter")["tempo_extractor"]
    with pytest.raises(TrendFlowError, match="not of the version") as caught:
        run({"tempo_extractor": known}, result("tempo_extractor", known, feature_arrays({}), **stale))
    assert caught.value.error_code == "artifact_validation_failed"


def test_two_features_may_not_share_a_column() -> None:
    schema = edited(only_field(flatten=["mean"])).schema
    field = schema.fields["bpm_by_segment"]

    def holding(key: str) -> Declaration:
        return Declaration(
            dataclasses.replace(schema, fields={key: dataclasses.replace(field, name=key)}), "1.0.0", "media"
        )

    with pytest.raises(TrendFlowError, match="share a column") as caught:
        run({"a": holding("b__c"), "a__b": holding("c")})
    assert caught.value.error_code == "config_invalid"


def test_declarations_are_needed() -> None:
    with pytest.raises(TrendFlowError) as caught:
        feature_vector.run(ComponentInputs(VIDEO, {}))
    assert caught.value.error_code == "dependency_missing"
