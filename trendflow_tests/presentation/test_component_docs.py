"""The reference of the components is the one that code, graph, schemas and constants give today, and says it all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trendflow.components.code_facts import code_facts
from trendflow.components.registry import Registry, load_registry
from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.presentation.component_docs import render_components

BEHIND_OTHER_INTERFACES = {"model_load_failed", "weights_missing", "out_of_memory"}
"""Raised inside the models and the batch runner a component calls, not in its own files."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(load_graph(data_path("component_graph.yaml")))


@pytest.fixture(scope="module")
def chapters(registry: Registry) -> dict[str, str]:
    """Component → its chapter."""
    page = render_components(registry, SchemaRegistry.load(), THRESHOLDS)
    parts = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_documentation_is_current(repo_root: Path, registry: Registry) -> None:
    page = render_components(registry, SchemaRegistry.load(), THRESHOLDS)
    written = (repo_root / "docs" / "components.md").read_text(encoding="utf-8")
    assert written == page, "run: trendflow components docs"


def test_every_component_key_feature_and_parameter_has_its_line(registry: Registry, chapters: dict[str, str]) -> None:
    schemas = SchemaRegistry.load()
    assert list(chapters) == list(registry.graph.components)
    for entry in registry:
        node, lines = entry.node, chapters[entry.node.name].splitlines()
        for version in (node.schema_version, *node.extra_artifacts.values()):
            schema = schemas.get(version)
            meanings = {field.name: field.description for field in schema.fields.values()}
            meanings |= {feature.name: feature.formula for feature in schema.features.values()}
            for name, meaning in meanings.items():
                said = meaning.replace("|", "\\|")
                assert any(line.startswith(f"| `{name}`") and said in line for line in lines), f"{node.name}.{name}"
        for name, param in entry.spec.params.items():
            assert any(line.startswith(f"| `{name}` |") and param.doc in line for line in lines), f"{node.name}.{name}"
        for role in (*node.required_roles, *node.optional_roles):
            assert f"`{role}` (" in chapters[node.name]


def test_methods_are_told_once_in_every_chapter_they_belong_to(chapters: dict[str, str]) -> None:
    """`Method:` paragraphs of a component's own docstrings and of its helpers', and of nobody else's."""
    page = "".join(chapters.values())
    assert "Method:" not in page
    assert chapters["cut_detection"].count("- Shots begin at source frame 0 and at event_source_frame") == 1
    scaled = "`letterbox`: scaled by r = "
    takers = [name for name, text in chapters.items() if scaled in text]
    assert {"core_clip", "core_optical_flow", "core_object_detections", "core_face_landmarks"} <= set(takers)
    assert not {"cut_detection", "shot_quality", "uniqueness", "text_processor"} & set(takers)
    assert all(chapters[name].count(scaled) == 1 for name in takers)


def test_every_method_stands_under_what_it_is_about(chapters: dict[str, str]) -> None:
    (method,) = re.findall(
        r"^### Method\n\n(.*?)\n\n### ", chapters["core_optical_flow"], flags=re.MULTILINE | re.DOTALL
    )
    topic = "*Motion of the camera: the similarity that most of a flow field follows*"
    assert f"{topic}\n\n- At the centres of 32×32 equal cells" in method
    assert "cut_detection: " not in chapters["cut_detection"]  # a component needs no topic for its own module


def test_what_is_drafted_stands_apart_with_its_edges(registry: Registry) -> None:
    page = render_components(registry, SchemaRegistry.load(), THRESHOLDS)
    (section,) = re.findall(r"^## Drafted, .*?(?=^## )", page, flags=re.MULTILINE | re.DOTALL)
    rows = {line.split(" | ")[0].strip("| `"): line for line in section.splitlines() if line.startswith("| `")}
    drafts = registry.graph.drafts
    assert rows.keys() == drafts.profiles.keys() | drafts.components.keys()
    needed = "`segmenter`, `core_clip`, `cut_detection`, `emotion_face`"
    assert rows["high_level_semantic"].endswith(f" | {needed} | `onset_extractor`, `ocr_extractor` | – | v1, v2 |")
    assert rows["speaker_diarization_extractor"].endswith(" | `segmenter` | – | `speaker_encoder`, `vad` | v1, v2 |")
    assert rows["v2"].endswith(" | `v1` | 24 components |")


def test_every_constant_is_told_where_it_is_read(chapters: dict[str, str]) -> None:
    readers = {
        f"{section}.{name}": [component for component, text in chapters.items() if f"`{section}.{name}`" in text]
        for section, body in THRESHOLDS.constants.items()
        for name in body
    }
    assert [name for name, found in readers.items() if not found] == []
    assert readers["uniqueness.min_lag_s"] == ["uniqueness"]
    assert readers["audio.silence_dbfs"] == ["loudness_extractor", "clap_extractor", "tempo_extractor"]
    (line,) = (line for line in chapters["uniqueness"].splitlines() if "uniqueness.min_lag_s" in line)
    assert line.startswith("| `uniqueness.min_lag_s` | 2 | s | ")


def test_what_run_promises_to_raise_is_what_the_code_raises(registry: Registry) -> None:
    for entry in registry:
        if entry.module is not None:
            facts = code_facts(entry.node.name, entry.module)
            promised = ERROR_RULES.keys() & set(re.findall(r"`(\w+)`", facts.result))
            assert promised <= {code for code, _ in facts.errors} | BEHIND_OTHER_INTERFACES, entry.node.name


def test_empties_and_errors_are_those_of_the_code(chapters: dict[str, str]) -> None:
    assert "Empty reasons: `too_few_frames`." in chapters["cut_detection"]
    assert "Empty reasons: `no_faces_in_video`, `no_person_detections`." in chapters["core_face_landmarks"]
    assert "Never empty." in chapters["segmenter"]
    assert "| `dependency_missing` | The dense signals are missing. |" in chapters["cut_detection"]
    assert "| `dependency_missing` | The run has no document. |" in chapters["text_processor"]
    assert "The run has no document." not in chapters["cut_detection"]
