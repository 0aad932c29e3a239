"""The report of SYNTHETIC training runs: complete, honest, self-contained, and within its window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.report import render_training_report
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.presentation.forecast_texts import COMPARATORS, head_title
from trendflow_tests.inference.manifests import HEADS, manifest
from trendflow_tests.presentation.fitting import fit
from trendflow_tests.presentation.page import Page
from trendflow_tests.training.report.synthetic import COMPARATORS as USED
from trendflow_tests.training.report.synthetic import head_metrics, metrics, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SYNTHETIC, with one head that does not beat persistence and one that is worse."""
    return write_run(
        tmp_path_factory.mktemp("run"),
        likes_7d=head_metrics(against_persistence=0.004),
        likes_21d=head_metrics(against_persistence=-0.03),
    )


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return render_training_report(folder).decode("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_documents_of_these_tests_are_such() -> None:
    schemas = SchemaRegistry.load()
    assert validate_document(schemas, "training_run_manifest_v1", manifest()) == []
    assert validate_document(schemas, "training_metrics_v1", metrics()) == []


def test_every_head_stands_beside_every_formula_with_n_and_interval(page: Page) -> None:
    for head in HEADS:
        assert head_title(head) in page.visible
    for name in USED:
        assert page.visible.count(COMPARATORS[name]) >= len(HEADS)
    assert "0.850 [0.830, 0.870]" in page.visible
    assert "n = 300, 150 channels" in page.visible
    assert "Younger than a day: 12 videos are too few to mean anything." in page.visible


def test_a_head_that_does_not_beat_persistence_is_said_first(page: Page) -> None:
    visible = page.visible
    assert "Beats persistence in 4 of 6 heads" in visible
    said = visible.index("The model does not beat log-linear persistence in 2 heads")
    assert said < visible.index("Model against formulas")
    formula = "“Persistence, count and age”"
    assert f"Likes after 7 days: no difference shown against {formula}, Spearman +0.004 [−0.006, +0.014]" in visible
    assert f"Likes after 21 days: worse than {formula}, Spearman −0.030 [−0.040, −0.020]" in visible
    assert visible.count("does not beat persistence") == 1
    assert visible.count("worse than persistence") == 1


def test_a_run_that_wins_everywhere_says_so_and_warns_of_nothing(tmp_path: Path) -> None:
    visible = Page(render_training_report(write_run(tmp_path, synthetic=False)).decode()).visible
    assert "Beats persistence in every head" in visible
    assert "does not beat" not in visible


def test_synthetic_data_are_stamped_and_real_ones_are_not(text: str, page: Page, tmp_path: Path) -> None:
    assert "<title>SYNTHETIC · " in text
    assert page.all("body", "synthetic")
    assert "SYNTHETIC" in page.visible
    real = render_training_report(write_run(tmp_path, synthetic=False)).decode()
    assert "SYNTHETIC" not in real.split("</style>")[1]
    assert not Page(real).all("body", "synthetic")


def test_cards_say_what_the_numbers_rest_on(page: Page) -> None:
    for words in (
        "abababababababab",
        "2025-06-01 to 2026-02-20",
        "no snapshot near the horizon 200, counter fell 12",
        "channel_id_missing",
        "most of their rows",
        "rearranged over levels and horizons, conformalised on val (CQR)",
        "Metadata and first snapshot + Picture + Sound",
        "Cut detection: cuts per minute",
        "There is nothing to judge by: the run was not compared with a current model.",
        "90\u202f%",
    ):
        assert words in page.visible


def test_folds_without_order_in_time_are_said(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics |= {"not_time_ordered": True, "evaluated_on": "pooled_folds"}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    visible = Page(render_training_report(copy).decode()).visible
    assert "Not ordered in time" in visible
    assert "pooled folds, not time ordered" in visible


def test_the_quality_gate_is_told_in_words(page: Page) -> None:
    assert "Shown to beat every formula, 14 and 21 days" in page.visible
    assert "Not likes after 21 days: Persistence, count and age" in page.visible
    assert "Holds in all 6 cases." in page.visible
    assert not [word for word in ("beats_comparators", "likes_21d", "loglinear", "not_judged") if word in page.visible]


def test_how_often_forecasts_were_put_in_order_is_said(page: Page) -> None:
    assert "Horizons put in order" in page.visible
    assert "17\u202f%" in page.visible
    assert "contradict each other in most" not in page.visible


def test_horizons_that_mostly_contradict_each_other_are_said_first(tmp_path: Path) -> None:
    head = head_metrics()
    head["repairs"]["rearranged"] = 0.91
    visible = Page(render_training_report(write_run(tmp_path, likes_14d=head)).decode()).visible
    said = visible.index("The horizons contradict each other in most forecasts")
    assert said < visible.index("Likes after 14 days: 91\u202f%") < visible.index("Model against formulas")


def test_a_dataset_without_metadata_and_metrics_without_extras_still_make_a_page(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "dataset_metadata.json").unlink()
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics |= {"importance": {}, "ablation": {}}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    visible = Page(render_training_report(copy).decode()).visible
    assert "What each family adds" not in visible
    assert "What the model rests on" not in visible


@pytest.mark.parametrize("name", ["metrics.json", "training_run_manifest.json", "predictions.parquet"])
def test_what_is_missing_or_broken_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / name).write_bytes(b"[")
    with pytest.raises(TrendFlowError, match=name) as caught:
        render_training_report(copy)
    assert caught.value.error_code == "artifact_validation_failed"
    (copy / name).unlink()
    with pytest.raises(TrendFlowError, match=name) as caught:
        render_training_report(copy)
    assert caught.value.error_code == "dependency_missing"


def test_it_needs_nothing_but_itself_and_runs_nothing(folder: Path, page: Page, text: str) -> None:
    assert not any(page.all(tag) for tag in ("link", "script", "img", "iframe"))
    assert "http" not in text.split("</style>")[1]
    assert render_training_report(folder).decode() == text


@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_fits_its_window(browser: str, text: str, width: int, tmp_path: Path) -> None:
    found = fit(browser, text, width, tmp_path)
    assert found["scroll"] <= found["inner"] == width
    assert (found["wide"], found["flat"]) == ([], [])
