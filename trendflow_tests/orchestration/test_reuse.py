"""Reuse: the same work is never done twice, and changed work is never served from the past."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.orchestration import cache
from trendflow.orchestration.cache import KeyParts
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.explain import explain
from trendflow.orchestration.runs import RunContext
from trendflow_tests.orchestration.runs import (
    AUDIO,
    TEXT,
    Execute,
    Submit,
    breaking,
    edit_profile,
    fewer_pictures,
    origins,
    problems,
    replace_code,
    with_profile,
)

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
WORD = st.text(string.ascii_lowercase, min_size=1, max_size=8)
DIGESTS = st.just("error") | st.dictionaries(WORD, HEX, min_size=1, max_size=2)

# Everything the key is made of, and what it may be.
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "platform_id": st.sampled_from(["youtube", "upload"]),
    "video_id": WORD,
    "component": WORD,
    "config_hash": HEX,
    "sampling_policy_version": WORD,
    "producer_version": WORD,
    "schema_version": WORD,
    "model_signature": HEX,
    "source_media": HEX,
    "document": st.none() | HEX,
    "reference": st.dictionaries(WORD, HEX, max_size=2),
    "upstream": st.dictionaries(WORD, DIGESTS, max_size=3),
}


def test_the_key_is_made_of_exactly_these_parts() -> None:
    assert {field.name for field in dataclasses.fields(KeyParts)} == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
@settings(max_examples=20)
@given(data=st.data())
def test_every_part_alone_changes_the_key(name: str, data: st.DataObject) -> None:
    parts = data.draw(st.builds(KeyParts, **PARTS))
    before = getattr(parts, name)
    after = data.draw(PARTS[name].filter(lambda value: value != before))
    assert dataclasses.replace(parts, **{name: after}).key != parts.key


@pytest.mark.parametrize(
    "upstream",
    [
        {},
        {"segmenter": "error"},
        {"another": {"segmenter": "a" * 64, "dense_signals": "b" * 64}},
        {"segmenter": {"segmenter": "a" * 64}},
        {"segmenter": {"segmenter": "c" * 64, "dense_signals": "b" * 64}},
        {"segmenter": {"segmenter": "a" * 64, "dense_signals": "c" * 64}},
        {"segmenter": {"segmenter": "b" * 64, "dense_signals": "a" * 64}},
        {"segmenter": {"segmenter": "a" * 64, "dense_signals": "b" * 64}, "another": "error"},
    ],
)
def test_whatever_changes_upstream_changes_the_key(upstream: Any) -> None:
    words = dict.fromkeys(PARTS, "word")
    digests = dict.fromkeys(("config_hash", "model_signature", "source_media"), "d" * 64)
    found: dict[str, Any] = {**words, **digests, "document": None, "reference": {}}
    before = KeyParts(**{**found, "upstream": {"segmenter": {"segmenter": "a" * 64, "dense_signals": "b" * 64}}})
    assert KeyParts(**{**found, "upstream": upstream}).key != before.key


def _respecify(**changes: Any) -> Callable[[Deployment], None]:
    def change(deployment: Deployment) -> None:
        entry = deployment.registry["core_clip"]
        deployment.registry._entries["core_clip"] = dataclasses.replace(
            entry, spec=dataclasses.replace(entry.spec, **changes)
        )

    return change


def _parameter_of_another_component(deployment: Deployment) -> None:
    def change(components: dict[str, Any]) -> None:
        components["segmenter"] = dataclasses.replace(components["segmenter"], params={"analysis_short_side": 240})

    with_profile(deployment, change)


def _sampling_policy(deployment: Deployment) -> None:
    edit_profile(deployment, lambda profile: dataclasses.replace(profile, sampling_policy_version="sampling_v2"))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda deployment: None, set()),
        (_parameter_of_another_component, {"config_hash"}),
        (_sampling_policy, {"config_hash", "sampling_policy_version"}),
        (_respecify(producer_version="99.0.0"), {"producer_version"}),
        (_respecify(schema_version="core_clip_npz_v99"), {"schema_version"}),
        (_respecify(reference={"thresholds_v1.yaml": "a" * 64}), {"reference"}),
    ],
    ids=["nothing", "a parameter", "sampling policy", "producer version", "schema version", "reference file"],
)
def test_what_changes_in_a_deployment_is_a_part_of_the_key(
    deployment: Deployment, clip: Path, submit: Submit, change: Callable[[Deployment], None], parts: set[str]
) -> None:
    before = _parts_of(submit(deployment, clip))
    change(deployment)
    after = _parts_of(submit(deployment, clip))
    assert {name for name in PARTS if getattr(before, name) != getattr(after, name)} == parts
    assert (before.key != after.key) == bool(parts)


def test_what_a_model_runs_on_is_a_part_of_the_key(deployment: Deployment, clip: Path, submit: Submit) -> None:
    run, other = submit(deployment, clip), submit(deployment, clip)
    encoder = dataclasses.replace(run.resolved["image_encoder"], device="cuda")
    vars(other)["resolved"] = {**run.resolved, "image_encoder": encoder}
    before, after = _parts_of(run), _parts_of(other)
    assert {name for name in PARTS if getattr(before, name) != getattr(after, name)} == {"model_signature"}
    assert before.key != after.key


def test_what_is_only_drafted_is_part_of_no_key(
    deployment: Deployment, clip: Path, submit: Submit, tmp_path: Path
) -> None:
    graph = yaml.safe_load(data_path("component_graph.yaml").read_text(encoding="utf-8"))
    named = {name: entry for name, entry in graph["drafts"]["components"].items() if name == "asr_extractor"}
    assert graph["drafts"]["profiles"]
    graph["drafts"] = {"components": named}  # text_processor names it as a soft dependency
    path = tmp_path / "component_graph.yaml"
    path.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    bare = Deployment(deployment.settings.model_copy(update={"graph_file": path}))
    run, other = submit(deployment, clip), submit(bare, clip)
    assert [node.name for node in run.enabled] == [node.name for node in other.enabled]
    for node in run.enabled:
        upstream = {dep: {dep: "a" * 64} for dep in deployment.graph.active_deps("starter", node.name)}
        before, after = (cache.key_parts(each, node.name, "d" * 64, upstream) for each in (run, other))
        assert before.flat() == after.flat()
        assert before.key == after.key


def _parts_of(run: RunContext) -> KeyParts:
    return cache.key_parts(run, "core_clip", "d" * 64, {"segmenter": {"segmenter": "a" * 64}})


def test_a_second_run_reuses_everything_byte_for_byte(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    with_profile(deployment, fewer_pictures(8, 12))
    first, second = (submit(deployment, clip, document=TEXT) for _ in range(2))
    with providing(first, TEXT):
        before = execute(first)
    after = execute(second)  # without the text: its digest is enough
    assert {result.origin for result in before.values()} == {"computed"}
    assert {result.origin for result in after.values()} == {"cache"}
    for name, result in after.items():
        stored = deployment.results.read_artifact(second.run_path, name)
        assert stored.meta["run_id"] == second.identity.run_id
        assert stored.meta["reused_from"]["run_id"] == first.identity.run_id
        for key, array in before[name].arrays.items():
            assert np.asarray(array).tobytes() == stored.arrays[key].tobytes(), (name, key)
        assert result.meta["content_digest"] == before[name].meta["content_digest"]
    rows = second.manifest()["components"]
    assert all(row["cache_hit"] for row in rows)
    assert second.manifest()["run"]["frames_dir"] is None  # nothing needed frames, so none were copied
    assert explain(second, "core_clip").outcome == "reused"
    for run in (first, second):
        assert problems(deployment, run.run_path) == []


def test_deleting_the_first_run_does_not_break_the_second(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    first = submit(deployment, clip)
    execute(first, AUDIO)
    second = submit(deployment, clip)
    execute(second, AUDIO)
    deployment.store.delete_prefix(f"result_store/{first.run_path}/")
    third = submit(deployment, clip)
    # The index still names the deleted run; the second run's copies must be found all the same.
    assert origins(execute(third, AUDIO)) == dict.fromkeys(AUDIO, "cache")


def test_a_new_producer_version_recomputes_it_and_what_changed_below(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute(submit(deployment, clip), AUDIO)
    entry = deployment.registry["tempo_extractor"]
    changed = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, producer_version="99.0.0"))
    monkeypatch.setitem(deployment.registry._entries, "tempo_extractor", changed)
    run = submit(deployment, clip)
    found = origins(execute(run, AUDIO))
    assert found == {"segmenter": "cache", "loudness_extractor": "cache", "tempo_extractor": "computed"}
    explained = explain(run, "tempo_extractor")
    assert [part.part for part in explained.parts if not part.same] == ["producer_version", "idempotency_key"]


def test_another_source_recomputes_everything(
    deployment: Deployment, clip: Path, other_clip: Path, submit: Submit, execute: Execute
) -> None:
    execute(submit(deployment, clip), AUDIO)
    run = submit(deployment, other_clip)
    assert {result.origin for result in execute(run, AUDIO).values()} == {"computed"}
    changed = [part.part for part in explain(run, "segmenter").parts if not part.same]
    assert "source_media" in changed


def test_frames_are_brought_along_when_only_some_results_are_missing(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    first = submit(deployment, clip)
    execute(first, {"segmenter", "loudness_extractor"})
    second = submit(deployment, clip)
    results = execute(second, AUDIO)
    assert origins(results) == {
        "segmenter": "cache",
        "loudness_extractor": "cache",
        "tempo_extractor": "computed",
    }
    assert second.manifest()["run"]["frames_dir"]["store_key"]


def test_expired_frames_are_decoded_again_to_the_same_digest(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    first = submit(deployment, clip)
    before = execute(first, {"segmenter"})["segmenter"]
    deployment.store.delete_prefix(f"frames_store/{first.run_path}/")
    second = submit(deployment, clip)
    after = execute(second, {"segmenter"})["segmenter"]
    assert (after.origin, after.digests) == ("computed", before.digests)


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_candidate_is_refused_and_recomputed(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, damage: str
) -> None:
    first = submit(deployment, clip)
    execute(first, AUDIO)
    key = f"result_store/{first.run_path}/tempo_extractor/tempo_extractor.npz"
    if damage == "remove":
        deployment.store.delete(key)
    else:
        data = bytearray(deployment.store.get(key))
        data[len(data) // 2] ^= 1
        deployment.store.put(key, bytes(data))
    second = submit(deployment, clip)
    found = origins(execute(second, AUDIO))
    assert found["tempo_extractor"] == "computed"
    assert found["loudness_extractor"] == "cache"
    assert problems(deployment, first.run_path), "validate must see the damage"


def test_force_recompute_reuses_nothing(deployment: Deployment, clip: Path, submit: Submit, execute: Execute) -> None:
    execute(submit(deployment, clip), AUDIO)
    run = submit(deployment, clip, force=True)
    assert {result.origin for result in execute(run, AUDIO).values()} == {"computed"}


def test_a_stopped_run_resumes_with_its_own_results(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter", "loudness_extractor"})
    rows = {row["name"]: row for row in run.manifest()["components"]}
    results = execute(run, AUDIO)
    assert origins(results) == {
        "segmenter": "resume",
        "loudness_extractor": "resume",
        "tempo_extractor": "computed",
    }
    again = {row["name"]: row for row in run.manifest()["components"]}
    assert again["loudness_extractor"] == rows["loudness_extractor"]


def test_an_error_is_stored_and_never_reused(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        breaking(deployment, patch, "tempo_extractor", ZeroDivisionError("text that must stay in the log"))
        first = submit(deployment, clip)
        failed = execute(first, AUDIO)["tempo_extractor"]
    assert (failed.status, failed.meta["error_code"]) == ("error", "internal_error")
    assert "must stay" not in failed.meta["error"]
    assert dict(failed.arrays) == {}
    second = submit(deployment, clip)
    assert execute(second, AUDIO)["tempo_extractor"].origin == "computed"
    assert problems(deployment, first.run_path) == []


def test_transient_errors_are_retried_and_counted(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def flaky(inputs: object) -> Any:
        calls.append(inputs)
        if len(calls) < 3:
            raise TrendFlowError("network_error", "The connection was reset.")
        return real(inputs)

    real = replace_code(deployment, monkeypatch, "tempo_extractor", flaky)
    run = submit(deployment, clip)
    result = execute(run, AUDIO)["tempo_extractor"]
    assert (result.status, result.retry_count, len(calls)) == ("ok", 2, 3)
    row = next(row for row in run.manifest()["components"] if row["name"] == "tempo_extractor")
    assert row["retry_count"] == 2


def test_other_models_than_planned_are_refused(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = deployment.catalogue["facemesh_192"].model_used("cpu")

    def surprising(inputs: object) -> Any:
        return dataclasses.replace(real(inputs), models_used=(used,))

    real = replace_code(deployment, monkeypatch, "loudness_extractor", surprising)
    failed = execute(submit(deployment, clip), AUDIO)["loudness_extractor"]
    assert failed.meta["error_code"] == "artifact_validation_failed"


def test_hard_dependency_without_result_is_typed(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    with pytest.raises(TrendFlowError) as caught:
        cache.upstream_digests(run, "core_face_landmarks", run.manifest())
    assert caught.value.error_code == "dependency_missing"
