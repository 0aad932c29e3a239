"""The feature vector in real runs: values against the stored files, provenance against the manifest, and reuse."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import parse_graph
from trendflow.contracts.package_data import data_path
from trendflow.orchestration import cache
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import finalise, run_status
from trendflow_tests.orchestration.runs import Execute, Submit, breaking, only, optional, problems, with_profile

NAME = "feature_vector"
MEASURING = ("segmenter", "cut_detection", "loudness_extractor", "tempo_extractor")
TEXT = data_path("component_graph.yaml").read_text(encoding="utf-8")


def small(deployment: Deployment) -> None:
    """A profile of components without models."""
    with_profile(deployment, only(*MEASURING, NAME))
    with_profile(deployment, optional("tempo_extractor"))


def stored(run: RunContext, component: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Members of an artifact's file as numpy reads them, and its meta."""
    data = run.deployment.store.get(f"result_store/{run.run_path}/{component}/{component}.npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def test_values_and_provenance_are_those_of_the_stored_artifacts(
    deployment: Deployment, sample_video: Path, submit: Submit, execute: Execute
) -> None:
    small(deployment)
    run = submit(deployment, sample_video)
    execute(run)
    vector, meta = stored(run, NAME)
    expected: dict[str, float] = {}
    origin: dict[str, tuple[str, str, str, str]] = {}
    for component in MEASURING:
        arrays, stamp = stored(run, component)
        facts = (component, stamp["schema_version"], stamp["producer_version"], stamp["content_digest"])
        for name, value in zip(arrays["feature_names"].tolist(), arrays["feature_values"], strict=True):
            expected[f"{component}__{name}__value"] = value
            origin[f"{component}__{name}__value"] = facts
    names = vector["feature_names"].tolist()
    assert names == sorted(expected)
    np.testing.assert_array_equal(vector["feature_values"], [expected[name] for name in names])
    np.testing.assert_array_equal(vector["feature_present_mask"], [not np.isnan(expected[name]) for name in names])
    assert vector["feature_present_mask"].sum() > 40
    keys = ("prov_component", "prov_schema_version", "prov_producer_version", "prov_content_digest")
    assert list(zip(*(vector[key].tolist() for key in keys), strict=True)) == [origin[name] for name in names]
    assert set(meta["absent_features"]) == {name for name in names if np.isnan(expected[name])}
    assert problems(deployment, run.run_path) == []


def test_a_failed_component_leaves_the_columns_as_they_are(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(deployment)
    whole = submit(deployment, clip, "synthetic-whole")
    execute(whole)
    breaking(deployment, monkeypatch, "tempo_extractor", TrendFlowError("internal_error", "The test breaks it."))
    broken = submit(deployment, clip, "synthetic-broken")
    execute(broken)
    before, _ = stored(whole, NAME)
    after, meta = stored(broken, NAME)
    assert after["feature_names"].tolist() == before["feature_names"].tolist()
    tempo = after["prov_component"] == "tempo_extractor"
    assert tempo.any()
    assert np.isnan(after["feature_values"][tempo]).all()
    assert not after["feature_present_mask"][tempo].any()
    assert {meta["absent_features"][name] for name in after["feature_names"][tempo].tolist()} == {
        "tempo_extractor gave no result"
    }
    np.testing.assert_array_equal(after["feature_values"][~tempo], before["feature_values"][~tempo])
    assert run_status(broken, finalise(broken)) == "success"


def test_reuse_knows_a_failed_component_from_one_that_worked(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(deployment)
    with monkeypatch.context() as patch:
        breaking(deployment, patch, "tempo_extractor", TrendFlowError("internal_error", "The test breaks it."))
        failed = [execute(submit(deployment, clip)) for _ in range(2)]
    worked = [execute(submit(deployment, clip)) for _ in range(2)]
    assert [results["tempo_extractor"].origin for results in (*failed, *worked)] == [
        "error",
        "error",
        "computed",
        "cache",
    ]
    assert [results[NAME].origin for results in (*failed, *worked)] == ["computed", "cache", "computed", "cache"]
    keys = [results[NAME].artifacts[NAME][1]["idempotency_key"] for results in (*failed, *worked)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


@pytest.mark.parametrize("change", ["producer_version", "schema"])
def test_a_new_version_of_a_component_that_fails_alike_is_new_work(
    deployment: Deployment, clip: Path, submit: Submit, change: str
) -> None:
    """The digests of what it read are equal, the columns or their provenance are not."""
    small(deployment)
    upstream: dict[str, Any] = dict.fromkeys(MEASURING, "error")

    def parts() -> cache.KeyParts:
        return cache.key_parts(submit(deployment, clip), NAME, "a" * 64, upstream)

    before = parts()
    entry = deployment.registry["tempo_extractor"]
    if change == "producer_version":
        spec = dataclasses.replace(entry.spec, producer_version="99.0.0")
        deployment.registry._entries["tempo_extractor"] = dataclasses.replace(entry, spec=spec)
    else:
        schema = deployment.schemas.get(entry.spec.schema_version)
        field = {**schema.document["fields"]["bpm_by_segment"], "flatten": ["p50"]}
        document = {**schema.document, "fields": {**schema.document["fields"], "bpm_by_segment": field}}
        deployment.schemas._artifacts[schema.schema_version] = dataclasses.replace(schema, document=document)
    after = parts()
    changed = {name for name in before.reference if before.reference[name] != after.reference[name]}
    assert changed == {"declaration/tempo_extractor"}
    assert before.key != after.key


def test_all_means_every_component_that_measures() -> None:
    graph = parse_graph(TEXT)
    node = graph.components[NAME]
    measuring = {name for name, other in graph.components.items() if other.kind != "dataset"}
    assert set(node.deps) == measuring
    assert len(node.deps) == len(measuring)
    assert set(graph.active_deps("starter", NAME)) == set(graph.profile("starter").components) - {NAME}


@pytest.mark.parametrize("soft", ["everything", "[all]", "1"])
def test_no_other_word_stands_for_a_list(soft: str) -> None:
    assert "soft: all}" in TEXT
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(TEXT.replace("soft: all}", f"soft: {soft}}}"))
    assert caught.value.error_code == "config_invalid"


def test_code_and_graph_must_both_say_all(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    names = ", ".join(deployment.graph.components[NAME].soft)
    path.write_text(TEXT.replace("soft: all}", f"soft: [{names}]}}"), encoding="utf-8")
    settings = deployment.settings.model_copy(update={"graph_file": path})
    with pytest.raises(TrendFlowError, match="soft dependencies") as caught:
        _ = Deployment(settings).registry
    assert caught.value.error_code == "config_invalid"
