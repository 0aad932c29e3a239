"""Shots, transitions and the pace of the picture."""

from __future__ import annotations

import numpy as np

from trendflow.presentation.formatting import clock, fixed, number, plural
from trendflow.presentation.framed import LegendItem
from trendflow.presentation.measures import MIN_CHANGE_AXIS, MIN_COLOR_AXIS
from trendflow.presentation.run_view import Arrays, RunView
from trendflow.presentation.series import value_range
from trendflow.presentation.svg import Chart
from trendflow.presentation.timeline import (
    EVENT_TITLES,
    EVENT_TYPES,
    HARD_CUT,
    Axis,
    TimeLabel,
    Track,
    axis_labels,
    component_state,
    curve,
    peak,
    rate_axis,
    shot_label,
)

# A shot narrower than this share of the axis has no room for its number.
MIN_LABEL_SHARE = 0.025
MIN_LABEL_SHARE_PHONE = 0.07


def shots(view: RunView, axis: Axis) -> list[Track]:
    arrays = view.arrays("cut_detection")
    about = "Shots as alternating bands; boundaries and transitions as marks."
    state = component_state(view, "cut_detection")
    if state is not None:
        return [Track("shots", "Shots and cuts", about, state=state)]
    starts, ends = arrays["shot_start_time_s"], arrays["shot_end_time_s"]
    chart = axis.chart(cuts=False)
    labels = []
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        chart.band(start, end, f"shot shot-{k % 2}", shot_label(k, start, end))
        share = (end - start) / axis.duration
        if share >= MIN_LABEL_SHARE:
            labels.append(TimeLabel(50 * (start + end) / axis.duration, str(k + 1), share < MIN_LABEL_SHARE_PHONE))
    types = arrays["event_type_id"].tolist()
    for k, kind in enumerate(types):
        _draw_event(chart, arrays, k, kind)
    present = sorted(set(types))
    legend = [LegendItem(f"ev ev-{EVENT_TYPES[kind]}", EVENT_TITLES[kind]) for kind in present]
    facts = [plural(len(starts), "shot"), plural(types.count(HARD_CUT), "hard cut")]
    tracks = [
        Track(
            "shots",
            "Shots and cuts",
            about,
            facts,
            chart.render(f"{facts[0]} and {facts[1]} over {clock(axis.duration)}"),
            "s",
            x_labels=labels,
            legend=legend,
        )
    ]
    if "pts_sec" in view.dense and len(arrays["cut_score"]):
        tracks.append(
            curve(
                axis,
                "cut-score",
                "Cut score",
                "How strongly colour and structure change between neighbouring frames; every source frame.",
                view.dense["pts_sec"],
                arrays["cut_score"],
                "",
                2,
                low=0.0,
                high=1.0,
                facts=[f"max {number(peak(arrays['cut_score']), 2)}"],
                color="c-cut",
            )
        )
    return tracks


def _draw_event(chart: Chart, arrays: Arrays, k: int, kind: int) -> None:
    at, start, end = (float(arrays[f"event_{part}time_s"][k]) for part in ("", "start_", "end_"))
    title = f"{EVENT_TITLES[kind]} at {clock(at, 2)}, strength {fixed(float(arrays['event_strength'][k]), 2)}"
    if kind == HARD_CUT:
        if arrays["event_is_jump_cut"][k]:
            title += ", jump cut"
        chart.marker(at, "ev-hard_cut", title)
    elif end > start:
        chart.band(start, end, f"ev-{EVENT_TYPES[kind]}", title, high=0.3)
    else:
        chart.marker(at, f"ev-{EVENT_TYPES[kind]}", title, high=0.3)


def pace(view: RunView, axis: Axis) -> list[Track]:
    """Cut density, and how fast image embedding and colour change."""
    state = component_state(view, "video_pacing")
    if state is not None:
        return [Track("pace", "Pace", "How fast the picture changes and how dense cuts are.", state=state)]
    arrays = view.arrays("video_pacing")
    value = view.components["video_pacing"].feature
    return [
        _cut_density(arrays["cut_density_8"].astype(np.float64) * 60, value("cuts_per_10s_max"), axis),
        curve(
            axis,
            "semantic-rate",
            "Content change rate",
            "1 − cosine of the image embeddings of neighbouring samples, divided by the time between them.",
            arrays["times_s"],
            arrays["semantic_change_rate_per_sec"],
            "per s",
            3,
            low=0.0,
            high=rate_axis(arrays["semantic_change_rate_per_sec"], MIN_CHANGE_AXIS),
            facts=[f"mean {number(value('semantic_change_rate_mean'), 2)} per s"],
            color="c-content",
        ),
        curve(
            axis,
            "color-rate",
            "Colour change rate",
            "Mean CIE76 colour difference ΔE of neighbouring samples, divided by the time between them.",
            arrays["times_s"],
            arrays["color_change_rate_per_sec"],
            "ΔE per s",
            1,
            low=0.0,
            high=rate_axis(arrays["color_change_rate_per_sec"], MIN_COLOR_AXIS),
            facts=[f"mean {number(value('color_change_rate_mean'), 2)} ΔE per s"],
            color="c-picture",
        ),
    ]


def _cut_density(per_minute: np.ndarray, at_most_in_10s: float, axis: Axis) -> Track:
    top = max(1.0, peak(per_minute)) if value_range(per_minute) else 1.0
    ticks = (0.0, top)
    chart = axis.chart(0.0, top * 1.08, ticks)
    edges = np.linspace(0.0, axis.duration, len(per_minute) + 1)
    chart.steps(edges, per_minute, "curve main c-cut", "area c-cut")
    facts = [f"at most {number(at_most_in_10s)} in 10 s"] if np.isfinite(at_most_in_10s) else []
    return Track(
        "cut-density",
        "Cuts per minute",
        "Hard cuts per minute in each eighth of the video.",
        facts,
        chart.render("Cuts per minute in each eighth of the video", unit="per min"),
        "s",
        axis_labels(ticks, 0.0, top * 1.08),
        decimals=1,
    )
