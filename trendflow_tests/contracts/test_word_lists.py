"""Word lists: versioned, with provenance, and no entry that YAML understands as something else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.word_lists import CLICKBAIT, load_word_list

GOOD = "version: list_v1\nprovenance: made up\nphrases:\n  en: [one two, three]\n  de: [eins]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "list_v1.yaml"
    path.write_text(text)
    return path


def test_a_good_list(tmp_path: Path) -> None:
    found = load_word_list(write(tmp_path, GOOD))
    assert found.phrases == {"en": ("one two", "three"), "de": ("eins",)}
    assert found.reference == {"list_v1.yaml": hashlib.sha256(GOOD.encode()).hexdigest()}


@pytest.mark.parametrize(
    "text",
    [
        "version: [",
        "[]",
        GOOD.replace("list_v1", "other"),
        GOOD.replace("provenance: made up\n", ""),
        GOOD.replace("made up", '" "'),
        GOOD.replace("three", "no"),  # a boolean in YAML
        GOOD.replace("three", "one two"),
        GOOD.replace("three", '" "'),
        GOOD.replace("  de: [eins]\n", "  de: eins\n"),
        GOOD + "more: 1\n",
    ],
)
def test_everything_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        load_word_list(write(tmp_path, text))
    assert caught.value.error_code == "config_invalid"


def test_the_shipped_list_is_sorted_by_language() -> None:
    assert list(CLICKBAIT.phrases) == sorted(CLICKBAIT.phrases)
    assert CLICKBAIT.version == "clickbait_v1"
