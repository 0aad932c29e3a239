"""A model is asked only about runs that the same programs computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.compatibility import difference, require_allowed, spec_of
from trendflow_tests.inference.manifests import manifest
from trendflow_tests.inference.synthetic import COMPONENTS, CONTENT, METADATA, content, run_inputs, spec

FEATURES = (*METADATA, *CONTENT)


def trained(**changes: Any) -> dict[str, Any]:
    known = {
        "producer_versions": {name: found.producer_version for name, found in COMPONENTS.items()},
        "schema_versions": {name: found.schema_version for name, found in COMPONENTS.items()},
        "model_signatures": {name: found.signature for name, found in COMPONENTS.items()},
    }
    return manifest(features=FEATURES, **{**known, **changes})


def with_component(name: str, **changes: Any) -> dict[str, Any]:
    return {**COMPONENTS, name: dataclasses.replace(COMPONENTS[name], **changes)}


def test_a_run_of_the_same_programs_fits() -> None:
    assert difference(trained(), FEATURES, run_inputs()) is None


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"components": with_component("cut_detection", producer_version="1.3.0")}, "version 1.2.0, the run has 1.3.0"),
        ({"components": with_component("cut_detection", schema_version="x_v9")}, "the run has x_v9"),
        ({"components": with_component("loudness_extractor", signature="ef" * 32)}, "loudness_extractor with models"),
        ({"components": {"cut_detection": COMPONENTS["cut_detection"]}}, "which the run does not have"),
        ({"sampling_policy_version": "sampling_v2"}, "sampling policy sampling_v1, the run has sampling_v2"),
        ({"config_hash": "cd" * 32}, f"configuration {'ab' * 20}, the run has {'cd' * 20}"),
        ({"content": content((1.0,), CONTENT[:1])}, "which the feature vector does not have"),
    ],
)
def test_every_difference_is_one_sentence(run: dict[str, Any], words: str) -> None:
    found = difference(trained(), FEATURES, run_inputs(**run))
    assert found is not None
    assert words in found
    assert found.endswith(".")


def test_another_feature_schema_is_a_difference() -> None:
    found = difference(trained(feature_schema_version="feature_vector_npz_v2"), FEATURES, run_inputs())
    assert found == "The model was trained on feature schema feature_vector_npz_v2, the run has feature_vector_npz_v1."


def test_a_component_the_model_does_not_read_may_differ() -> None:
    changed = {**COMPONENTS, "core_clip": COMPONENTS["cut_detection"]}
    assert difference(trained(), FEATURES, run_inputs(components=changed)) is None
    newer = with_component("cut_detection", producer_version="9.0.0")
    assert difference(trained(), METADATA, run_inputs(components=newer)) is None


def test_a_failed_component_has_no_models_to_compare() -> None:
    failed = with_component("cut_detection", signature="")
    assert difference(trained(), FEATURES, run_inputs(components=failed)) is None


@pytest.mark.parametrize("key", ["producer_versions", "schema_versions"])
def test_a_model_that_does_not_say_its_versions_does_not_fit(key: str) -> None:
    found = difference(trained(**{key: {}}), FEATURES, run_inputs())
    assert found is not None
    assert "does not say" in found


def test_another_feature_spec_is_refused() -> None:
    chosen = spec(content=True)
    assert spec_of(chosen.document, manifest(feature_spec_hash=chosen.hash)).hash == chosen.hash
    with pytest.raises(TrendFlowError, match="not the one it was trained with") as caught:
        spec_of(spec(content=False).document, manifest(feature_spec_hash=chosen.hash))
    assert caught.value.error_code == "model_spec_invalid"


def test_invented_data_are_refused_unless_asked_for_and_then_stamped() -> None:
    real, fake = manifest(synthetic=False), manifest(synthetic=True)
    assert require_allowed(real, run_inputs(), allow_synthetic=False) is False
    for model, run in ((fake, run_inputs()), (real, run_inputs(test_models=("random_weights_clip",)))):
        with pytest.raises(TrendFlowError) as caught:
            require_allowed(model, run, allow_synthetic=False)
        assert caught.value.error_code == "model_spec_invalid"
        assert require_allowed(model, run, allow_synthetic=True) is True
    unlabelled = {**real, "training_run_id": "SYNTHETIC_lightgbm-1-00000000"}
    with pytest.raises(TrendFlowError):
        require_allowed(unlabelled, run_inputs(), allow_synthetic=False)
    assert require_allowed(real, run_inputs(video_id="SYNTHETIC_video"), allow_synthetic=False) is True
