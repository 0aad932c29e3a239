"""Charts as a picture of their own: one SVG file with axes, labels and colours, for viewers without style sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from trendflow.presentation.formatting import clock, number
from trendflow.presentation.series import time_ticks
from trendflow.presentation.svg import Chart
from trendflow.presentation.timeline import Axis

WIDTH = 900
LEFT, RIGHT, TOP, BOTTOM = 120, 16, 12, 24
_GAP = 18
_TEXT_RISE = 4  # from the middle of a line of text to its base line

# Hues that stay apart for colour-blind readers (after Okabe and Ito), dark enough for white paper.
COLORS = {"picture": "#0068ab", "content": "#7b3fa0", "audio": "#007a5c", "cut": "#c44e00"}
_STYLE = (
    "text{font:11px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#444c5a}.side{text-anchor:end}"
    ".mid{text-anchor:middle}.chart *{vector-effect:non-scaling-stroke}.grid{fill:none;stroke:#e4e7ec}"
    ".curve{fill:none;stroke:currentColor;stroke-width:1.3;stroke-linejoin:round}"
    ".area{fill:currentColor;opacity:.75}.level{stroke:#444c5a;stroke-dasharray:4 3}"
    ".faint{opacity:.35}.opening{fill:#c44e00;opacity:.1}"
    ".dot{fill:none;stroke:currentColor;stroke-width:5;stroke-linecap:round}"
    ".shot-0{fill:#f0f4f9}.shot-1{fill:#d9e3ef}.heat-1{opacity:.35}.heat-2{opacity:.65}.heat{fill:currentColor}"
    + "".join(f".c-{name}{{color:{color}}}" for name, color in COLORS.items())
)


@dataclass(frozen=True)
class Panel:
    """One chart over the time axis. `ticks` label its value axis, `title` stands beside it."""

    chart: Chart
    title: str
    ticks: Sequence[float] = ()
    height: int = 120


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a dot in one of `COLORS` and its meaning."""

    color: str
    text: str


def time_axis(end: float) -> Axis:
    """The axis from 0 to `end` seconds, at least one second long."""
    end = max(end, 1.0)
    return Axis(end, (), time_ticks(end))


def figure(axis: Axis, panels: Sequence[Panel], label: str, legend: Sequence[Key] = ()) -> bytes:
    """Panels above each other over one time axis, as SVG. `label` is what a screen reader says."""
    width = WIDTH - LEFT - RIGHT
    top = TOP + (16 if legend else 0)
    parts = [_legend(legend)]
    for panel in panels:
        parts.append(panel.chart.render(panel.title, place=(LEFT, top, width, panel.height)))
        parts += _side(panel, top)
        top += panel.height + _GAP
    foot = top - _GAP
    for tick in axis.ticks:
        parts.append(_text(LEFT + width * tick / axis.duration, foot + 15, clock(tick), "mid"))
    height = foot + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(label)}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    ).encode()


def _side(panel: Panel, top: float) -> list[Markup]:
    """The labels left of a panel: values at the axis and, further out, what they are."""
    places = [top + panel.height * panel.chart.y(tick) / panel.chart.height for tick in panel.ticks]
    made = [
        _text(LEFT - 6, place + _TEXT_RISE, number(tick, 4), "side")
        for tick, place in zip(panel.ticks, places, strict=True)
    ]
    middle = top + panel.height / 2
    if not panel.ticks:
        return [_text(LEFT - 6, middle + _TEXT_RISE, panel.title, "side")]
    turned = Markup('<text class="mid" transform="translate(14 {}) rotate(-90)">{}</text>')
    return [*made, turned.format(round(middle), panel.title)]


def _legend(keys: Sequence[Key]) -> Markup:
    made = Markup("")
    x = LEFT
    for key in keys:
        made += Markup('<circle class="c-{}" cx="{}" cy="9" r="4" fill="currentColor"/>').format(key.color, x + 4)
        made += _text(x + 13, 9 + _TEXT_RISE, key.text)
        x += 30 + round(6.2 * len(key.text))
    return made


def _text(x: float, y: float, text: str, css: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(css, x, y, text)
