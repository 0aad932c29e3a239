"""The prediction report: its schema and its numbers catch what no forecast may say."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.package_data import data_path
from trendflow.dataset.table.metadata_features import AGE_BUCKETS
from trendflow.inference.chain import INPUTS, REASONS, TIERS
from trendflow.inference.model_row import INPUT_WARNINGS
from trendflow.inference.outputs import head_outputs
from trendflow.inference.predict import Request, predict, read_models
from trendflow.inference.report import to_json, validate_report
from trendflow.inference.stages import STAGES
from trendflow_tests.inference.synthetic import SCHEMAS, run_inputs, snapshot

Document = dict[str, Any]
HEAD = "views_7d"


@pytest.fixture(scope="module")
def documents(model: Path) -> dict[str, Document]:
    """One of each `prediction_status`."""
    models = read_models([model], SCHEMAS)
    asked = {"ok": (None, snapshot()), "degraded": ("v1", snapshot()), "unavailable": (None, None)}
    return {
        status: predict(Request("job-1", run_inputs(), shot, models, requested=requested), SCHEMAS)
        for status, (requested, shot) in asked.items()
    }


def test_every_status_is_valid_and_survives_json(documents: dict[str, Document]) -> None:
    for status, document in documents.items():
        assert document["prediction_status"] == status
        assert validate_report(json.loads(to_json(document)), SCHEMAS) == []


def test_the_words_of_the_schema_are_those_of_the_program() -> None:
    """Closed lists: a word that only one side knows would fail for the first user who needs it."""
    schema = json.loads((data_path("schemas") / "prediction_report_v1.json").read_text("utf-8"))
    step = schema["properties"]["degraded_path"]["items"]["properties"]
    warnings = schema["properties"]["inputs_summary"]["properties"]["warnings"]["items"]["anyOf"][1]["enum"]
    stages = [item["properties"]["stage"]["const"] for item in schema["properties"]["stages"]["prefixItems"]]
    assert set(schema["$defs"]["tier"]["enum"]) == set(TIERS)
    assert set(step["reason"]["enum"]) == set(REASONS)
    assert set(step["missing"]["items"]["enum"]) == set(INPUTS)
    assert set(warnings) == set(INPUT_WARNINGS)
    assert stages == list(STAGES)
    assert set(schema["$defs"]["age_bucket"]["enum"]) == set(AGE_BUCKETS)


def head(document: Document) -> Document:
    found: Document = document["outputs"]["heads"][HEAD]
    return found


def twice(document: Document, name: str) -> Document:
    """A sound head with twice the gain of another."""
    x0 = float(document["inputs_summary"]["x0_views"])
    gains = [document["outputs"]["heads"][name][f"delta_{quantile}"] for quantile in ("p10", "p50", "p90")]
    return head_outputs(np.log1p(2 * np.array(gains)), x0)


SPOILT: dict[str, tuple[str, Callable[[Document], Any]]] = {
    "quantiles out of order": ("ok", lambda d: head(d).update(p10=1e9, absolute_p10=1e9, delta_p10=1e9 - 1200)),
    "below the first count": ("ok", lambda d: d["inputs_summary"].update(x0_views=1e9)),
    "absolute is not the sum": ("ok", lambda d: head(d).update(p50=1600.0, absolute_p50=1600.0)),
    "p50 is not absolute": ("ok", lambda d: head(d).update(p50=head(d)["p50"] + 1)),
    "delta is not expm1 of y": ("ok", lambda d: head(d).update(y_p50=head(d)["y_p50"] + 0.1)),
    "masked with numbers": ("ok", lambda d: head(d).update(masked=True)),
    "a number missing": ("ok", lambda d: head(d).update(p90=None)),
    "no first count": ("ok", lambda d: d["inputs_summary"].update(x0_views=None)),
    "numbers of no model": ("ok", lambda d: d.update(model_used=None)),
    "degraded without a path": ("ok", lambda d: d.update(prediction_status="degraded")),
    "ok with a path": ("degraded", lambda d: d.update(prediction_status="ok")),
    "a path that leads elsewhere": ("degraded", lambda d: d["degraded_path"][0].update(to="v2")),
    "a step without its reason": ("degraded", lambda d: d["degraded_path"][0].update(reason="because")),
    "inputs missing, none named": ("degraded", lambda d: d["degraded_path"][0].update(reason="inputs_missing")),
    "unavailable with numbers": ("ok", lambda d: d.update(prediction_status="unavailable")),
    "available without numbers": ("unavailable", lambda d: d.update(prediction_status="ok")),
    "comparators of other heads": ("ok", lambda d: d["comparators"]["velocity"].pop(HEAD)),
    "drivers that do not add up": ("ok", lambda d: d["explainability"]["heads"][HEAD].update(base=0.0)),
    "comments": ("ok", lambda d: d["inputs_summary"].update(comments_used=1)),
    "a text": ("ok", lambda d: d.update(title="a title")),
    "a path as a feature": (
        "ok",
        lambda d: d["explainability"]["heads"][HEAD]["drivers"][0].update(feature="/home/me/model"),
    ),
    "a long text as a value": (
        "ok",
        lambda d: d["explainability"]["heads"][HEAD]["drivers"][0].update(value="words " * 20),
    ),
    "a count that falls with time": ("ok", lambda d: d["outputs"]["heads"]["views_14d"].update(twice(d, "views_21d"))),
    "put in order, but no such head": ("ok", lambda d: d["outputs"]["put_in_order"]["horizons"].append("views_90d")),
    "a real report of a synthetic model": ("ok", lambda d: d["model_used"].update(synthetic=True)),
    "a failed stage that nobody noticed": (
        "ok",
        lambda d: d["stages"][5].update(status="error", error_code="internal_error"),
    ),
    "a stage left out": ("ok", lambda d: d["stages"].pop()),
    "stages in another order": ("ok", lambda d: d["stages"].reverse()),
    "an error without its code": ("unavailable", lambda d: d["stages"][0].update(status="error")),
    "an unknown warning": ("ok", lambda d: d["inputs_summary"]["warnings"].append("something")),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_no_forecast_may_say_is_found(documents: dict[str, Document], fault: str) -> None:
    status, spoil = SPOILT[fault]
    document = copy.deepcopy(documents[status])
    spoil(document)
    assert validate_report(document, SCHEMAS) != []


@given(
    y=st.tuples(*[st.floats(0, 25)] * 3).map(sorted),
    x0=st.one_of(st.floats(0, 1e9), st.just(math.nan)),
)
def test_every_head_the_model_can_give_is_valid(documents: dict[str, Document], y: list[float], x0: float) -> None:
    document = copy.deepcopy(documents["ok"])
    for name in ("views_7d", "views_14d", "views_21d"):
        document["outputs"]["heads"][name] = head_outputs(np.array(y), x0)
    document["inputs_summary"]["x0_views"] = None if math.isnan(x0) else x0
    assert validate_report(json.loads(to_json(document)), SCHEMAS) == []


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5))
def test_what_is_no_report_is_refused_without_an_exception(value: Any) -> None:
    assert validate_report(value, SCHEMAS) != []
