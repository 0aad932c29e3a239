"""The prompt bank: fixed sets and classes, one softmax per set, and profiles that agree with it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trendflow.components.registry import load_registry
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import parse_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.prompt_bank import PROMPTS, load_prompt_bank, prompt_class
from trendflow.contracts.versioned_yaml import FOLDER
from trendflow.models.catalogue import Catalogue

SHIPPED = FOLDER / "prompts_v1.yaml"
DOCUMENT = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
GRAPH = data_path("component_graph.yaml").read_text(encoding="utf-8")


def write(folder: Path, document: Any) -> Path:
    path = folder / "prompts_v1.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def test_the_shipped_bank_has_the_sets_and_classes_of_the_specification() -> None:
    assert {name: len(found.prompts) for name, found in PROMPTS.sets.items()} == {
        "shot_quality": 10,
        "scene_aesthetic": 6,
        "scene_luxury": 6,
        "scene_atmosphere": 6,
        "cut_detection_transition": 10,
        "popularity_topic": 10,
    }
    assert set(PROMPTS.sets["scene_aesthetic"].classes) == {"high", "low"}
    assert set(PROMPTS.sets["scene_luxury"].classes) == {"high", "low"}
    assert set(PROMPTS.sets["scene_atmosphere"].classes) == {"cozy", "scary", "epic", "neutral"}
    assert len(PROMPTS.sets["shot_quality"].classes) == 10
    assert {found.temperature for found in PROMPTS.sets.values()} == {1.0}
    assert PROMPTS.reference == {"prompts_v1.yaml": hashlib.sha256(SHIPPED.read_bytes()).hexdigest()}


def test_places_are_the_classes_of_the_classifier_in_their_order() -> None:
    """Labels are words instead of paths; some have another spelling, none another place in the list."""
    names = Catalogue.load()["places365_resnet50"].class_names
    assert len(PROMPTS.places) == len(names) == 365
    for index in (0, 48, 203, 319, 364):
        assert PROMPTS.places[index] == f"a photo of the {names[index].replace('_', ' ')}"
    alike = [
        {word[:3] for word in name.replace("/", "_").split("_")} & {word[:3] for word in text.split()[4:]}
        for name, text in zip(names, PROMPTS.places, strict=True)
    ]
    assert all(alike)


@pytest.mark.parametrize(("name", "expected"), [("cozy", "cozy"), ("high/colors", "high")])
def test_the_class_stands_before_the_slash(name: str, expected: str) -> None:
    assert prompt_class(name) == expected


def test_a_bank_that_is_written_anew_is_the_same_bank(tmp_path: Path) -> None:
    loaded = load_prompt_bank(write(tmp_path, DOCUMENT))
    assert (loaded.sets, loaded.places) == (PROMPTS.sets, PROMPTS.places)
    assert loaded.sha256 != PROMPTS.sha256  # the digest is that of the bytes


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Sets `a.b.c` of a document; None removes it."""

    def apply(document: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[key]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return apply


QUALITY = DOCUMENT["sets"]["shot_quality"]["prompts"]
ATMOSPHERE = DOCUMENT["sets"]["scene_atmosphere"]["prompts"]
LABELS = DOCUMENT["places365"]["labels"]


@pytest.mark.parametrize(
    "broken",
    [
        change("version", "prompts_v2"),
        change("sets.scene_luxury", None),
        change("sets.mood", DOCUMENT["sets"]["scene_luxury"]),
        change("sets.shot_quality.temperature", 0),
        change("sets.shot_quality.temperature", True),
        change("sets.shot_quality.temperature", float("inf")),
        change("sets.shot_quality.temperature", "1"),
        change("sets.shot_quality.provenance", " "),
        change("sets.shot_quality.provenance", None),
        change("sets.shot_quality.prompts", list(QUALITY)),
        change("sets.shot_quality.prompts.sharp", None),
        change("sets.shot_quality.prompts.another", "a photo"),
        change("sets.shot_quality.prompts.sharp", ""),
        change("sets.shot_quality.prompts.sharp", 5),
        change("sets.shot_quality.prompts.sharp", QUALITY["noisy"]),
        change("sets.shot_quality.prompts.sharp", "ein schönes Foto"),
        change("sets.shot_quality.prompts.sharp", "<|endoftext|>"),
        change("sets.shot_quality.prompts", {f"all/{name}": text for name, text in QUALITY.items()}),
        change("sets.shot_quality.prompts", {name.upper(): text for name, text in QUALITY.items()}),
        change("sets.scene_atmosphere.prompts", {name.replace("cozy", "sad"): t for name, t in ATMOSPHERE.items()}),
        change("sets.scene_atmosphere.prompts", {name.replace("cozy", "epic/b"): t for name, t in ATMOSPHERE.items()}),
        change("sets.scene_atmosphere.prompts", {f"{name}/a/b": text for name, text in ATMOSPHERE.items()}),
        change("places365", None),
        change("places365.template", "a photo"),
        change("places365.template", "{} {}"),
        change("places365.labels", LABELS[:-1]),
        change("places365.labels", [*LABELS[:-1], LABELS[0]]),
        change("places365.labels", [*LABELS[:-1], 7]),
        change("places365.provenance", ""),
    ],
)
def test_everything_else_is_refused(tmp_path: Path, broken: Callable[[Any], None]) -> None:
    document = copy.deepcopy(DOCUMENT)
    broken(document)
    with pytest.raises(TrendFlowError) as caught:
        load_prompt_bank(write(tmp_path, document))
    assert caught.value.error_code == "config_invalid"
    assert str(tmp_path) not in caught.value.message


ENCODER_MAPPED = ("      image_encoder: efficientnet_lite0_224\n", "      prompt_encoder: clip_vit_b32_text\n")


def registered(prompts_version: str, *, mapped: bool) -> None:
    text = GRAPH.replace("prompts_version: none", f"prompts_version: {prompts_version}")
    if mapped:
        assert ENCODER_MAPPED[0] in text
        text = text.replace(ENCODER_MAPPED[0], "".join(ENCODER_MAPPED))
    load_registry(parse_graph(text), catalogue=Catalogue.load())


@pytest.mark.parametrize(("version", "mapped"), [("none", False), ("prompts_v1", False), ("prompts_v1", True)])
def test_profiles_that_agree_with_the_bank(version: str, mapped: bool) -> None:
    registered(version, mapped=mapped)


@pytest.mark.parametrize(("version", "mapped"), [("none", True), ("prompts_v2", False), ("prompts_v2", True)])
def test_profiles_that_do_not_are_refused_with_their_line(version: str, mapped: bool) -> None:
    with pytest.raises(TrendFlowError, match="line") as caught:
        registered(version, mapped=mapped)
    assert caught.value.error_code == "config_invalid"
