"""Versioned word lists that ship with the program, with where they come from.

Like the thresholds they are read once, when the program is imported; their digest enters the cache key of every
reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.versioned_yaml import FOLDER, read_versioned

_KEYS = {"version", "provenance", "phrases"}


@dataclass(frozen=True)
class WordList:
    """One version of a list. `phrases` maps a language (BCP 47) to its words and phrases."""

    version: str
    file_name: str
    sha256: str
    phrases: dict[str, tuple[str, ...]]

    @property
    def reference(self) -> dict[str, str]:
        """The `ComponentSpec.reference` of a component that reads this list."""
        return {self.file_name: self.sha256}


def load_word_list(path: Path) -> WordList:
    """Read and check one list. Raises `config_invalid` on anything unexpected."""
    document, sha256 = read_versioned(path)
    if set(document) != _KEYS:
        raise TrendFlowError("config_invalid", f"{path.name} must hold {sorted(_KEYS)}.")
    if not isinstance(document["phrases"], dict) or not str(document["provenance"]).strip():
        raise TrendFlowError("config_invalid", f"{path.name} needs a provenance and phrases by language.")
    phrases = {language: _phrases(path.name, language, found) for language, found in document["phrases"].items()}
    return WordList(document["version"], path.name, sha256, phrases)


def _phrases(file: str, language: str, found: object) -> tuple[str, ...]:
    # Bare `no` or `1` in YAML is no string: a list that loses such an entry silently would be another list.
    if not isinstance(found, list) or not all(isinstance(item, str) and item.strip() for item in found):
        raise TrendFlowError("config_invalid", f"{file}: the phrases of {language!r} must be a list of texts.")
    if len(set(found)) != len(found):
        raise TrendFlowError("config_invalid", f"{file}: a phrase of {language!r} occurs twice.")
    return tuple(found)


CLICKBAIT = load_word_list(FOLDER / "clickbait_v1.yaml")
