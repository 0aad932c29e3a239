"""The component graph: what it accepts, and that everything else is refused with the line to look at."""

from __future__ import annotations

import re

import pytest

from trendflow.components.registry import load_registry
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import load_graph, parse_graph
from trendflow.contracts.package_data import data_path

TEXT = data_path("component_graph.yaml").read_text(encoding="utf-8")


def test_order_is_topological() -> None:
    graph = parse_graph(TEXT)
    seen: set[str] = set()
    for name, node in graph.components.items():
        assert {dep for dep in node.deps if dep in graph.components} <= seen
        seen.add(name)


def test_edges_of_the_specification_exist() -> None:
    graph = parse_graph(TEXT)
    assert graph.components["core_face_landmarks"].hard == ("segmenter", "core_object_detections")
    assert set(graph.components["cut_detection"].soft) == {
        "core_optical_flow",
        "core_clip",
        "core_object_detections",
        "core_face_landmarks",
    }


def test_dependants_follow_hard_edges_only() -> None:
    graph = parse_graph(TEXT)
    assert graph.dependants("core_object_detections") == {"core_face_landmarks"}
    assert graph.dependants("segmenter") == set(graph.components) - {"segmenter"}


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("version: component_graph_v1", "version: component_graph_v9", "version"),
        ("deps: {hard: [segmenter, core_object_detections]", "deps: {hard: [segmenter, nobody]", "nobody"),
        ("kind: core\n", "kind: kernel\n", "kernel"),
        ("reads: [frames]", "reads: [pixels]", "pixels"),
        ("min: 200, target: 400, max: 800", "min: 900, target: 400, max: 800", "min <= target"),
        ("    stage: visual_core\n", "    stage: visual_core\n    colour: red\n", "colour"),
        ("      object_detector: nanodet_m_416\n", "", "object_detector"),
        ("      core_object_detections: {required: true, params: {}}\n", "", "needs core_object_detections"),
        ("sampling: {min: 400, target: 800, max: 1500}", "sampling: {family: tempo}", "frame budget"),
        (
            "    deps: {hard: [segmenter], soft: []}\n    reads: [frames]\n",
            "    deps: 7\n    reads: [frames]\n",
            "deps",
        ),
        ("components:\n", "components: [\n", "YAML"),
    ],
)
def test_broken_graphs_are_refused_with_their_line(old: str, new: str, finding: str) -> None:
    assert old in TEXT
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(TEXT.replace(old, new, 1))
    assert caught.value.error_code == "config_invalid"
    assert finding in caught.value.message
    assert re.search(r"line \d+", caught.value.message)


def test_the_line_is_the_right_one() -> None:
    broken = TEXT.replace("kind: audio\n", "kind: noise\n", 1)
    wanted = broken[: broken.index("kind: noise")].count("\n") + 1
    with pytest.raises(TrendFlowError, match=f"line {wanted}:"):
        parse_graph(broken)


def test_a_cycle_is_named() -> None:
    text = TEXT.replace(
        "    deps: {hard: [segmenter], soft: []}", "    deps: {hard: [segmenter, core_face_landmarks], soft: []}", 2
    )
    with pytest.raises(TrendFlowError, match="cycle"):
        parse_graph(text)


def test_an_unsatisfiable_group_is_refused() -> None:
    text = TEXT.replace(
        "core_clip: {required: true, params: {}}",
        "core_clip: {required: true, params: {}, sampling: {min_frames: 801, target_frames: 900, max_frames: 900}}",
    )
    with pytest.raises(TrendFlowError, match="unsatisfiable"):
        parse_graph(text)


def test_code_and_graph_agree() -> None:
    registry = load_registry(load_graph(data_path("component_graph.yaml")))
    assert {entry.spec.name for entry in registry} == set(registry.graph.components)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("schema_version: core_clip_npz_v3", "schema_version: core_clip_npz_v4", "schema_version"),
        ("thresholds_version: thresholds_v1", "thresholds_version: thresholds_v2", "thresholds_v2"),
        (
            "soft: [core_optical_flow, core_clip, core_object_detections,",
            "soft: [core_clip, core_object_detections,",
            "soft",
        ),
        ("tempo_extractor: {required: true, params: {}}", "tempo_extractor: {required: true, params: {bpm: 1}}", "bpm"),
        (
            "segmenter: {required: true, params: {}}",
            "segmenter: {required: true, params: {analysis_short_side: wide}}",
            "analysis_short_side",
        ),
    ],
)
def test_disagreement_with_code_is_refused(old: str, new: str, finding: str) -> None:
    assert old in TEXT
    with pytest.raises(TrendFlowError) as caught:
        load_registry(parse_graph(TEXT.replace(old, new, 1)))
    assert caught.value.error_code == "config_invalid"
    assert finding in caught.value.message


def test_config_hash_covers_what_changes_results_and_nothing_else() -> None:
    base = load_registry(parse_graph(TEXT)).config_hash("starter")

    def changed(old: str, new: str) -> bool:
        assert old in TEXT
        return load_registry(parse_graph(TEXT.replace(old, new, 1))).config_hash("starter") != base

    assert changed(
        "segmenter: {required: true, params: {}}", "segmenter: {required: true, params: {analysis_short_side: 240}}"
    )
    assert changed("sampling_policy_version: sampling_v1", "sampling_policy_version: sampling_v2")
    assert changed("prompts_version: none", "prompts_version: prompts_v1")
    assert changed("      tempo_extractor: {required: true, params: {}}\n", "")
    assert not changed(
        "tempo_extractor: {required: true, params: {}}", "tempo_extractor: {required: false, params: {}}"
    )
    assert not changed("image_encoder: efficientnet_lite0_224", "image_encoder: another_encoder")
    # A default written out is the same configuration as a default left out.
    assert not changed(
        "segmenter: {required: true, params: {}}", "segmenter: {required: true, params: {analysis_short_side: 320}}"
    )
