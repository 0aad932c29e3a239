"""Numbers in the drawing: positions must mean what the axis says."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.presentation.svg import Chart


def parse(chart: Chart, label: str = "a chart") -> ET.Element:
    return ET.fromstring(str(chart.render(label)))


def points(element: ET.Element) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in element.attrib["points"].split()])


@given(st.floats(0, 30))
def test_a_marker_stands_at_its_time(at: float) -> None:
    chart = Chart((0.0, 30.0))
    chart.marker(at, "cut")
    (line,) = parse(chart).findall("line")
    assert float(line.attrib["x1"]) == float(line.attrib["x2"]) == pytest.approx(1000 * at / 30, abs=0.006)


def test_a_curve_runs_through_its_points() -> None:
    chart = Chart((0.0, 10.0), (-30.0, -10.0), height=100.0)
    chart.line(np.array([0.0, 5.0, 10.0]), np.array([-30.0, -15.0, -10.0]), "c")
    (line,) = parse(chart).findall("polyline")
    np.testing.assert_allclose(points(line), [[0, 100], [500, 25], [1000, 0]])


def test_a_long_curve_keeps_its_extremes() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(0, 1, 30_000)
    y[12_345], y[23_456] = 9.0, -8.0
    chart = Chart((0.0, 29_999.0), (-10.0, 10.0), height=100.0)
    chart.line(np.arange(30_000.0), y, "c")
    drawn = np.concatenate([points(line) for line in parse(chart).findall("polyline")])
    assert len(drawn) <= 1000
    assert drawn[:, 1].min() == pytest.approx(100 - (9 + 10) * 5, abs=0.01)
    assert drawn[:, 1].max() == pytest.approx(100 - (-8 + 10) * 5, abs=0.01)
    assert drawn[np.argmin(drawn[:, 1]), 0] == pytest.approx(1000 * 12_345 / 29_999, abs=0.01)


def test_missing_values_break_the_curve_and_lone_values_are_dots() -> None:
    chart = Chart((0.0, 5.0), (0.0, 1.0))
    chart.line(np.arange(6.0), np.array([0.1, 0.2, np.nan, 0.9, np.nan, np.nan]), "c")
    root = parse(chart)
    assert [len(points(line)) for line in root.findall("polyline")] == [2]
    (dot,) = root.findall("path")
    assert dot.attrib["d"] == "M600 10h0"


def test_steps_hold_their_value_between_edges() -> None:
    chart = Chart((0.0, 4.0), (0.0, 2.0), height=100.0)
    chart.steps(np.array([0.0, 1.0, 2.0, 4.0]), np.array([0, 0, 2]), "c")
    (line,) = parse(chart).findall("polyline")
    np.testing.assert_allclose(points(line), [[0, 100], [500, 100], [500, 0], [1000, 0]])


def test_blocks_cover_the_cells_that_are_set() -> None:
    chart = Chart((0.0, 4.0))
    chart.blocks(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([True, True, False, True]), "h")
    (path,) = parse(chart).findall("path")
    assert path.attrib["d"] == "M0 0V100H500V0zM750 0V100H1000V0z"


def test_text_is_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    chart = Chart((0.0, 1.0))
    chart.band(0, 1, hostile, hostile)
    root = parse(chart, hostile)
    assert root.attrib["aria-label"] == hostile
    assert [element.tag for element in root.iter()] == ["svg", "g", "title", "rect"]
    assert root.find("g/title").text == hostile


@pytest.mark.parametrize("span", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_an_empty_axis_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="empty chart range"):
        Chart(span)
