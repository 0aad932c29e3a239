"""The health page of SYNTHETIC corpora: complete, self-contained, escaped, and within its window."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from trendflow.dataset.health import assess
from trendflow.dataset.health_document import read_reference, to_json
from trendflow.dataset.health_model import HealthReport
from trendflow.presentation.health_page import render_health_page
from trendflow_tests.dataset.synthetic import COMPONENT, SCHEMAS, outcome, readings, record
from trendflow_tests.presentation.fitting import fit
from trendflow_tests.presentation.page import Page

ROWS = 320
RNG = np.random.default_rng(4)
COLUMNS = {
    "cuts_per_minute": RNG.gamma(2, size=ROWS),
    "short_ratio": np.where(np.arange(ROWS) < 5, 1.5, RNG.random(ROWS)),
    "shot_duration_max_s": np.full(ROWS, 3.0),
    "first_cut_time_s": np.where(np.arange(ROWS) % 3 > 0, np.nan, RNG.random(ROWS)),
    "never": np.full(ROWS, np.nan),
}


@pytest.fixture(scope="module")
def report() -> HealthReport:
    """With something of everything the page can show."""
    before = {**COLUMNS, "cuts_per_minute": COLUMNS["cuts_per_minute"] + 2}
    copies = {**COLUMNS, "zoom_per_min": 3 * COLUMNS["cuts_per_minute"] + 1}
    records = [
        record(k, outcomes={COMPONENT: outcome(cache_hit=k % 4 == 0, shortfall=k < 7)}, has_document=True)
        for k in range(ROWS)
    ]
    made = readings(copies, records=records, reasons={"first_cut_time_s": "no_detections_above_threshold"})
    failed = record(ROWS, successful=False, outcomes={COMPONENT: outcome(status="error", error_code="timeout")})
    corpus = dataclasses.replace(made.corpus, latest=(*made.corpus.latest, failed), n_runs=ROWS + 1)
    reference = read_reference(to_json(assess(readings(before))), SCHEMAS)
    return assess(dataclasses.replace(made, corpus=corpus), reference)


@pytest.fixture(scope="module")
def page(report: HealthReport) -> Page:
    return Page(render_health_page(report))


def test_every_verdict_finding_column_and_pair_is_there(report: HealthReport, page: Page) -> None:
    for check in report.checks:
        assert check.rule in page.visible
        assert check.summary in page.visible
    assert {finding.check for finding in report.findings} >= {"nan_rate", "constants", "ranges", "duplicates", "drift"}
    for finding in report.findings:
        assert finding.text in page.visible
    for health in report.columns:
        assert health.name.removeprefix(f"{COMPONENT}__").removesuffix("__value") in page.visible
    assert "cut_detection · cuts_per_minute" in page.visible
    assert "1 without a comparable vector" in page.visible
    assert "timeout 1" in page.visible
    assert len(page.all("svg", "spark")) == 4  # a constant and what was never measured have no distribution


def test_a_distribution_is_drawn_as_it_is(page: Page) -> None:
    """Of a gamma with shape 2 the first half of the range to the 99th percentile holds most of the mass."""
    drawing = page.chart("Distribution from 0.")
    (curve,) = drawing.curves("curve")
    left = curve[curve[:, 0] <= 0.5][:, 1].sum()
    assert left > 0.75 * curve[:, 1].sum()
    assert curve[:, 1].max() == pytest.approx(drawing.high)


def test_a_fault_in_hundreds_of_features_still_gives_a_page_that_names_every_rule() -> None:
    """A hundred copies of one column are 4950 pairs; a range is broken as well."""
    copies = {f"copy_{k:03d}": RNG.normal() * COLUMNS["cuts_per_minute"] for k in range(100)}
    spoilt = assess(readings({**copies, "short_ratio": COLUMNS["short_ratio"]}))
    assert len(spoilt.pairs) == 100 * 99 // 2
    visible = Page(render_health_page(spoilt)).visible
    assert "and 4750 more; the JSON document has all." in visible
    assert "5 of 320 values lie outside [0, 1]" in visible


def test_few_runs_are_said_and_nothing_is_called_passed() -> None:
    small = assess(readings({name: values[20:32] for name, values in COLUMNS.items()}))
    visible = Page(render_health_page(small)).visible
    assert "not enough runs: 12 of 200" in visible
    assert "constants need 200" in visible
    assert "Not judged in full" in visible
    assert "Passed" not in visible


def test_it_needs_nothing_but_itself_and_runs_nothing(report: HealthReport, page: Page) -> None:
    assert not any(page.all(tag) for tag in ("link", "script", "img", "iframe"))
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    hostile = dataclasses.replace(report, profile="<script>alert(1)</script>")
    assert "<script" not in render_health_page(hostile)


@pytest.mark.parametrize("width", [360, 390, 1366])
def test_the_page_fits_its_window(browser: str, report: HealthReport, width: int, tmp_path: Path) -> None:
    found = fit(browser, render_health_page(report), width, tmp_path)
    assert found["scroll"] <= found["inner"] == width
    assert (found["wide"], found["flat"]) == ([], [])
