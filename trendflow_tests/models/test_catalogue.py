"""The catalogue file and the rules its entries obey."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue, CatalogueEntry, ModelFacts
from trendflow_tests.models.builders import entry_values

# Category → supercategory as published with the COCO 2017 annotations, one probe per supercategory and both ends.
COCO_FACTS = {
    0: ("person", "person"),
    2: ("car", "vehicle"),
    9: ("traffic light", "outdoor"),
    16: ("dog", "animal"),
    24: ("backpack", "accessory"),
    32: ("sports ball", "sports"),
    41: ("cup", "kitchen"),
    46: ("banana", "food"),
    56: ("chair", "furniture"),
    63: ("laptop", "electronic"),
    68: ("microwave", "appliance"),
    79: ("toothbrush", "indoor"),
}


def _document(**changes: Any) -> dict[str, Any]:
    values = entry_values()
    del values["name"]
    document: dict[str, Any] = {
        "version": "model_catalogue_v1",
        "roles": {"image_encoder": {"used_by": ["core_clip"]}},
        "entries": {"tiny": values},
    }
    return document | changes


def _with_entry(**overrides: Any) -> str:
    values = entry_values(**overrides)
    del values["name"]
    return yaml.safe_dump(_document(entries={"tiny": values}), sort_keys=False)


def test_shipped_roles_are_those_of_the_specification(catalogue: Catalogue) -> None:
    assert set(catalogue.roles) == {
        *("image_encoder", "prompt_encoder", "depth", "optical_flow", "object_detector", "face_detector"),
        *("face_landmarks", "scene_classifier", "shot_boundary", "audio_encoder", "text_encoder", "asr", "vad"),
        *("speaker_encoder", "speech_emotion", "source_separator", "ocr", "face_emotion", "pitch"),
    }


def test_the_starter_profile_maps_roles_to_entries_that_serve_them(catalogue: Catalogue) -> None:
    graph = yaml.safe_load(data_path("component_graph.yaml").read_text(encoding="utf-8"))
    for role, name in graph["profiles"]["starter"]["models"].items():
        assert role in catalogue[name].roles


def test_detector_classes_are_coco_in_published_order(catalogue: Catalogue) -> None:
    entry = catalogue["nanodet_m_416"]
    assert len(entry.class_names) == 80
    group_of = {name: group for group, members in entry.class_groups.items() for name in members}
    for index, (name, group) in COCO_FACTS.items():
        assert (entry.class_names[index], group_of[entry.class_names[index]]) == (name, group)
    assert set(entry.class_groups) == {group for _, group in COCO_FACTS.values()}


def test_detector_heads_name_outputs_that_fit_the_input(catalogue: Catalogue) -> None:
    entry = catalogue["nanodet_m_416"]
    shapes = {tensor.name: tensor.shape for tensor in entry.outputs}
    for head in entry.postprocessing["heads"]:
        cells = (416 // head["stride"]) ** 2
        assert shapes[head["scores"]] == (1, cells, len(entry.class_names))
        assert shapes[head["boxes"]] == (1, cells, 4 * entry.postprocessing["distribution_bins"])


def test_weights_digest_is_sha256_of_canonical_json() -> None:
    files = [
        {"path": "b.onnx", "sha256": "b" * 64, "bytes": 1},
        {"path": "a.onnx", "sha256": "a" * 64, "bytes": 1},
    ]
    source = {**entry_values()["source"], "companions": {"a.onnx": "a.onnx"}}
    entry = CatalogueEntry.model_validate(entry_values(files=files, source=source))
    text = '{"a.onnx":"' + "a" * 64 + '","b.onnx":"' + "b" * 64 + '"}'
    assert json.loads(text)  # the expectation itself is JSON
    assert entry.weights_digest == hashlib.sha256(text.encode()).hexdigest()


def test_an_algorithm_has_the_digest_none() -> None:
    source = {"kind": "algorithm", "locator": "opencv", "revision": "5.0"}
    entry = CatalogueEntry.model_validate(entry_values(engine="algorithm", files=[], source=source))
    assert entry.weights_digest == "none"


def test_an_entry_cannot_be_changed(catalogue: Catalogue) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        catalogue["nanodet_m_416"].version = "9"  # the assignment is what must fail


def test_device_class_enters_models_used_without_its_ordinal() -> None:
    assert CatalogueEntry.model_validate(entry_values()).model_used("cuda:3").device == "cuda"


def test_unknown_names_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(TrendFlowError, match="model_not_found"):
        catalogue["resnet"]
    with pytest.raises(TrendFlowError, match="config_invalid"):
        catalogue.for_role("smell")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: [", 1, "not valid YAML"),
        ("- 1\n- 2\n", 1, "must hold a mapping"),
        ("roles: {}\nentries: {}\nversion: v0\n", 3, "model_catalogue_v1"),
        (yaml.safe_dump(_document(extra=1), sort_keys=False) + "", None, "unknown key 'extra'"),
        ("version: model_catalogue_v1\nroles: 3\nentries: {}\n", 2, "'roles' must be a mapping"),
        ("version: model_catalogue_v1\nroles:\n  depth: {used_by: []}\nentries: {}\n", 3, "used_by"),
        ("version: model_catalogue_v1\nroles:\n  depth: {used_by: [a]}\nentries: {}\n", 3, "without_entry"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(TrendFlowError, match=words) as caught:
        Catalogue.parse(text)
    assert caught.value.error_code == "config_invalid"
    if line is not None:
        assert caught.value.detail["line"] == line


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        ({"licence_spdx": ""}, "licence_spdx", "at least 1 character"),
        ({"licence_url": "http://example.org"}, "licence_url", "pattern"),
        ({"commercial_use": "maybe"}, "commercial_use", "allowed"),
        ({"roles": []}, "roles", "at least 1 item"),
        ({"roles": ["smell"]}, "roles", "unknown role 'smell'"),
        ({"precision": "fp64"}, "precision", "fp32"),
        ({"max_batch_size": 0}, "max_batch_size", "greater than or equal to 1"),
        ({"colour": "red"}, "colour", "Extra inputs"),
        ({"files": [{"path": "../m.onnx", "sha256": "0" * 64, "bytes": 1}]}, "path", "relative path"),
        ({"files": [{"path": "/m.onnx", "sha256": "0" * 64, "bytes": 1}]}, "path", "relative path"),
        ({"files": [{"path": "m.onnx", "sha256": "xyz", "bytes": 1}]}, "sha256", "pattern"),
        ({"embedding_dim": 5}, None, "embedding_dim is the width of no output"),
        ({"class_names": ["a", "b"]}, None, "class_names is as long as no output is wide"),
        ({"class_names": ["a", "a", "b", "c"]}, None, "occurs twice"),
        ({"class_names": ["a", "b", "c", "d"], "class_groups": {"all": ["a", "b"]}}, None, "exactly one group"),
        ({"files": []}, None, "an algorithm has no files"),
        ({"licence_spdx": "NONE"}, None, "weights without a licence are forbidden"),
        ({"derived_from": "huge"}, "derived_from", "unknown entry 'huge'"),
        ({"source": {"kind": "package", "locator": "p", "revision": "1"}}, "source", "needs 'member' and 'sha256'"),
        ({"source": {"kind": "url", "locator": "https://x/y", "revision": "1"}}, "source", "revision"),
        (
            {"source": {"kind": "url", "locator": "https://x/{revision}/{path}", "revision": "main"}},
            "revision",
            "must be pinned",
        ),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": ["b"], "layout": "N"}]}, "shape", "dimension"),
    ],
)
def test_a_bad_entry_is_refused_with_its_name_and_line(overrides: dict[str, Any], key: str | None, words: str) -> None:
    text = _with_entry(**overrides)
    with pytest.raises(TrendFlowError, match=words) as caught:
        Catalogue.parse(text)
    assert caught.value.error_code == "model_spec_invalid"
    assert caught.value.detail["entry"] == "tiny"
    lines = text.splitlines()
    found = lines[caught.value.detail["line"] - 1]
    if key is None:
        assert found.strip() == "tiny:"
    else:
        # A list item is named by its own line, a value by the line of its key.
        assert key in found or found.strip().startswith("-")


def _with_unpinned(name: str = "huge", **overrides: Any) -> str:
    facts = {key: value for key, value in entry_values().items() if key in ModelFacts.model_fields and key != "name"}
    model = {**facts, "upstream": "https://example.org/huge", "reason": "No digest.", **overrides}
    return yaml.safe_dump({**_document(), "unpinned": {name: model}}, sort_keys=False)


def test_an_unpinned_model_serves_no_role() -> None:
    found = Catalogue.parse(_with_unpinned())
    assert list(found.unpinned) == ["huge"]
    assert [entry.name for entry in found.for_role("image_encoder")] == ["tiny"]
    with pytest.raises(TrendFlowError, match="model_not_found"):
        found["huge"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"name": "tiny"}, "is unpinned at once"),
        ({"files": []}, "Extra inputs"),  # a digest would be a pin, and no digest is no entry
        ({"upstream": "http://example.org"}, "pattern"),
        ({"reason": ""}, "at least 1 character"),
        ({"embedding_dim": 5}, "embedding_dim is the width of no output"),
        ({"roles": ["smell"]}, "unknown role"),
    ],
)
def test_a_bad_unpinned_model_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(TrendFlowError, match=words) as caught:
        Catalogue.parse(_with_unpinned(**overrides))
    assert caught.value.error_code == "model_spec_invalid"


def test_every_built_file_has_its_source() -> None:
    second = {"path": "tokenizer.json", "sha256": "1" * 64, "bytes": 1}
    files = [*entry_values()["files"], second]
    with pytest.raises(TrendFlowError, match="companions must name every file"):
        Catalogue.parse(_with_entry(files=files))
    source = {**entry_values()["source"], "companions": {"tokenizer.json": "member"}}
    assert Catalogue.parse(_with_entry(files=files, source=source))["tiny"].files[1].path == "tokenizer.json"


def test_a_missing_key_is_reported_at_the_entry() -> None:
    text = yaml.safe_dump(_document(), sort_keys=False).replace("    attribution: Tests.\n", "")
    with pytest.raises(TrendFlowError, match="attribution: Field required") as caught:
        Catalogue.parse(text)
    assert text.splitlines()[caught.value.detail["line"] - 1].strip() == "tiny:"


def test_an_absent_file_is_config_invalid(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="config_invalid") as caught:
        Catalogue.load(tmp_path / "catalogue.yaml")
    assert str(tmp_path) not in str(caught.value)
