"""The thresholds file: every constant has a number, a unit and a provenance, and readers name exactly these."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS, load_thresholds

GOOD = "version: t\nsection:\n  width: {value: 2, unit: px, provenance: measured}\n"


@dataclass(frozen=True)
class Width:
    width: float


def write(folder: Path, text: str) -> Path:
    path = folder / "t.yaml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    loaded = load_thresholds(write(tmp_path, GOOD))
    assert loaded.bind("section", Width) == Width(2)
    assert loaded.reference == {"t.yaml": hashlib.sha256(GOOD.encode()).hexdigest()}


@pytest.mark.parametrize(
    "text",
    [
        "version: other\n",
        "- 1\n",
        "version: [t\n",
        "version: t\nsection: 3\n",
        GOOD.replace("value: 2", "value: two"),
        GOOD.replace("value: 2", "value: true"),
        GOOD.replace(", provenance: measured", ""),
        GOOD.replace("measured", "''"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        load_thresholds(write(tmp_path, text))
    assert caught.value.error_code == "config_invalid"
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    "text", [GOOD.replace("width", "height"), GOOD + "  depth: {value: 1, unit: px, provenance: x}\n"]
)
def test_readers_and_file_must_name_the_same_constants(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrendFlowError, match="section"):
        load_thresholds(write(tmp_path, text)).bind("section", Width)


def test_the_shipped_file_is_the_first_version() -> None:
    assert THRESHOLDS.version == "thresholds_v1"
    assert THRESHOLDS.sections["tempo_extractor"]["pulse_clarity_min"] == 0.20
    assert THRESHOLDS.sections["cut_detection"]["hard_cut_score"] == 0.25
