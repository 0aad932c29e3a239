"""Figures of a SYNTHETIC run: every mark stands where its number says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from training.report.figures import (
    coverage_by_bucket,
    observed_shares,
    predicted_against_actual,
    predictors_in_order,
    quantile_reliability,
)
from training.report.run_files import ReportedRun, Rows, read_reported_run
from trendflow_tests.presentation.page import Drawing, Page
from trendflow_tests.training.report.synthetic import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ReportedRun:
    return read_reported_run(write_run(tmp_path_factory.mktemp("run"), n=400))


def rows(y: list[float], p50: list[float]) -> Rows:
    middle = np.array(p50)
    return Rows(np.array(y), middle - 1, middle, middle + 1)


def drawing(figure: object) -> Drawing:
    page = Page(str(figure.svg))  # type: ignore[attr-defined]
    frame = page.all("svg")[0]
    return Drawing(frame, page.elements[1:])


def test_few_videos_are_dots_and_exact_forecasts_lie_on_the_line() -> None:
    found = predicted_against_actual("views_7d", rows([1.0, 4.0, 9.0], [1.0, 4.0, 9.0]))
    assert found is not None
    (cloud,) = drawing(found).all("path", "cloud")
    points = [part.removesuffix("h0").split() for part in (cloud["d"] or "").split("M")[1:]]
    for x, y in points:
        assert float(x) == pytest.approx(1000 - float(y), abs=0.02)
    assert [label.text for label in found.x_labels] == ["0", "10", "100", "1k", "10k"]


def test_many_videos_become_a_histogram_over_the_same_axes() -> None:
    y = np.linspace(0, 10, 5000)
    found = predicted_against_actual("views_7d", rows(y.tolist(), y.tolist()))
    assert found is not None
    cells = [path for level in range(1, 5) for path in drawing(found).all("path", f"d-{level}")]
    corners = [part.split("H")[0].split() for path in cells for part in (path["d"] or "").split("M")[1:]]
    assert 40 <= len(corners) <= 44  # the diagonal, nothing else; the axis reaches a little beyond
    for x, top in corners:
        assert 1000 - float(top) == pytest.approx(float(x) + 1000 / 44, abs=0.02)


def test_no_rows_no_figure() -> None:
    assert predicted_against_actual("views_7d", rows([], [])) is None
    assert quantile_reliability({"views_7d": rows([], [])}) is None


def test_forecasts_stand_in_order_with_their_intervals(run: ReportedRun) -> None:
    """0.85 for the model; a constant has no order and no place."""
    found = predictors_in_order(run, "views_7d")
    assert found is not None
    assert [label.text for label in found.y_labels][:3] == ["Model", "Model, median shown", "Channel median"]
    drawn = drawing(found)
    low, high = 0.4, 1.0
    places = [low + (high - low) * share for share in drawn.dots("dot")]
    assert places == pytest.approx([0.85, 0.84, 0.45, 0.65, 0.75, 0.82, 0.80], abs=1e-3)
    whiskers = [low + (high - low) * piece[:, 0] for piece in drawn.curves("whisker")]
    assert whiskers[0] == pytest.approx([0.83, 0.87], abs=1e-3)


def test_shares_below_the_quantiles_of_a_known_law(run: ReportedRun) -> None:
    """y is normal around p50, so the shares are 10, 50 and 90 %, up to 400 draws."""
    for found in run.rows.values():
        shares = observed_shares(found)
        for name, level in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
            assert shares[name] == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 400))
    exact = rows([0.0, 1.0, 2.0, 3.0], [1.0] * 4)  # below 0, 1 and 2: one, two and three of four
    assert observed_shares(exact) == {"p10": 0.25, "p50": 0.5, "p90": 0.75}


def test_coverage_stands_at_its_value_beside_what_is_promised() -> None:
    part = {"n": 50, "value": 0.7, "low": 0.55, "high": 0.85}
    found = coverage_by_bucket("views_7d", {"overall": part, "<24h": {**part, "value": None}}, 0.8)
    assert found is not None
    drawn = drawing(found)
    assert drawn.dots("dot") == pytest.approx([0.5])  # of an axis from 0.4 to 1
    (whisker,) = drawn.curves("whisker")
    assert 0.4 + 0.6 * whisker[:, 0] == pytest.approx([0.55, 0.85])
    (level,) = drawn.all("line", "level")
    assert float(level["x1"] or "nan") == pytest.approx(1000 * 0.4 / 0.6, abs=0.01)
    assert found.caption == "all: 70\u202f% of 50"


def test_only_evaluated_rows_count(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write_run(tmp_path, n=50)
    table = pq.read_table(folder / "predictions.parquet")
    parts = pa.array(["train" if k % 5 else "test" for k in range(table.num_rows)])
    pq.write_table(table.set_column(table.column_names.index("part"), "part", parts), folder / "predictions.parquet")
    assert {len(found.y) for found in read_reported_run(folder).rows.values()} == {10}
