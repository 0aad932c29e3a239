"""The forecast of one video as one HTML file, from its prediction report, in the look of the run report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.presentation.blocks import Message, Tile
from trendflow.presentation.forecast_texts import (
    FAMILIES,
    bucket_title,
    comparator_title,
    head_order,
    head_title,
    order_lines,
    split_head,
)
from trendflow.presentation.formatting import (
    MISSING,
    compact,
    difference,
    elapsed,
    moment,
    number,
    percent,
    plural,
    short_hash,
)
from trendflow.presentation.framed import Framed, LegendItem, log_count_ticks, x_labels, y_labels
from trendflow.presentation.pages import asset, render_page
from trendflow.presentation.series import nice_range
from trendflow.presentation.svg import Chart
from trendflow.presentation.texts import warning_text

SYNTHETIC_NOTE = (
    "This forecast rests on made-up training data or on models with random weights. Its numbers mean nothing for a "
    "real video."
)
_TIERS = {"v2": "the model over shots (v2)", "v1": "the pooled model (v1)", "baseline": "the baseline"}
_INPUTS = {
    "first_snapshot": "the first snapshot of its counters",
    "feature_vector": "the feature vector of the run",
    "shot_tokens": "the tokens of its shots",
    "audio": "its sound",
}
_STEPS = {
    "inputs_missing": "lacks {missing}",
    "model_not_available": "is not there",
    "versions_differ": "was trained on other versions of the features",
}
_WARNINGS = {
    "channel_statistics_missing": "the counters of the channel are unknown",
    "document_captured_late": "its page, or the text handed in with the run, was captured too long after the first "
    "snapshot, so nothing of it is used",
    "likes_hidden": "likes are hidden, so they are not forecast",
    "most_features_missing": "most features of the model are missing",
}
_STATUS = {"ok": ("ok", "Forecast"), "degraded": ("warning", "Degraded"), "unavailable": ("error", "Unavailable")}
_STAGES = {
    "DataCollection": "First snapshot and choice of the model",
    "DataProcessor": "Features",
    "TextEmbedding": "Text embedding",
    "Encoder": "Encoder",
    "Fusion": "Fusion",
    "Heads": "Models",
    "Postprocess": "Intervals and drivers",
}
_LINEAR_UP_TO = 12.0  # times the median the upper end may be before a linear axis hides the median


@dataclass(frozen=True)
class HeadRow:
    """One horizon of one target, in counts, with what the formulas say."""

    title: str
    middle: str
    interval: str
    gain: str
    comparators: tuple[str, ...]
    coverage: str


@dataclass(frozen=True)
class DriverRow:
    """One driver: `side` ∈ up, down; `share` of the largest one, for the width of a bar."""

    name: str
    value: str
    effect: str
    side: str
    share: float


@dataclass(frozen=True)
class HeadDrivers:
    title: str
    rows: tuple[DriverRow, ...]
    others: str


def render_prediction_page(document: Mapping[str, Any]) -> str:
    """The page of a valid `prediction_report_v1`. The same report gives the same bytes; it loads and runs nothing."""
    return render_page("prediction.html.j2", _context(document))


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    heads = _heads(document)
    return {
        "title": f"{document['video_id']} · TrendFlow forecast",
        "synthetic": document["synthetic"],
        "document": document,
        "status": _STATUS[document["prediction_status"]],
        "header": _header(document),
        "messages": _messages(document),
        "tiles": _tiles(document, heads),
        "fans": [figure for target in ("views", "likes") if (figure := _fan(document, target, heads)) is not None],
        "comparators": [comparator_title(name) for name in (document["comparators"] or {})],
        "rows": [_row(document, head) for head in heads],
        "masked": [head_title(head) for head in _all_heads(document) if head not in heads],
        "drivers": [group for target in ("views", "likes") if (group := _drivers(document, target, heads))],
        "inputs": _inputs(document),
        "model": _model(document),
        "stages": [
            (_STAGES[row["stage"]], row["status"], elapsed(row["duration_ms"]), row["error_code"] or "")
            for row in document["stages"]
        ],
        "css": asset("report.css") + asset("blocks.css") + asset("framed.css") + asset("prediction.css"),
    }


def _all_heads(document: Mapping[str, Any]) -> list[str]:
    return sorted((document["outputs"] or {"heads": {}})["heads"], key=head_order)


def _heads(document: Mapping[str, Any]) -> list[str]:
    """Heads with numbers, views first, early first."""
    return [head for head in _all_heads(document) if not document["outputs"]["heads"][head]["masked"]]


def _header(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    used, seen = document["model_used"], document["inputs_summary"]
    age = seen["age_hours"]
    return [
        ("First snapshot", moment(document["timestamps"]["data_collection_at"])),
        ("Age then", MISSING if age is None else _age(age)),
        ("Processed", moment(document["timestamps"]["dataprocessor_run_created_at"])),
        ("Forecast made", moment(document["timestamps"]["inference_finished_at"])),
        ("Model", MISSING if used is None else used["model_version"]),
    ]


def _age(hours: float) -> str:
    return f"{hours:.0f}\u202fh" if hours < 72 else f"{hours / 24:.0f} days"


def _messages(document: Mapping[str, Any]) -> list[Message]:
    found = []
    if document["synthetic"]:
        found.append(Message("error", "SYNTHETIC", SYNTHETIC_NOTE))
    path = document["degraded_path"]
    if document["prediction_status"] == "unavailable":
        found.append(
            Message(
                "error",
                "There is no forecast",
                "No model could be used, and none was put in its place.",
                [_step(step) for step in path],
            )
        )
    elif path:
        used = _TIERS[document["model_used"]["tier"]]
        found.append(
            Message("warning", f"Made by {used}, not by the model that was asked for", "", [_step(s) for s in path])
        )
    found += _order_messages(document)
    told = [_WARNINGS[name] for name in document["inputs_summary"]["warnings"] if name in _WARNINGS]
    of_run = [warning_text(name) or name for name in document["inputs_summary"]["warnings"] if name not in _WARNINGS]
    if of_run:
        found.append(Message("skipped", "What the run of the video warned of", "", of_run))
    if told:
        found.append(Message("skipped", "What the forecast had to do without", "", [_sentence(text) for text in told]))
    return found


def _order_messages(document: Mapping[str, Any]) -> list[Message]:
    """Where the models contradicted each other, and what is shown instead."""
    lines = order_lines(document)
    if not lines:
        return []
    return [
        Message(
            "warning",
            "The models contradicted each other, and their forecasts were put in order",
            "Each quantile of each horizon is a model of its own. Here some had the count fall with time, or the lower "
            "end above the upper one. The same numbers are taken in ascending order, with the interval around them.",
            lines,
        )
    ]


def _step(step: Mapping[str, Any]) -> str:
    missing = " and ".join(_INPUTS[name] for name in step["missing"])
    why = _STEPS[step["reason"]].format(missing=missing)
    then = "No model is left." if step["to"] is None else f"Next: {_TIERS[step['to']]}."
    return f"{_sentence(_TIERS[step['from']])} {why}. {then}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(document: Mapping[str, Any], heads: list[str]) -> list[Tile]:
    tiles = []
    for target in ("views", "likes"):
        mine = [head for head in heads if split_head(head)[0] == target]
        for head in mine[-2:]:
            found = document["outputs"]["heads"][head]
            tiles.append(
                Tile(
                    head_title(head),
                    compact(found["absolute_p50"]),
                    f"{compact(found['absolute_p10'])} to {compact(found['absolute_p90'])}; "
                    f"{compact(found['delta_p50'])} more than at first",
                )
            )
    return tiles


def _row(document: Mapping[str, Any], head: str) -> HeadRow:
    found = document["outputs"]["heads"][head]
    formulas = document["comparators"].values()
    measured = document["interval"]["measured"].get(head) or {"coverage": None, "n": 0}
    coverage = MISSING
    if measured["coverage"] is not None:
        coverage = f"{percent(measured['coverage'])} of {plural(measured['n'], 'video')}"
        coverage += ", too few to mean much" if measured["low_n"] else ""
    return HeadRow(
        title=head_title(head),
        middle=compact(found["absolute_p50"]),
        interval=f"{compact(found['absolute_p10'])} – {compact(found['absolute_p90'])}",
        gain=f"+{compact(found['delta_p50'])}",
        comparators=tuple(_count((heads.get(head) or {}).get("absolute")) for heads in formulas),
        coverage=coverage,
    )


def _count(value: float | None) -> str:
    return MISSING if value is None else compact(value)


def _whole(value: int | None) -> str:
    return MISSING if value is None else f"{value}"


def _fan(document: Mapping[str, Any], target: str, heads: list[str]) -> Framed | None:
    """From the first count to the horizons: median, interval and what the formulas say. None without a forecast."""
    mine = [head for head in heads if split_head(head)[0] == target]
    x0 = document["inputs_summary"][f"x0_{target}"]
    if not mine or x0 is None:
        return None
    found = [document["outputs"]["heads"][head] for head in mine]
    days = np.array([0.0, *(float(split_head(head)[1]) for head in mine)])
    low, middle, high = (
        np.array([x0, *(one[f"absolute_{name}"] for one in found)], dtype=np.float64) for name in ("p10", "p50", "p90")
    )
    formulas = {
        name: np.array([x0, *(_or_nan(values[head]["absolute"]) for head in mine)])
        for name, values in document["comparators"].items()
    }
    bottom, top = float(low.min()), float(high.max())
    logarithmic = top > _LINEAR_UP_TO * max(float(middle.max()), 1.0)
    scale = np.log1p if logarithmic else np.positive
    y0, y1, ticks = _axis(bottom, top, logarithmic)
    chart = Chart((0.0, float(days[-1])), (y0, y1), height=300.0)
    chart.grid(days.tolist(), [place for place, _ in ticks])
    chart.between(days, scale(low), scale(high), "range c-picture")
    captions = ["The axis is logarithmic."] if logarithmic else []
    for name, values in formulas.items():
        drawn = scale(values)
        # Stretched to a formula that is far off, the picture would hide the forecast; clipped, it would show a lie.
        outside = ~((drawn >= y0) & (drawn <= y1)) & np.isfinite(drawn)
        chart.line(days, np.where(outside, np.nan, drawn), f"curve formula formula-{name}")
        chart.dots(days[1:], np.where(outside, np.nan, drawn)[1:], f"dot formula formula-{name}")
        if (np.diff(values) < 0).any():
            captions.append(f"{comparator_title(name)} falls: its line is fitted for each horizon alone.")
        if outside.any():
            last = int(np.flatnonzero(outside)[-1])
            captions.append(
                f"{comparator_title(name)} leaves the picture: {compact(values[last])} after {days[last]:.0f} days."
            )
    chart.line(days, scale(middle), "curve middle c-picture")
    chart.dots(days, scale(middle), "dot c-picture")
    return Framed(
        svg=chart.render(f"{target.capitalize()} from the first snapshot on"),
        x_labels=x_labels(chart, [(day, "start" if day == 0 else f"+{day:.0f} d") for day in days.tolist()]),
        y_labels=y_labels(chart, ticks),
        title=f"{target.capitalize()}: {compact(x0)} at the first snapshot",
        legend=[
            LegendItem("key-line c-picture", "median"),
            LegendItem("range c-picture", "10 % to 90 %"),
            *(LegendItem(f"key-line formula-{name}", comparator_title(name)) for name in formulas),
        ],
        caption=" ".join(captions),
        css="fig-l",
    )


def _axis(bottom: float, top: float, logarithmic: bool) -> tuple[float, float, list[tuple[float, str]]]:
    """Ends of the value axis on its own scale, with ticks, and some air above the forecast."""
    if logarithmic:
        low, high = math.log1p(bottom) - 0.1, math.log1p(top) + 0.3
        return low, high, log_count_ticks(low, high)
    low, high, places = nice_range(bottom, top + 0.15 * (top - bottom), 4)
    return low, high, [(place, compact(place)) for place in places]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _drivers(document: Mapping[str, Any], target: str, heads: list[str]) -> list[HeadDrivers]:
    """Of every horizon of one target."""
    known = (document["explainability"] or {"heads": {}})["heads"]
    return [_head_drivers(head, known[head]) for head in heads if head in known and split_head(head)[0] == target]


def _head_drivers(head: str, found: Mapping[str, Any]) -> HeadDrivers:
    rows = found["drivers"]
    top = max((abs(row["contribution"]) for row in rows), default=0.0) or 1.0
    return HeadDrivers(
        head_title(head),
        tuple(
            DriverRow(
                name=row["name"],
                value=_value(row["value"]),
                effect=_effect(row["contribution"]),
                side="up" if row["contribution"] > 0 else "down",
                share=abs(row["contribution"]) / top,
            )
            for row in rows
        ),
        _effect(found["others"]),
    )


def _value(value: float | str | None) -> str:
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else number(float(value))


def _effect(contribution: float) -> str:
    """A contribution on log1p of the gain, as the factor by which it moves the gain."""
    factor = math.exp(contribution)
    if abs(factor - 1) < 0.005:
        return "under 1\u202f%"
    if factor >= 2 or factor <= 0.5:
        return f"×\u202f{number(factor)}"
    return f"{difference(100 * (factor - 1), 0)}\u202f%"


def _inputs(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    seen = document["inputs_summary"]
    total, missing = seen["features_total"], seen["features_missing"]
    bucket = seen["age_bucket"]
    return [
        ("Frames looked at", _whole(seen["frames_used"])),
        ("Pieces of sound", _whole(seen["audio_segments_used"])),
        ("Comments read", "none, ever"),
        ("Measured in the run", ", ".join(FAMILIES[name].lower() for name in seen["modalities_present"]) or MISSING),
        ("Features of the model", MISSING if total is None else f"{total}, {missing} missing"),
        ("Views at first", _count(seen["x0_views"])),
        ("Likes at first", _count(seen["x0_likes"])),
        ("Age group", MISSING if bucket is None else bucket_title(bucket)),
    ]


def _model(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    used = document["model_used"]
    if used is None:
        return [("Asked for", _TIERS[document["model_requested"]["tier"]]), ("Used", "none")]
    digest = document["models_used"][0]["weights_digest"] if document["models_used"] else None
    return [
        ("Asked for", _TIERS[document["model_requested"]["tier"]]),
        ("Used", _TIERS[used["tier"]]),
        ("Training run", used["training_run_id"]),
        ("Dataset", short_hash(used["dataset_fingerprint"], 12)),
        ("Weights", short_hash(digest, 12)),
        ("Job", document["job_id"]),
    ]
