"""The component graph: what it accepts, and that everything else is refused with the line to look at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trendflow.components.base import Param
from trendflow.components.registry import Registry, load_registry
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import frame_budget, load_graph, parse_graph
from trendflow.contracts.graph_checks import AUDIO_FAMILIES
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.media.audio_windows import FAMILIES
from trendflow.models.catalogue import Catalogue
from trendflow_tests.contracts.graph_text import TEXT, mutated, refused

SEGMENTER_ON = "segmenter: {required: true, params: {}}"
CLIP_ON = "core_clip: {required: true, params: {}}"
CUTS_ON = "cut_detection: {required: true, params: {}}"
TEMPO_ON = "tempo_extractor: {required: true, params: {}}"
CUTS_SAMPLING = "sampling: {min: 400, target: 800, max: 1500}"
TEMPO_RESOURCES = "resources: {gpu: false, cpu: 1, rss_mb: 800, timeout_s: 1800}\n    cross_video_batching: false"


@pytest.fixture(scope="module")
def schemas() -> SchemaRegistry:
    return SchemaRegistry.load()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


def test_order_is_topological() -> None:
    graph = parse_graph(TEXT)
    seen: set[str] = set()
    for name, node in graph.components.items():
        assert {dep for dep in node.deps if dep in graph.components} <= seen
        seen.add(name)


def test_dependants_follow_hard_edges_only() -> None:
    graph = parse_graph(TEXT)
    # cut_detection only prefers the boxes, so nothing fails with them that needs the cuts alone.
    assert graph.dependants("core_object_detections") == {"core_face_landmarks", "shot_quality", "story_structure"}
    assert "cut_detection" not in graph.dependants("core_clip")
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


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("kind: audio\n", "kind: noise\n", "noise"),
        # Audio families and what goes with them.
        ("sampling: {family: tempo}", "sampling: {family: tempi}", "tempi"),
        ("sampling: {family: tempo}", "sampling: {family: tempo, group: primary}", "stands alone"),
        (CUTS_SAMPLING, "sampling: {min: 4, target: 8, max: 9, group: primary, parent: core_clip}", "not both"),
        # Budget overrides, checked after merging with the declared budget.
        (CUTS_ON, "cut_detection: {sampling: {min_frames: abc}}", "min_frames"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: 400.0}}", "min_frames"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: true}}", "min_frames"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: -5}}", "0 < min"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: 0}}", "0 < min"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: 801}}", "0 < min"),
        (CUTS_ON, "cut_detection: {sampling: {max_frames: 799}}", "0 < min"),
        (CUTS_ON, "cut_detection: {sampling: {frames: 10}}", "frames"),
        (TEMPO_ON, "tempo_extractor: {sampling: {min_frames: 10}}", "no frame budget"),
        # Resources.
        (TEMPO_RESOURCES, "resources: {gpus: 1}", "gpus"),
        (TEMPO_RESOURCES, "resources: {gpu: 1}", "gpu"),
        (TEMPO_RESOURCES, "resources: {cpu: true}", "cpu"),
        (TEMPO_RESOURCES, "resources: {cpu: 0}", "positive"),
        (TEMPO_RESOURCES, "resources: {rss_mb: plenty}", "rss_mb"),
        (TEMPO_RESOURCES, "resources: {timeout_s: .inf}", "positive"),
        (TEMPO_RESOURCES, "resources: {gpu_memory_per_task_mb: -1}", "non-negative"),
        # Policy, models, artifacts.
        ("policy: {}", "policy: {retain_everything: true}", "retain_everything"),
        ("policy: {}", "policy: {log_pii: 1}", "log_pii"),
        ("policy: {}", "policy: {retain_raw_comments: 'yes'}", "retain_raw_comments"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: [efficientnet_lite0_224]", "image_encoder"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: {entry: tiny}", "'runtime' is missing"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: {runtime: triton}", "'entry' is missing"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: {entry: tiny, runtime: gpu}", "'gpu'"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: {entry: tiny, runtime: triton, a: b}", "'a'"),
        ("extra_artifacts: {dense_signals: dense_signals_npz_v1}", "extra_artifacts: {dense_signals: 1}", "dense"),
        # Keys.
        ("tier: 0\n", "stage: segmenter\n", "'stage' occurs twice"),
        (f"{CUTS_ON}\n", f"{CLIP_ON}\n", "'core_clip' occurs twice"),
        ("policy: {}", "policy: {log_pii: false, log_pii: true}", "'log_pii' occurs twice"),
        ("policy: {}", "policy: {1: true}", "plain string"),
        ("policy: {}", "policy: {log_pii: 2020-99-99}", "2020-99-99"),
        ("policy: {}", "policy: &loop {log_pii: *loop}", "contains itself"),
    ],
)
def test_the_line_of_the_fault_is_named(old: str, new: str, finding: str) -> None:
    text, line = mutated(old, new)
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    refused(caught, line, finding)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "component_graph.yaml"
    broken.write_bytes(b"version: \xff\n")
    with pytest.raises(TrendFlowError, match="cannot be read") as caught:
        load_graph(broken)
    assert caught.value.error_code == "config_invalid"


@pytest.mark.parametrize("text", ["", "- a\n", "version: component_graph_v1\n"])
def test_a_text_that_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    assert caught.value.error_code == "config_invalid"


def test_a_role_may_name_a_runtime_and_a_role_that_is_mapped_anew_names_its_own() -> None:
    old = "image_encoder: efficientnet_lite0_224"
    text, _ = mutated(old, "image_encoder: {entry: one, runtime: triton}")
    graph = parse_graph(text.replace("image_encoder: clip_vit_b32_image", "image_encoder: two", 1))
    starter, baseline = graph.profile("starter"), graph.profile("baseline")
    assert (starter.models["image_encoder"], dict(starter.runtimes)) == ("one", {"image_encoder": "triton"})
    assert (baseline.models["image_encoder"], dict(baseline.runtimes)) == ("two", {})


def test_a_parent_must_be_enabled() -> None:
    text, _ = mutated(CUTS_SAMPLING, "sampling: {min: 400, target: 800, max: 1500, parent: core_face_landmarks}")
    assert parse_graph(text).components["cut_detection"].sampling is not None
    row = "      core_face_landmarks: {required: true, params: {}}\n"
    assert row in text
    text = text.replace(row, "", 1)
    with pytest.raises(TrendFlowError) as caught:
        parse_graph(text)
    refused(caught, text[: text.index(CUTS_ON)].count("\n") + 1, "core_face_landmarks, which is not enabled")


def test_an_override_replaces_its_part_of_the_budget() -> None:
    text, _ = mutated(CUTS_ON, "cut_detection: {sampling: {target_frames: 1500}}")
    graph = parse_graph(text)
    assert frame_budget(graph.components["cut_detection"], graph.profile("starter").components["cut_detection"]) == (
        400,
        1500,
        1500,
    )
    tempo = graph.profile("starter").components["tempo_extractor"]
    assert frame_budget(graph.components["tempo_extractor"], tempo) is None


def test_the_audio_families_are_those_that_media_lays_out() -> None:
    assert set(FAMILIES) == AUDIO_FAMILIES


def test_a_cycle_is_named() -> None:
    before, name, after = TEXT.partition("  core_object_detections:\n")
    after = after.replace(
        "deps: {hard: [segmenter], soft: []}", "deps: {hard: [segmenter, core_face_landmarks], soft: []}", 1
    )
    text = before + name + after
    with pytest.raises(TrendFlowError, match="cycle"):
        parse_graph(text)


def test_an_unsatisfiable_group_is_refused() -> None:
    text = TEXT.replace(
        "core_clip: {required: true, params: {}}",
        "core_clip: {required: true, params: {}, sampling: {min_frames: 801, target_frames: 900, max_frames: 900}}",
    )
    with pytest.raises(TrendFlowError, match="unsatisfiable"):
        parse_graph(text)


def test_code_graph_schemas_and_catalogue_agree(schemas: SchemaRegistry, catalogue: Catalogue) -> None:
    registry = load_registry(load_graph(data_path("component_graph.yaml")), schemas, catalogue)
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
    text, _ = mutated(old, new)
    with pytest.raises(TrendFlowError) as caught:
        load_registry(parse_graph(text))
    assert caught.value.error_code == "config_invalid"
    assert finding in caught.value.message
    assert re.search(r"line \d+", caught.value.message)


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ("analysis_short_side: null", "int"),
        ("analysis_short_side: 320.0", "int"),
        ("analysis_short_side: true", "int"),
        ("analysis_height: hello", "int or null"),
        ("analysis_width: 12.5", "int or null"),
        ("analysis_fps: fast", "float or null"),
        ("analysis_fps: .nan", "float or null"),
        ("av_drift_max_sec: .inf", "float"),
        ("av_drift_max_sec: null", "float"),
        ("dense_thumbnails: 1", "bool"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused(params: str, kind: str) -> None:
    text, line = mutated(SEGMENTER_ON, f"segmenter: {{params: {{{params}}}}}")
    with pytest.raises(TrendFlowError) as caught:
        load_registry(parse_graph(text))
    refused(caught, line, f"must be {kind}, not")


@pytest.mark.parametrize(
    ("params", "name", "value"),
    [
        ("analysis_height: 240", "analysis_height", 240),
        ("analysis_height: null", "analysis_height", None),
        ("analysis_fps: 10", "analysis_fps", 10.0),
        ("av_drift_max_sec: 3", "av_drift_max_sec", 3.0),
        ("dense_thumbnails: true", "dense_thumbnails", True),
    ],
)
def test_a_parameter_of_the_right_type_arrives(params: str, name: str, value: Any) -> None:
    text, _ = mutated(SEGMENTER_ON, f"segmenter: {{params: {{{params}}}}}")
    found = load_registry(parse_graph(text)).params("starter", "segmenter")[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("default", "kind", "nullable"), [(None, None, False), (None, int, False), ("wide", int, False), ([], None, True)]
)
def test_a_declaration_that_contradicts_itself_is_refused(default: Any, kind: type | None, nullable: bool) -> None:
    with pytest.raises(TrendFlowError):
        Param(default, "A parameter.", kind, nullable)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("extra_artifacts: {dense_signals: dense_signals_npz_v1}", "extra_artifacts: {a: a_npz_v1}", "does not exist"),
        (
            "extra_artifacts: {dense_signals: dense_signals_npz_v1}",
            "extra_artifacts: {dense_signals: tempo_extractor_npz_v2}",
            "belongs to tempo_extractor",
        ),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: nowhere_224", "no model 'nowhere_224'"),
        ("image_encoder: efficientnet_lite0_224", "image_encoder: nanodet_m_416", "does not serve"),
        ("    policy: {}", "      cook: nanodet_m_416\n    policy: {}", "no role 'cook'"),
        ("optical_flow: dis_flow_320", "optical_flow: {entry: dis_flow_320, runtime: triton}", "cannot execute"),
    ],
)
def test_disagreement_with_schemas_and_catalogue_is_refused(
    old: str, new: str, finding: str, schemas: SchemaRegistry, catalogue: Catalogue
) -> None:
    text, line = mutated(old, new)
    graph = parse_graph(text)
    load_registry(graph)  # nothing is wrong with it on its own
    with pytest.raises(TrendFlowError) as caught:
        load_registry(graph, schemas, catalogue)
    refused(caught, line, finding)


def test_schemas_and_roles_that_code_and_graph_agree_on_must_exist_too(
    schemas: SchemaRegistry, catalogue: Catalogue, tmp_path: Path
) -> None:
    """The graph is the shipped one; what is missing is its counterpart."""
    graph = parse_graph(TEXT)
    for path in schemas.directory.glob("*.json"):
        if path.stem != "core_clip_npz_v3":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TrendFlowError) as caught:
        load_registry(graph, SchemaRegistry.load(tmp_path))
    refused(caught, TEXT[: TEXT.index("schema_version: core_clip_npz_v3")].count("\n") + 1, "core_clip_npz_v3")
    roles = {name: role for name, role in catalogue.roles.items() if name != "shot_boundary"}
    with pytest.raises(TrendFlowError) as caught:
        load_registry(graph, catalogue=Catalogue(catalogue.entries, roles))
    refused(caught, TEXT[: TEXT.index("optional: [shot_boundary]")].count("\n") + 1, "shot_boundary")


def registry_of(*changes: tuple[str, str]) -> Registry:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load_registry(parse_graph(text))


BASE_HASH = registry_of().config_hash("starter")
SHOT_BOUNDARY_MAPPED = ("    policy: {}", "      shot_boundary: some_model\n    policy: {}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SEGMENTER_ON, "segmenter: {params: {analysis_short_side: 240}}"),
        (SEGMENTER_ON, "segmenter: {params: {dense_thumbnails: true}}"),
        (SEGMENTER_ON, "segmenter: {params: {av_drift_max_sec: 10.5}}"),
        ("sampling_policy_version: sampling_v1", "sampling_policy_version: sampling_v2"),
        ("prompts_version: none", "prompts_version: prompts_v1"),
        (f"      {TEMPO_ON}\n", ""),
        ("policy: {}", "policy: {retain_raw_comments: true}"),
        # Frame budgets, whether the profile or the graph itself sets them.
        (CUTS_ON, "cut_detection: {sampling: {min_frames: 300}}"),
        (CUTS_ON, "cut_detection: {sampling: {target_frames: 900}}"),
        (CUTS_ON, "cut_detection: {sampling: {max_frames: 1600}}"),
        (CUTS_SAMPLING, "sampling: {min: 300, target: 800, max: 1500}"),
        (CUTS_SAMPLING, "sampling: {min: 400, target: 900, max: 1500}"),
        (CUTS_SAMPLING, "sampling: {min: 400, target: 800, max: 1600}"),
        # Group, parent and audio family.
        ("group: primary", "group: main"),
        (CUTS_SAMPLING, "sampling: {min: 400, target: 800, max: 1500, group: cuts}"),
        (CUTS_SAMPLING, "sampling: {min: 400, target: 800, max: 1500, parent: core_clip}"),
        ("sampling: {family: tempo}", "sampling: {family: onset}"),
        # A mapped shot boundary model turns dense thumbnails on.
        SHOT_BOUNDARY_MAPPED,
    ],
)
def test_config_hash_covers_what_changes_results(old: str, new: str) -> None:
    assert registry_of((old, new)).config_hash("starter") != BASE_HASH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEMPO_ON, "tempo_extractor: {required: false, params: {}}"),
        ("image_encoder: efficientnet_lite0_224\n", "image_encoder: another_encoder\n"),
        ("image_encoder: efficientnet_lite0_224\n", "image_encoder: {entry: another_encoder, runtime: triton}\n"),
        (TEMPO_RESOURCES, "resources: {gpu: false, cpu: 4, rss_mb: 900, timeout_s: 60}"),
        ("description: Everything whose weights", "description: All whose weights"),
        # A default written out is the same configuration as a default left out.
        (SEGMENTER_ON, "segmenter: {params: {analysis_short_side: 320, analysis_height: null}}"),
        (SEGMENTER_ON, "segmenter: {params: {dense_thumbnails: false, av_drift_max_sec: 10}}"),
        (CUTS_ON, "cut_detection: {sampling: {min_frames: 400, target_frames: 800, max_frames: 1500}}"),
        ("policy: {}", "policy: {log_pii: false, retain_raw_ocr_text: false, retain_raw_transcript: false}"),
    ],
)
def test_config_hash_covers_nothing_else(old: str, new: str) -> None:
    assert registry_of((old, new)).config_hash("starter") == BASE_HASH


def test_a_component_that_is_not_enabled_does_not_enter_the_hash() -> None:
    off = (f"      {TEMPO_ON}\n", "")
    without = registry_of(off).config_hash("starter")
    assert (
        registry_of(off, ("sampling: {family: tempo}", "sampling: {family: onset}")).config_hash("starter") == without
    )


def test_dense_thumbnails_follow_the_parameter_or_the_role() -> None:
    asked = (SEGMENTER_ON, "segmenter: {params: {dense_thumbnails: true}}")
    assert not registry_of().dense_thumbnails("starter")
    assert registry_of(asked).dense_thumbnails("starter")
    assert registry_of(SHOT_BOUNDARY_MAPPED).dense_thumbnails("starter")
    # Which model serves the role is the model signature's business.
    other = (SHOT_BOUNDARY_MAPPED[0], SHOT_BOUNDARY_MAPPED[1].replace("some_model", "other_model"))
    assert registry_of(other).config_hash("starter") == registry_of(SHOT_BOUNDARY_MAPPED).config_hash("starter")
