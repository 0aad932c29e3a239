"""`trendflow predict` on a stored SYNTHETIC run: report and page are kept, refusals are one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.cli import main
from trendflow.inference.report import validate_report
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import store_run
from trendflow_tests.inference.synthetic import SCHEMAS
from trendflow_tests.presentation.page import Page

VALUES = "views=1200,likes=40,published=2026-03-01T12:00Z,at=2026-03-01T22:00Z,language=en"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment whose store holds one run, of a video whose id looks like an option."""
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    store = tmp_path / "home" / "store"
    store.mkdir(parents=True)
    store_run(ResultStore(ObjectStore.open(store.as_uri())), {"cuts_per_minute": 12.0}, video="-made-up")
    return store


@pytest.fixture
def predict(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trendflow", "predict", "-made-up/run-1", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return stop.value.code, *capsys.readouterr()

    return run


def test_report_and_page_are_kept_and_written(
    predict: Command, home: Path, metadata_model: Path, tmp_path: Path
) -> None:
    page, document = tmp_path / "page.html", tmp_path / "report.json"
    code, out, _ = predict(
        "--model", str(metadata_model), "--snapshot", VALUES, "-o", str(page), "--json", str(document)
    )
    assert code == 0
    assert "-made-up/run-1  ok" in out
    assert "Views after 14 days" in out
    report = json.loads(document.read_bytes())
    assert validate_report(report, SCHEMAS) == []
    assert "Forecast" in Page(page.read_text("utf-8")).visible
    kept = home / "render_cache/upload/-made-up/run-1"
    assert (kept / "forecast.html").read_bytes() == page.read_bytes()
    assert (kept / "prediction_report.json").read_bytes() == document.read_bytes()


def test_without_a_snapshot_it_says_that_there_is_none(predict: Command, metadata_model: Path) -> None:
    code, out, _ = predict("--model", str(metadata_model), "--request", "v1")
    assert code == 0
    assert "unavailable" in out
    assert "v1 → baseline  model_not_available" in out
    assert "baseline → none  inputs_missing: first_snapshot" in out


def test_a_model_of_other_versions_is_refused(predict: Command, model: Path) -> None:
    code, out, err = predict("--model", str(model), "--snapshot", VALUES)
    assert (code, out) == (3, "")
    assert "model_spec_invalid: The model was trained on cut_detection with version 1.2.0, the run has 1.0.0." in err


def test_a_synthetic_model_needs_permission(predict: Command, synthetic_model: Path) -> None:
    code, _, err = predict("--model", str(synthetic_model), "--snapshot", VALUES)
    assert code == 3
    assert "SYNTHETIC" in err


def test_bad_values_are_named_and_not_repeated(predict: Command, metadata_model: Path) -> None:
    code, _, err = predict("--model", str(metadata_model), "--snapshot", VALUES.replace("1200", "secret"))
    assert code == 2
    assert "'views'" in err
    assert "secret" not in err
