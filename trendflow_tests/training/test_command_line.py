"""`trendflow-train` as a user mistypes it: one sentence, and nothing is trained or written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training.cli import main


def command(*words: str) -> int:
    """The exit code of `trendflow-train WORDS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trendflow-train", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 3, "dependency_missing: The folder 'no-dataset' holds no dataset."),
        (["--family", "xgboost"], 2, "config_invalid: Unknown families: xgboost; known ones: catboost, lightgbm"),
        (["--seed", "-4"], 2, "config_invalid: Invalid value for '--seed'"),
        (["--famly", "catboost"], 2, "config_invalid: No such option: --famly"),
        (["--split", "random"], 2, "config_invalid: split.method:"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    artifacts = tmp_path / "runs"
    assert command("train", str(tmp_path / "no-dataset"), "--artifacts", str(artifacts), *words) == code
    told = capsys.readouterr().err
    assert told.startswith(sentence)
    assert told.count("\n") == 1
    assert not artifacts.exists()


def test_a_place_for_runs_that_is_a_file_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert command("train", str(tmp_path / "no-dataset"), "--artifacts", str(tmp_path / "file")) == 2
    assert capsys.readouterr().err.startswith("config_invalid: The output 'file' cannot be written")


def test_without_a_command_there_is_help_and_no_empty_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 2
    told = capsys.readouterr()
    assert "evaluate" in told.out
    assert told.err == ""
