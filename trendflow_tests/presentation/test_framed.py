"""Axes of forecasts, and shapes whose positions must mean what the axis says."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.presentation.formatting import compact, interval
from trendflow.presentation.framed import log_count_ticks, x_labels, y_labels
from trendflow.presentation.svg import Chart


def shapes(chart: Chart) -> ET.Element:
    return ET.fromstring(str(chart.render("a chart")))


def test_an_area_runs_along_both_curves() -> None:
    chart = Chart((0.0, 10.0), (0.0, 100.0), height=100.0)
    chart.between(np.array([0.0, 10.0]), np.array([10.0, 20.0]), np.array([30.0, 250.0]), "range")
    (polygon,) = shapes(chart).findall("polygon")
    assert polygon.attrib["points"] == "0,70 1000,0 1000,80 0,90"  # 250 is clipped to the border


def test_a_cloud_holds_every_point_once() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 10, 50), rng.uniform(0, 10, 50)
    chart = Chart((0.0, 10.0), (0.0, 10.0), height=1000.0)
    chart.cloud(x, y, "cloud")
    (path,) = shapes(chart).findall("path")
    found = np.array(re.findall(r"M([\d.]+) ([\d.]+)h0", path.attrib["d"]), dtype=float)
    np.testing.assert_allclose(found, np.column_stack([100 * x, 1000 - 100 * y]), atol=0.006)


def test_a_histogram_is_darker_where_there_is_more() -> None:
    chart = Chart((0.0, 2.0), (0.0, 2.0), height=200.0)
    edges = np.array([0.0, 1.0, 2.0])
    chart.cells(edges, edges, np.array([[0.0, 1.0], [30.0, 1000.0]]), ("a", "b", "c", "d"))
    found = {path.attrib["class"]: path.attrib["d"] for path in shapes(chart).findall("path")}
    # log1p of 1, 30 and 1000 is 0.69, 3.4 and 6.9: the first, second and last quarter
    assert found == {
        "a": "M0 0H500V100H0z",
        "b": "M500 100H1000V200H500z",
        "d": "M500 0H1000V100H500z",
    }


@given(st.floats(0, 20), st.floats(0.5, 20))
def test_ticks_of_counts_are_round_and_inside(low: float, span: float) -> None:
    ticks = log_count_ticks(low, low + span)
    assert len(ticks) <= 8
    for at, name in ticks:
        assert low - 1e-6 <= at <= low + span + 1e-6
        assert name == compact(math.expm1(at))
        assert re.fullmatch(r"0|[125]0*[kMB]?", name)


def test_labels_stand_at_their_values_and_stay_inside() -> None:
    chart = Chart((0.0, 21.0), (0.0, 4.0), height=50.0)
    found = x_labels(chart, [(0.0, "now"), (7.0, "week"), (21.0, "end")])
    assert [(label.text, label.edge) for label in found] == [("now", "first"), ("week", ""), ("end", "last")]
    assert found[1].at == pytest.approx(100 / 3)
    assert [label.at for label in y_labels(chart, [(0.0, "0"), (1.0, "1"), (4.0, "4")])] == [100.0, 75.0, 0.0]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *[(0, "0"), (999.4, "999"), (999.6, "1k"), (1234, "1.23k"), (123_456, "123k"), (999_999, "1M")],
        *[(4_560_000, "4.56M"), (7.1e9, "7.1B"), (2.5e12, "2500B"), (-1500, "−1.5k"), (math.nan, "–")],
    ],
)
def test_large_counts_are_short(count: float, text: str) -> None:
    assert compact(count) == text


def test_an_interval_needs_both_ends() -> None:
    assert interval(0.12345, 0.2) == "[0.123, 0.200]"
    assert interval(math.nan, 0.2) == "–"
