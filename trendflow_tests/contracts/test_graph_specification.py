"""The graph against the specification's table of components, typed here by hand: edges, roles, profiles, flags."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from trendflow.contracts.graph import parse_graph
from trendflow.models.catalogue import Catalogue
from trendflow_tests.contracts.graph_text import TEXT

GRAPH = parse_graph(TEXT)
NODES = {**GRAPH.components, **GRAPH.drafts.components}
ALL, BASELINE_ON, V1_ON, V2_ON = "starter starter_int8 baseline v1 v2", "baseline v1 v2", "v1 v2", "v2"
EVERYTHING = "everything"


class Row(NamedTuple):
    """Names are separated by blanks."""

    hard: str
    soft: str
    roles: str
    optional_roles: str
    profiles: str


TABLE: dict[str, Row] = {
    "segmenter": Row("", "", "", "", ALL),
    "core_clip": Row("segmenter", "", "image_encoder", "prompt_encoder", ALL),
    "core_optical_flow": Row("segmenter", "", "optical_flow", "", ALL),
    "core_depth_midas": Row("segmenter", "", "depth", "", BASELINE_ON),
    "core_object_detections": Row("segmenter", "", "object_detector", "", ALL),
    "core_face_landmarks": Row("segmenter core_object_detections", "", "face_detector face_landmarks", "", ALL),
    "cut_detection": Row(
        "segmenter",
        "core_optical_flow core_clip core_object_detections core_face_landmarks",
        "",
        "shot_boundary",
        ALL,
    ),
    "optical_flow": Row("segmenter core_optical_flow", "", "", "", ALL),
    "scene_classification": Row("segmenter core_clip cut_detection", "", "scene_classifier", "", BASELINE_ON),
    "shot_quality": Row(
        "segmenter cut_detection core_object_detections core_face_landmarks", "core_clip core_depth_midas", "", "", ALL
    ),
    "story_structure": Row("segmenter core_clip core_optical_flow core_face_landmarks cut_detection", "", "", "", ALL),
    "uniqueness": Row("segmenter core_clip", "", "", "", ALL),
    "video_pacing": Row("segmenter core_clip core_optical_flow cut_detection", "", "", "", ALL),
    "clap_extractor": Row("segmenter", "", "audio_encoder", "", ALL),
    "tempo_extractor": Row("segmenter", "", "", "", ALL),
    "loudness_extractor": Row("segmenter", "", "", "", ALL),
    "text_processor": Row("segmenter", "asr_extractor", "text_encoder", "", ALL),
    "asr_extractor": Row("segmenter", "", "asr", "", V1_ON),
    "speaker_diarization_extractor": Row("segmenter", "", "speaker_encoder vad", "", V1_ON),
    "emotion_diarization_extractor": Row("segmenter", "", "speech_emotion", "", V1_ON),
    "source_separation_extractor": Row("segmenter", "", "source_separator", "", V1_ON),
    "speech_analysis_extractor": Row(
        "segmenter asr_extractor speaker_diarization_extractor", "pitch_extractor", "", "", V1_ON
    ),
    "ocr_extractor": Row("segmenter", "core_object_detections", "ocr", "", V1_ON),
    "emotion_face": Row("segmenter core_face_landmarks", "", "face_emotion", "", V1_ON),
    "high_level_semantic": Row(
        "segmenter core_clip cut_detection emotion_face", "onset_extractor ocr_extractor", "", "", V1_ON
    ),
    "color_light": Row("segmenter scene_classification", "", "", "", V1_ON),
    "frames_composition": Row(
        "segmenter core_object_detections core_face_landmarks core_depth_midas", "", "", "", V1_ON
    ),
    "spectral_extractor": Row("segmenter", "", "", "", V1_ON),
    "mfcc_extractor": Row("segmenter", "", "", "", V1_ON),
    "chroma_extractor": Row("segmenter", "", "", "", V1_ON),
    "onset_extractor": Row("segmenter", "", "", "", V1_ON),
    "rhythmic_extractor": Row("segmenter", "", "", "", V1_ON),
    "pitch_extractor": Row("segmenter", "", "pitch", "", V1_ON),
    "quality_extractor": Row("segmenter", "", "", "", V1_ON),
    "voice_quality_extractor": Row("segmenter", "", "", "", V1_ON),
    "hpss_extractor": Row("segmenter", "", "", "", V1_ON),
    "key_extractor": Row("segmenter", "", "", "", V1_ON),
    "band_energy_extractor": Row("segmenter", "", "", "", V1_ON),
    "spectral_entropy_extractor": Row("segmenter", "", "", "", V1_ON),
    "mel_extractor": Row("segmenter", "", "", "", V1_ON),
    "feature_vector": Row("segmenter", EVERYTHING, "", "", ALL),
    "shot_tokens": Row("segmenter cut_detection core_clip", EVERYTHING, "", "", V2_ON),
}
SERVED = "served"
"""The starter profile on a model server: no profile of the specification, but a way to execute one."""
OPTIONAL = {(profile, "text_processor") for profile in ("starter", "starter_int8", "baseline")}
"""Whose failure a profile survives; whatever else is enabled is required."""


def test_the_graph_and_the_drafts_hold_these_components_and_no_others() -> None:
    assert NODES.keys() == TABLE.keys()
    assert GRAPH.components.keys().isdisjoint(GRAPH.drafts.components)
    assert [*(name for name in GRAPH.profiles if name != SERVED), *GRAPH.drafts.profiles] == ALL.split()


def test_serving_changes_no_component_and_no_model() -> None:
    served, starter = GRAPH.profile(SERVED), GRAPH.profile("starter")
    assert (served.components, served.models) == (starter.components, starter.models)
    assert set(served.runtimes.values()) == {"triton"}


@pytest.mark.parametrize("name", TABLE)
def test_edges_and_roles_are_those_of_the_specification(name: str) -> None:
    row, node = TABLE[name], NODES[name]
    assert set(node.hard) == set(row.hard.split())
    assert set(node.required_roles) == set(row.roles.split())
    assert set(node.optional_roles) == set(row.optional_roles.split())
    assert node.soft_is_all == (row.soft == EVERYTHING)
    if row.soft != EVERYTHING:
        assert set(node.soft) == set(row.soft.split())


def test_everything_means_whatever_else_the_profile_measures() -> None:
    for profile in GRAPH.profiles:
        others = {node.name for node in GRAPH.enabled(profile)} - {"feature_vector"}
        assert set(GRAPH.active_deps(profile, "feature_vector")) == others
    sources = TABLE.keys() - {"feature_vector", "shot_tokens"}
    assert {*NODES["shot_tokens"].deps} == sources
    assert {*GRAPH.drafts.profiles["v2"].components} - {"feature_vector", "shot_tokens"} == sources


@pytest.mark.parametrize("profile", ALL.split())
def test_a_profile_holds_its_rows_and_marks_what_may_fail(profile: str) -> None:
    """What a real profile leaves out for want of a model, it says."""
    expected = {name: (profile, name) not in OPTIONAL for name, row in TABLE.items() if profile in row.profiles.split()}
    if profile in GRAPH.drafts.profiles:
        assert GRAPH.drafts.profiles[profile].components == expected
        return
    found, catalogue = GRAPH.profile(profile), Catalogue.load()
    unmapped = {name for name in expected if not all(map(catalogue.for_role, TABLE[name].roles.split()))}
    assert all(name in found.description for name in unmapped)
    assert {name: entry.required for name, entry in found.components.items()} == {
        name: required for name, required in expected.items() if name not in unmapped
    }


def test_the_catalogue_knows_who_uses_each_role() -> None:
    users: dict[str, set[str]] = {}
    for name, row in TABLE.items():
        for role in (*row.roles.split(), *row.optional_roles.split()):
            users.setdefault(role, set()).add(name)
    assert {name: set(role.used_by) for name, role in Catalogue.load().roles.items()} == users
