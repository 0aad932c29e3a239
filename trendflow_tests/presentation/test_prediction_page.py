"""The page of a forecast from SYNTHETIC models: what it says, what it draws, and that it needs nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.inference.predict import Request, predict, read_models
from trendflow.presentation.forecast_texts import head_order, head_title
from trendflow.presentation.formatting import compact
from trendflow.presentation.prediction_page import render_prediction_page
from trendflow_tests.inference.synthetic import SCHEMAS, run_inputs, snapshot, write_model
from trendflow_tests.presentation.fitting import fit
from trendflow_tests.presentation.page import Page


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_models([write_model(tmp_path_factory.mktemp("model"), synthetic=True)], SCHEMAS)


@pytest.fixture(scope="module")
def document(models: dict[str, Any]) -> dict[str, Any]:
    """SYNTHETIC and degraded, with all six heads."""
    request = Request("job-1", run_inputs(), snapshot(), models, requested="v2", allow_synthetic=True)
    return predict(request, SCHEMAS)


def test_every_number_is_there(document: dict[str, Any]) -> None:
    visible = Page(render_prediction_page(document)).visible
    for head, found in document["outputs"]["heads"].items():
        assert head_title(head) in visible
        for name in ("absolute_p10", "absolute_p50", "absolute_p90", "delta_p50"):
            assert compact(found[name]) in visible
        for formula in document["comparators"].values():
            assert compact(formula[head]["absolute"]) in visible
    assert "81\u202f% of 120 videos" in visible


def test_the_fan_runs_from_the_first_count_through_the_quantiles(document: dict[str, Any]) -> None:
    drawing = Page(render_prediction_page(document)).chart("Views from the first snapshot on")
    heads = [document["outputs"]["heads"][f"views_{days}d"] for days in (7, 14, 21)]
    (middle,) = drawing.curves("middle")
    np.testing.assert_allclose(middle[:, 0] * 21, [0, 7, 14, 21], atol=0.01)
    np.testing.assert_allclose(middle[:, 1], [1200, *(head["p50"] for head in heads)], rtol=2e-3)
    (band,) = drawing.all("polygon", "range")
    y = np.array([pair.split(",")[1] for pair in (band["points"] or "").split()], dtype=float)
    values = drawing.high - y / drawing.height * (drawing.high - drawing.low)
    expected = [1200, *(head["p90"] for head in heads), *(head["p10"] for head in heads[::-1]), 1200]
    np.testing.assert_allclose(values, expected, rtol=2e-3)


def test_a_wide_forecast_gets_a_logarithmic_axis_that_says_so(document: dict[str, Any]) -> None:
    wide = copy.deepcopy(document)
    for days in (7, 14, 21):
        wide["outputs"]["heads"][f"views_{days}d"].update(p90=4e6, absolute_p90=4e6)
    page = Page(render_prediction_page(wide))
    assert "The axis is logarithmic." in page.visible
    (middle,) = page.chart("Views from the first snapshot on").curves("middle")
    assert middle[0, 1] == pytest.approx(np.log1p(1200), abs=0.05)


def test_degraded_synthetic_and_unavailable_are_said_first(models: dict[str, Any], document: dict[str, Any]) -> None:
    text = render_prediction_page(document)
    page = Page(text)
    assert "SYNTHETIC" in page.visible
    assert "<title>SYNTHETIC" in text
    assert page.all("body", "synthetic")
    assert "The model over shots (v2) is not there. Next: the pooled model (v1)." in page.visible
    silent = predict(Request("job-1", run_inputs(), None, models, allow_synthetic=True), SCHEMAS)
    page = Page(render_prediction_page(silent))
    assert "There is no forecast" in page.visible
    assert "The baseline lacks the first snapshot of its counters. No model is left." in page.visible
    assert not page.all("svg")
    assert not any(head_title(head) in page.visible for head in document["outputs"]["heads"])


def test_forecasts_that_were_put_in_order_are_said(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["outputs"]["put_in_order"] = {"horizons": ["views_21d", "views_14d"], "levels": ["likes_7d"]}
    visible = Page(render_prediction_page(changed)).visible
    said = visible.index("The models contradicted each other, and their forecasts were put in order")
    assert said < visible.index("What to expect")
    assert "Moved to another horizon: Views after 14 days, Views after 21 days." in visible
    assert "Moved to another end of the interval: Likes after 7 days." in visible
    changed["outputs"]["put_in_order"] = {"horizons": [], "levels": []}
    assert "put in order" not in Page(render_prediction_page(changed)).visible


def test_warnings_of_the_run_are_told_in_words(document: dict[str, Any]) -> None:
    assert document["inputs_summary"]["warnings"] == ["sampling_shortfall"]
    visible = Page(render_prediction_page(document)).visible
    assert "A component got fewer frames than the minimum it asks for." in visible
    assert "sampling_shortfall" not in visible


def test_a_formula_that_falls_says_why(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["comparators"]["loglinear"]["views_21d"]["absolute"] = 1201.0
    visible = Page(render_prediction_page(changed)).visible
    assert "Persistence, count and age falls: its line is fitted for each horizon alone." in visible
    assert "Velocity so far falls" not in visible


def test_drivers_are_those_of_the_point_forecast(document: dict[str, Any]) -> None:
    assert document["explainability"]["of"] == "point"
    assert (
        "what moved the point forecast away from that of an average video"
        in Page(render_prediction_page(document)).visible
    )


def test_what_is_not_synthetic_does_not_say_so(document: dict[str, Any]) -> None:
    real = {**document, "synthetic": False}
    assert "SYNTHETIC" not in render_prediction_page(real).split("</style>")[1].replace("SYNTHETIC_", "")


def test_drivers_say_how_much_and_which_way(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    drivers = changed["explainability"]["heads"]["views_14d"]["drivers"]
    drivers[:] = [
        {"feature": "views_0", "name": "Views", "value": 1200.0, "contribution": float(np.log(3))},
        {"feature": "language", "name": "Language", "value": None, "contribution": float(np.log(0.8))},
    ]
    page = Page(render_prediction_page(changed))
    assert "×\u202f3" in page.visible
    assert "−20\u202f%" in page.visible
    assert len(page.all("li", "down")) >= 1


def test_it_is_escaped_and_runs_and_loads_nothing(document: dict[str, Any]) -> None:
    hostile = copy.deepcopy(document)
    hostile["video_id"] = "<script>alert(1)</script>"
    text = render_prediction_page(hostile)
    assert "<script" not in text
    page = Page(text)
    assert not any(page.all(tag) for tag in ("link", "script", "img", "iframe"))
    assert "http" not in text.split("</style>")[1]


def test_heads_are_read_in_order(document: dict[str, Any]) -> None:
    order = sorted(document["outputs"]["heads"], key=head_order)
    assert order == ["views_7d", "views_14d", "views_21d", "likes_7d", "likes_14d", "likes_21d"]


@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_fits_its_window(browser: str, document: dict[str, Any], width: int, tmp_path: Path) -> None:
    found = fit(browser, render_prediction_page(document), width, tmp_path)
    assert found["scroll"] <= found["inner"] == width
    assert (found["wide"], found["flat"]) == ([], [])
