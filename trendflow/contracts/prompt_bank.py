"""Versioned prompts for an image–text model, with the class each one stands for.

Like the thresholds they are read once, when the program is imported; their digest enters the cache key of every
reader. Which sets there are, of how many prompts and, where readers name them, of which classes is fixed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.versioned_yaml import FOLDER, read_versioned

NO_BANK = "none"
"""`prompts_version` of a profile that uses no prompts."""


@dataclass(frozen=True)
class _Layout:
    """Size of a set and its classes; without given classes every prompt is one of its own."""

    prompts: int
    classes: frozenset[str] | None = None


_HIGH_LOW = frozenset({"high", "low"})
_LAYOUTS = {
    "shot_quality": _Layout(10),
    "scene_aesthetic": _Layout(6, _HIGH_LOW),
    "scene_luxury": _Layout(6, _HIGH_LOW),
    "scene_atmosphere": _Layout(6, frozenset({"cozy", "scary", "epic", "neutral"})),
    "cut_detection_transition": _Layout(10),
    "popularity_topic": _Layout(10),
}
_KEYS = {"version", "sets", "places365"}
_SET_KEYS = {"temperature", "provenance", "prompts"}
_PLACES_KEYS = {"provenance", "template", "labels"}
_PLACES = 365
_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)?")
# Versions of the tokenizer clean other text in different ways; plain text is the same to all of them.
_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.'-]*")
_SLOT = "{}"


def prompt_class(name: str) -> str:
    """The class of a prompt: what stands before the slash of its name, or the whole name."""
    return name.partition("/")[0]


@dataclass(frozen=True)
class PromptSet:
    """Prompts that share one softmax. `prompts` maps names to texts; `temperature` divides the checkpoint's scale."""

    name: str
    temperature: float
    provenance: str
    prompts: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of their first prompts."""
        return tuple(dict.fromkeys(map(prompt_class, self.prompts)))


@dataclass(frozen=True)
class PromptBank:
    """One version of the prompts. `places` are the texts of the Places365 categories, by category index."""

    version: str
    file_name: str
    sha256: str
    sets: Mapping[str, PromptSet]
    places: tuple[str, ...]

    @property
    def reference(self) -> dict[str, str]:
        """The `ComponentSpec.reference` of a component that reads these prompts."""
        return {self.file_name: self.sha256}


def load_prompt_bank(path: Path) -> PromptBank:
    """Read and check one bank. Raises `config_invalid`, naming set and prompt, on anything unexpected."""
    document, sha256 = read_versioned(path)
    _require_keys(path.name, document, _KEYS)
    _require_keys(f"{path.name}: sets", document["sets"], set(_LAYOUTS))
    sets = {name: _prompt_set(f"{path.name}: {name}", name, body) for name, body in document["sets"].items()}
    return PromptBank(
        document["version"], path.name, sha256, sets, _places(f"{path.name}: places365", document["places365"])
    )


def _prompt_set(where: str, name: str, body: Any) -> PromptSet:
    _require_keys(where, body, _SET_KEYS)
    layout, prompts, temperature = _LAYOUTS[name], body["prompts"], body["temperature"]
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise _invalid(where, "the temperature must be a positive number")
    _require_provenance(where, body)
    if not isinstance(prompts, dict) or len(prompts) != layout.prompts:
        raise _invalid(where, f"there must be {layout.prompts} prompts by name")
    for prompt, text in prompts.items():
        if not isinstance(prompt, str) or _NAME.fullmatch(prompt) is None:
            raise _invalid(where, f"the prompt name {prompt!r} is neither <class> nor <class>/<variant>")
        _require_text(f"{where}.{prompt}", text)
    if len(set(prompts.values())) != len(prompts):
        raise _invalid(where, "a text occurs twice")
    found = PromptSet(name, float(temperature), str(body["provenance"]).strip(), prompts)
    if layout.classes is None and len(found.classes) != len(prompts):
        raise _invalid(where, "every prompt must be a class of its own")
    if layout.classes is not None and set(found.classes) != layout.classes:
        raise _invalid(where, f"the classes must be {', '.join(sorted(layout.classes))}")
    return found


def _places(where: str, body: Any) -> tuple[str, ...]:
    _require_keys(where, body, _PLACES_KEYS)
    _require_provenance(where, body)
    template, labels = body["template"], body["labels"]
    if not isinstance(template, str) or template.count(_SLOT) != 1:
        raise _invalid(where, f"the template must be a text with one {_SLOT}")
    if not isinstance(labels, list) or len(set(map(str, labels))) != _PLACES or len(labels) != _PLACES:
        raise _invalid(where, f"there must be {_PLACES} different labels")
    texts = tuple(template.replace(_SLOT, str(label)) for label in labels)
    for label, text in zip(labels, texts, strict=True):
        _require_text(f"{where}.{label}", label)
        _require_text(f"{where}.{label}", text)
    return texts


def _require_keys(where: str, found: Any, keys: set[str]) -> None:
    if not isinstance(found, dict) or set(found) != keys:
        raise _invalid(where, f"needs exactly {sorted(keys)}")


def _require_provenance(where: str, body: Mapping[str, Any]) -> None:
    if not str(body["provenance"]).strip():
        raise _invalid(where, "must say where its prompts come from")


def _require_text(where: str, text: Any) -> None:
    if not isinstance(text, str) or _TEXT.fullmatch(text) is None:
        raise _invalid(where, "the text must be plain words")


def _invalid(where: str, problem: str) -> TrendFlowError:
    return TrendFlowError("config_invalid", f"{where}: {problem}.")


PROMPTS = load_prompt_bank(FOLDER / "prompts_v1.yaml")
