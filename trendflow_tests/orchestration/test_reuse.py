"""Reuse: the same work is never done twice, and changed work is never served from the past."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration import cache
from trendflow.orchestration.cache import KeyParts
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.explain import explain
from trendflow.orchestration.validation import validate_run

AUDIO = {"segmenter", "loudness_extractor", "tempo_extractor"}
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
WORD = st.text(string.ascii_lowercase, min_size=1, max_size=8)

PARTS = st.builds(
    KeyParts,
    platform_id=st.just("upload"),
    video_id=WORD,
    component=WORD,
    config_hash=HEX,
    sampling_policy_version=WORD,
    producer_version=WORD,
    schema_version=WORD,
    model_signature=HEX,
    source_media=HEX,
    document=st.none() | HEX,
    reference=st.dictionaries(WORD, HEX, max_size=2),
    upstream=st.dictionaries(WORD, st.just("error") | st.dictionaries(WORD, HEX, min_size=1, max_size=2), max_size=3),
)


@given(PARTS, PARTS, st.sampled_from([field.name for field in dataclasses.fields(KeyParts)]))
def test_every_part_alone_changes_the_key(parts: KeyParts, other: KeyParts, name: str) -> None:
    flipped = dataclasses.replace(parts, **{name: getattr(other, name)})
    assert (flipped.key == parts.key) == (getattr(parts, name) == getattr(other, name))


def test_a_second_run_reuses_everything_byte_for_byte(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    first, second = submit(deployment, clip), submit(deployment, clip)
    before, after = execute(first), execute(second)
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
        assert [f for f in validate_run(deployment, run.run_path) if f.severity == "problem"] == []


def test_deleting_the_first_run_does_not_break_the_second(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    first = submit(deployment, clip)
    execute(first, AUDIO)
    second = submit(deployment, clip)
    execute(second, AUDIO)
    deployment.store.delete_prefix(f"result_store/{first.run_path}/")
    third = submit(deployment, clip)
    # The index still names the deleted run; the second run's copies must be found all the same.
    assert {name: r.origin for name, r in execute(third, AUDIO).items()} == dict.fromkeys(AUDIO, "cache")


def test_a_new_producer_version_recomputes_it_and_what_changed_below(
    deployment: Deployment,
    clip: Path,
    submit: Callable[..., Any],
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute(submit(deployment, clip), AUDIO)
    entry = deployment.registry["tempo_extractor"]
    changed = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, producer_version="99.0.0"))
    monkeypatch.setitem(deployment.registry._entries, "tempo_extractor", changed)
    run = submit(deployment, clip)
    origins = {name: result.origin for name, result in execute(run, AUDIO).items()}
    assert origins == {"segmenter": "cache", "loudness_extractor": "cache", "tempo_extractor": "computed"}
    found = explain(run, "tempo_extractor")
    assert [part.part for part in found.parts if not part.same] == ["producer_version", "idempotency_key"]


def test_another_source_recomputes_everything(
    deployment: Deployment, clip: Path, other_clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    execute(submit(deployment, clip), AUDIO)
    run = submit(deployment, other_clip)
    assert {result.origin for result in execute(run, AUDIO).values()} == {"computed"}
    changed = [part.part for part in explain(run, "segmenter").parts if not part.same]
    assert "source_media" in changed


def test_frames_are_brought_along_when_only_some_results_are_missing(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    first = submit(deployment, clip)
    execute(first, {"segmenter", "loudness_extractor"})
    second = submit(deployment, clip)
    results = execute(second, AUDIO)
    assert {name: result.origin for name, result in results.items()} == {
        "segmenter": "cache",
        "loudness_extractor": "cache",
        "tempo_extractor": "computed",
    }
    assert second.manifest()["run"]["frames_dir"]["store_key"]


def test_expired_frames_are_decoded_again_to_the_same_digest(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    first = submit(deployment, clip)
    before = execute(first, {"segmenter"})["segmenter"]
    deployment.store.delete_prefix(f"frames_store/{first.run_path}/")
    second = submit(deployment, clip)
    after = execute(second, {"segmenter"})["segmenter"]
    assert (after.origin, after.digests) == ("computed", before.digests)


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_candidate_is_refused_and_recomputed(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any], damage: str
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
    origins = {name: result.origin for name, result in execute(second, AUDIO).items()}
    assert origins["tempo_extractor"] == "computed"
    assert origins["loudness_extractor"] == "cache"
    problems = [f for f in validate_run(deployment, first.run_path) if f.severity == "problem"]
    assert problems, "validate must see the damage"


def test_force_recompute_reuses_nothing(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    execute(submit(deployment, clip), AUDIO)
    run = submit(deployment, clip, force=True)
    assert {result.origin for result in execute(run, AUDIO).values()} == {"computed"}


def test_a_stopped_run_resumes_with_its_own_results(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter", "loudness_extractor"})
    rows = {row["name"]: row for row in run.manifest()["components"]}
    results = execute(run, AUDIO)
    assert {name: result.origin for name, result in results.items()} == {
        "segmenter": "resume",
        "loudness_extractor": "resume",
        "tempo_extractor": "computed",
    }
    again = {row["name"]: row for row in run.manifest()["components"]}
    assert again["loudness_extractor"] == rows["loudness_extractor"]


def test_an_error_is_stored_and_never_reused(
    deployment: Deployment,
    clip: Path,
    submit: Callable[..., Any],
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = deployment.registry["tempo_extractor"].module
    assert module is not None
    with monkeypatch.context() as patch:

        def broken(inputs: object) -> None:
            raise ZeroDivisionError("text that must stay in the log")

        patch.setattr(module, "run", broken)
        first = submit(deployment, clip)
        failed = execute(first, AUDIO)["tempo_extractor"]
    assert (failed.status, failed.meta["error_code"]) == ("error", "internal_error")
    assert "must stay" not in failed.meta["error"]
    assert dict(failed.arrays) == {}
    second = submit(deployment, clip)
    assert execute(second, AUDIO)["tempo_extractor"].origin == "computed"
    assert [f for f in validate_run(deployment, first.run_path) if f.severity == "problem"] == []


def test_transient_errors_are_retried_and_counted(
    deployment: Deployment,
    clip: Path,
    submit: Callable[..., Any],
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = deployment.registry["tempo_extractor"].module
    assert module is not None
    real, calls = module.run, []

    def flaky(inputs: object) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise TrendFlowError("network_error", "The connection was reset.")
        return real(inputs)

    monkeypatch.setattr(module, "run", flaky)
    run = submit(deployment, clip)
    result = execute(run, AUDIO)["tempo_extractor"]
    assert (result.status, result.retry_count, len(calls)) == ("ok", 2, 3)
    row = next(row for row in run.manifest()["components"] if row["name"] == "tempo_extractor")
    assert row["retry_count"] == 2


def test_other_models_than_planned_are_refused(
    deployment: Deployment,
    clip: Path,
    submit: Callable[..., Any],
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = deployment.registry["loudness_extractor"].module
    assert module is not None
    real = module.run
    used = deployment.catalogue["facemesh_192"].model_used("cpu")
    monkeypatch.setattr(module, "run", lambda inputs: dataclasses.replace(real(inputs), models_used=(used,)))
    failed = execute(submit(deployment, clip), AUDIO)["loudness_extractor"]
    assert failed.meta["error_code"] == "artifact_validation_failed"


def test_hard_dependency_without_result_is_typed(
    deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    with pytest.raises(TrendFlowError) as caught:
        cache.upstream_digests(run, "core_face_landmarks", run.manifest())
    assert caught.value.error_code == "dependency_missing"
