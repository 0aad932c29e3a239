"""The parts a time line is made of: one shared axis, tracks on it, and the reasons why a track has no chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from trendflow.presentation.formatting import clock, fixed, number
from trendflow.presentation.framed import Label, LegendItem
from trendflow.presentation.run_view import SEGMENTER, RunView
from trendflow.presentation.series import nice_range, time_ticks, value_range
from trendflow.presentation.svg import Chart
from trendflow.presentation.texts import empty_text

# Order of `event_type_id` (cut_detection).
EVENT_TYPES = ("hard_cut", "fade_in", "fade_out", "dissolve", "whip_pan", "zoom", "flash")
EVENT_TITLES = ("Hard cut", "Fade in", "Fade out", "Dissolve", "Whip pan", "Zoom", "Flash")
HARD_CUT = EVENT_TYPES.index("hard_cut")

# More cut lines than this behind every curve would hide the curve.
MAX_BACKGROUND_CUTS = 80


@dataclass(frozen=True)
class State:
    """Why a track has no chart: `kind` ∈ empty, error, skipped, none."""

    kind: str
    text: str
    code: str = ""


@dataclass(frozen=True)
class TimeLabel:
    """Text on the time axis, `left` percent from its start; `minor` ones give way on a phone.

    `place` ∈ first, last, "": text at an end of the axis stays inside it.
    """

    left: float
    text: str
    minor: bool = False
    place: str = ""


@dataclass(frozen=True)
class Lane:
    """One row of a heat strip."""

    name: str
    detail: str
    svg: Markup


@dataclass(frozen=True)
class Track:
    """A titled chart. `facts` stand beside the title; `decimals` is the precision of the pointer read-out."""

    id: str
    title: str
    about: str
    facts: Sequence[str] = ()
    svg: Markup | None = None
    size: str = "m"
    y_labels: Sequence[Label] = ()
    x_labels: Sequence[TimeLabel] = ()
    lanes: Sequence[Lane] = ()
    legend: Sequence[LegendItem] = ()
    state: State | None = None
    decimals: int | None = None


@dataclass(frozen=True)
class Axis:
    """The time axis all tracks share."""

    duration: float
    cuts: Sequence[float] = ()
    ticks: Sequence[float] = ()

    def chart(self, low: float = 0.0, high: float = 1.0, y_ticks: Sequence[float] = (), cuts: bool = True) -> Chart:
        chart = Chart((0.0, self.duration), (low, high))
        chart.grid(self.ticks, y_ticks)
        if cuts and len(self.cuts) <= MAX_BACKGROUND_CUTS:
            for at in self.cuts:
                chart.marker(at, "cutline")
        return chart

    def labels(self) -> list[TimeLabel]:
        shares = [100 * tick / self.duration for tick in self.ticks]
        places = ["first" if share < 2 else "last" if share > 97 else "" for share in shares]
        return [
            TimeLabel(share, clock(tick), k % 2 == 1, place)
            for k, (tick, share, place) in enumerate(zip(self.ticks, shares, places, strict=True))
        ]


def make_axis(view: RunView) -> Axis | None:
    """The axis of a run, or None when its source was not decoded."""
    segmenter, duration = view.components.get(SEGMENTER), view.duration_sec
    if segmenter is None or segmenter.status != "ok" or duration is None:
        return None
    cuts = view.arrays("cut_detection")
    times = cuts["event_time_s"][cuts["event_type_id"] == HARD_CUT].tolist() if "event_time_s" in cuts else []
    return Axis(duration, times, time_ticks(duration))


def component_state(view: RunView, component: str) -> State | None:
    """Why nothing can be drawn for a component: empty, failed or never run."""
    found = view.components.get(component)
    if found is None:
        return State("skipped", "Not run: " + (view.skipped_because(component) or "not part of this run") + ".")
    if found.status == "empty":
        return State("empty", empty_text(found.row["empty_reason"]), found.row["empty_reason"])
    if found.status == "error":
        return State("error", found.row["error"] or "The component failed.", found.row["error_code"])
    return None


def shot_label(index: int, start: float, end: float) -> str:
    return f"Shot {index + 1}: {clock(start, 1)}–{clock(end, 1)}, {fixed(end - start, 1, 's')}"


def curve(
    axis: Axis,
    track_id: str,
    title: str,
    about: str,
    times: np.ndarray,
    values: np.ndarray,
    unit: str,
    decimals: int,
    *,
    low: float | None = None,
    high: float | None = None,
    facts: Sequence[str] = (),
    color: str = "c-picture",
    fill: bool = True,
) -> Track:
    """A plain curve track. The value axis spans `low` … `high`, or the data when one is not given."""
    found = value_range(values)
    if found is None:
        return Track(track_id, title, about, facts, state=State("none", "No value was measured."))
    bottom, top, ticks = nice_range(found[0] if low is None else low, found[1] if high is None else high, 2)
    chart = axis.chart(bottom, top, ticks)
    chart.line(times, values, f"curve main {color}", f"area {color}" if fill else "")
    label = f"{title}: {number(found[0])} to {number(found[1])}{' ' + unit if unit else ''}"
    svg = chart.render(label, unit=unit)
    return Track(track_id, title, about, facts, svg, "m", axis_labels(ticks, bottom, top), decimals=decimals)


def axis_labels(ticks: Sequence[float], low: float, high: float) -> list[Label]:
    return [Label(100 * (high - tick) / (high - low), number(tick, 4)) for tick in ticks]


def rate_axis(values: np.ndarray, least: float) -> float:
    """Upper end of a value axis from 0 that shows every value and at least `least`."""
    found = value_range(values)
    return max(least, found[1]) if found else least


def peak(values: np.ndarray) -> float:
    found = value_range(values)
    return found[1] if found else float("nan")
