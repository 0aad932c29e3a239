"""Drafted components and profiles: checked like real ones, refused when asked for, seen by nothing else."""

from __future__ import annotations

import pytest

from trendflow.components.registry import load_registry
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph, parse_graph
from trendflow.models.catalogue import Catalogue
from trendflow_tests.contracts.graph_text import TEXT, mutated, refused

REAL, _, DRAFTS = TEXT.partition("\ndrafts:\n")
SPEECH = "{hard: [segmenter, asr_extractor, speaker_diarization_extractor], soft: [pitch_extractor]}"
ASR_ENTRY = DRAFTS[DRAFTS.index("    asr_extractor:\n") :].partition("\n\n")[0]
ASR_ON = "        asr_extractor: {required: true}\n"
V2 = "extends: v1\n      components:\n        shot_tokens: {required: true}"


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        # Edges.
        (f"deps: {SPEECH}", "deps: {hard: [segmenter, nobody], soft: []}", "unknown component 'nobody'"),
        (f"deps: {SPEECH}", "deps: {hard: [segmenter], soft: [nobody]}", "unknown component 'nobody'"),
        (f"deps: {SPEECH}", "deps: {hard: [segmenter], soft: [], some: []}", "unknown key 'some'"),
        (f"deps: {SPEECH}", "deps: 7", "'deps' has the wrong type"),
        # Entries.
        ("    pitch_extractor:\n", "    core_clip:\n", "has code"),
        ("    pitch_extractor:\n", "    asr_extractor:\n", "'asr_extractor' occurs twice"),
        ("      kind: audio\n", "      kind: noise\n", "'noise'"),
        ("      processor: audio\n", "      processor: radio\n", "'radio'"),
        ("      processor: audio\n", "      processor: audio\n      tier: 1\n", "unknown key 'tier'"),
        # Profiles.
        ("    v1:\n", "    baseline:\n", "is a profile of this release"),
        ("extends: v1\n", "extends: v2\n", "'v2', which is not a profile defined above"),
        ("extends: baseline\n      components:", "extends: nobody\n      components:", "'nobody'"),
        (ASR_ON, "        nobody: {required: true}\n", "no such component"),
        (ASR_ON, "        asr_extractor: {required: 1}\n", "'required' has the wrong type"),
        (ASR_ON, "        asr_extractor: {}\n", "'required' is missing"),
    ],
)
def test_a_fault_is_refused_with_its_line(old: str, new: str, finding: str) -> None:
    drafts, line = mutated(old, new, DRAFTS)
    line += REAL.count("\n") + 2
    if new.startswith("      processor: audio\n"):
        line += 1  # the fault is in the line that was added
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(f"{REAL}\ndrafts:\n{drafts}")
    refused(caught, line, finding)


@pytest.mark.parametrize(
    ("removed", "dependant", "finding"),
    [
        (ASR_ON, "        speech_analysis_extractor: {required: true}\n", "needs asr_extractor, which is not enabled"),
        (
            "        emotion_face: {required: true}\n",
            "        high_level_semantic: {required: true}\n",
            "needs emotion_face, which is not enabled",
        ),
    ],
)
def test_a_hard_dependency_must_be_enabled(removed: str, dependant: str, finding: str) -> None:
    text, _ = mutated(removed, "")
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    refused(caught, mutated(dependant, "", text)[1], finding)


def test_a_cycle_through_a_real_component_is_named() -> None:
    text, _ = mutated(ASR_ENTRY, ASR_ENTRY.replace("hard: [segmenter]", "hard: [segmenter, text_processor]"))
    with pytest.raises(TrendFlowError, match="cycle text_processor -> asr_extractor -> text_processor"):
        parse_graph(text)


def test_a_profile_without_a_drafted_component_is_none() -> None:
    text, line = mutated(V2, V2.replace("v1", "baseline").replace("shot_tokens", "tempo_extractor"))
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    refused(caught, line - 2, "every component of it has code")


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("deps: {hard: [segmenter], soft: [asr_extractor]}", "deps: {hard: [segmenter, asr_extractor], soft: []}", ""),
        ("deps: {hard: [segmenter], soft: [asr_extractor]}", "deps: {hard: [segmenter], soft: [asr]}", "'asr'"),
        ("      text_processor: {required: false", "      asr_extractor: {required: false", "no such component"),
        ("    extends: starter\n", "    extends: v1\n", "'v1', which is not a profile"),
    ],
)
def test_a_draft_is_no_part_of_the_release(old: str, new: str, finding: str) -> None:
    """But for soft dependencies: what rests on one is absent."""
    text, _ = mutated(old, new)
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    assert caught.value.error_code == "config_invalid"
    assert finding in caught.value.message


def test_a_role_must_be_in_the_catalogue() -> None:
    graph = parse_graph(mutated("roles: {required: [asr], optional: []}", "roles: {required: [ears], optional: []}")[0])
    load_registry(graph)  # nothing is wrong with it on its own
    with pytest.raises(TrendFlowError, match="asr_extractor: the catalogue has no role 'ears'") as caught:
        load_registry(graph, catalogue=Catalogue.load())
    assert caught.value.error_code == "config_invalid"


@pytest.mark.parametrize(("profile", "missing", "whole"), [("v1", 23, 41), ("v2", 24, 42)])
def test_a_drafted_profile_is_refused_with_what_it_lacks(profile: str, missing: int, whole: int) -> None:
    graph = parse_graph(TEXT)
    with pytest.raises(TrendFlowError) as caught:
        graph.profile(profile)
    error = caught.value
    assert error.error_code == "config_invalid"
    assert f"{profile!r} is only drafted: {missing} of its {whole} components are not part" in error.message
    said = error.message.replace("{", "").replace("}_extractor.", ",")
    for name in graph.drafts.components.keys() - ({"shot_tokens"} if profile == "v1" else set()):
        assert f" {name.removesuffix('_extractor')}," in said
    assert ("shot_tokens" in error.message) == (profile == "v2")
    assert error.message.endswith("}_extractor."), "the sentence must not be cut short"
    assert not any(name in error.message for name in graph.components)


def without_drafts() -> ComponentGraph:
    """The same file, but for the one draft that a real component names."""
    return parse_graph(f"{REAL}\ndrafts:\n  components:\n{ASR_ENTRY}\n")


def test_nothing_that_a_result_depends_on_sees_a_draft() -> None:
    graph, bare = parse_graph(TEXT), without_drafts()
    assert set(bare.drafts.components) == {"asr_extractor"}
    assert graph.components == bare.components
    assert list(graph.components) == list(bare.components)
    assert graph.profiles == bare.profiles
    whole, small = load_registry(graph), load_registry(bare)
    assert [entry.spec.name for entry in whole] == [entry.spec.name for entry in small]
    for profile in graph.profiles:
        assert whole.config_hash(profile) == small.config_hash(profile)
        for node in graph.enabled(profile):
            assert graph.active_deps(profile, node.name) == bare.active_deps(profile, node.name)
