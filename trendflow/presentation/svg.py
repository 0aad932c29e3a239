"""A small SVG chart: one time axis, one value axis, no text.

Charts stretch to their box (`preserveAspectRatio="none"`) while strokes keep their width, so one drawing serves a
laptop and a phone; labels are HTML beside it, because text must not stretch. Colours come from CSS classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape

from trendflow.presentation.series import MAX_POINTS, finite_runs, thin

WIDTH = 1000.0


def _n(value: float) -> str:
    """A coordinate with at most two decimals, as short as possible."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


class Chart:
    """Collects shapes given in data units and writes them as one `<svg>`.

    x runs over [x0, x1] on 0…1000 units, y over [y0, y1] on `height`…0 units (values grow upwards).
    """

    def __init__(
        self, x_range: tuple[float, float], y_range: tuple[float, float] = (0.0, 1.0), height: float = 100.0
    ) -> None:
        self.x0, self.x1 = x_range
        self.y0, self.y1 = y_range
        self.height = height
        if not self.x1 > self.x0 or not self.y1 > self.y0:
            raise ValueError(f"empty chart range {x_range = } {y_range = }")
        self._shapes: list[str] = []
        self._clipped = False

    def x(self, value: float) -> float:
        return (value - self.x0) / (self.x1 - self.x0) * WIDTH

    def y(self, value: float) -> float:
        return self.height - (value - self.y0) / (self.y1 - self.y0) * self.height

    def _add(self, shape: str, title: str = "") -> None:
        self._shapes.append(f"<g><title>{escape(title)}</title>{shape}</g>" if title else shape)

    def grid(self, x_ticks: Iterable[float], y_ticks: Iterable[float] = ()) -> None:
        """Faint lines at the ticks, drawn as one path to stay small."""
        parts = [f"M{_n(self.x(t))} 0V{_n(self.height)}" for t in x_ticks]
        parts += [f"M0 {_n(self.y(v))}H{_n(WIDTH)}" for v in y_ticks]
        if parts:
            self._add(f'<path class="grid" d="{"".join(parts)}"/>')

    def band(self, start: float, stop: float, css: str, title: str = "", low: float = 0.0, high: float = 1.0) -> None:
        """A filled block from `start` to `stop`; `low` and `high` are shares of the height from the bottom."""
        left, right = self.x(start), self.x(stop)
        top, bottom = self.height * (1 - high), self.height * (1 - low)
        self._add(
            f'<rect class="{escape(css)}" x="{_n(left)}" y="{_n(top)}" '
            f'width="{_n(right - left)}" height="{_n(bottom - top)}"/>',
            title,
        )

    def marker(self, at: float, css: str, title: str = "", low: float = 0.0, high: float = 1.0) -> None:
        """A vertical line. With a title it gets a wide invisible twin, so that a pointer can find it."""
        place = _n(self.x(at))
        ends = f'x1="{place}" x2="{place}" y1="{_n(self.height * (1 - high))}" y2="{_n(self.height * (1 - low))}"'
        line = f'<line class="{escape(css)}" {ends}/>'
        self._add(f'<line class="hit" {ends}/>{line}' if title else line, title)

    def level(self, value: float, css: str) -> None:
        """A horizontal line at `value`."""
        place = _n(self.y(value))
        self._add(f'<line class="{escape(css)}" x1="0" x2="{_n(WIDTH)}" y1="{place}" y2="{place}"/>')

    def line(self, x: np.ndarray, y: np.ndarray, css: str, fill_css: str = "", max_points: int = MAX_POINTS) -> None:
        """A curve with gaps where `y` is not finite; with `fill_css` the area below it is filled.

        A single finite value between gaps is drawn as a dot. Values outside the axis are clipped to its border, and the
        chart says so (`data-clipped`).
        """
        x, y = thin(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), max_points)
        px = (x - self.x0) / (self.x1 - self.x0) * WIDTH
        self._clipped |= bool((y > self.y1 + 1e-9 * abs(self.y1)).any())
        py = self.height - (np.clip(y, self.y0, self.y1) - self.y0) / (self.y1 - self.y0) * self.height
        for run in finite_runs(y):
            points = [f"{_n(a)},{_n(b)}" for a, b in zip(px[run], py[run], strict=True)]
            if len(points) == 1:
                self._dot(px[run][0], py[run][0], css + " dot")
                continue
            if fill_css:
                base = f"{_n(px[run][-1])},{_n(self.height)} {_n(px[run][0])},{_n(self.height)}"
                self._add(f'<polygon class="{escape(fill_css)}" points="{" ".join(points)} {base}"/>')
            self._add(f'<polyline class="{escape(css)}" points="{" ".join(points)}"/>')

    def between(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str) -> None:
        """The area between two curves over `x` `[N]`, all finite; clipped to the border of the value axis."""
        around = np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])])
        places = (f"{_n(self.x(a))},{_n(self.y(b))}" for a, b in np.clip(around, (-np.inf, self.y0), (np.inf, self.y1)))
        self._add(f'<polygon class="{escape(css)}" points="{" ".join(places)}"/>')

    def steps(self, edges: np.ndarray, y: np.ndarray, css: str, fill_css: str = "") -> None:
        """Values `y` `[N]` that hold between `edges` `[N+1]`, as a staircase of its change points only."""
        y = np.asarray(y, dtype=np.float64)
        if not len(y):
            return
        change = np.flatnonzero(np.concatenate([[True], y[1:] != y[:-1]]))
        starts = edges[change]
        stops = np.concatenate([edges[change[1:]], edges[-1:]])
        self.line(np.column_stack([starts, stops]).ravel(), np.repeat(y[change], 2), css, fill_css)

    def blocks(self, edges: np.ndarray, on: np.ndarray, css: str) -> None:
        """Full-height blocks over the cells between `edges` `[N+1]` where `on` `[N]` is set, as one path."""
        steps = np.diff(np.concatenate([[0], np.asarray(on, dtype=np.int8), [0]]))
        starts, stops = edges[np.flatnonzero(steps == 1)], edges[np.flatnonzero(steps == -1)]
        path = "".join(
            f"M{_n(self.x(a))} 0V{_n(self.height)}H{_n(self.x(b))}V0z" for a, b in zip(starts, stops, strict=True)
        )
        if path:
            self._add(f'<path class="{escape(css)}" d="{path}"/>')

    def dots(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, css: str) -> None:
        """Round points; values that are not finite are left out."""
        for a, b in zip(x, y, strict=True):
            if np.isfinite(a) and np.isfinite(b):
                self._dot(self.x(float(a)), self.y(float(np.clip(b, self.y0, self.y1))), css)

    def cloud(self, x: np.ndarray, y: np.ndarray, css: str) -> None:
        """Many round points in one path; all finite, clipped to the border of the axes."""
        px = np.clip(x, self.x0, self.x1)
        py = np.clip(y, self.y0, self.y1)
        path = "".join(f"M{_n(self.x(a))} {_n(self.y(b))}h0" for a, b in zip(px, py, strict=True))
        if path:
            self._add(f'<path class="{escape(css)}" d="{path}"/>')

    def cells(self, x_edges: np.ndarray, y_edges: np.ndarray, counts: np.ndarray, css: Sequence[str]) -> None:
        """A histogram over two axes: `counts` `[X,Y]` in the cells between the edges, one path per class of `css`.

        The classes stand for equal steps of the logarithm of the count, from one to the largest; empty cells stay free.
        """
        top = max(float(counts.max(initial=0)), 2.0)
        level = np.ceil(len(css) * np.log1p(counts) / np.log1p(top)).astype(np.int64)
        for index, name in enumerate(css, start=1):
            path = "".join(
                f"M{_n(self.x(x_edges[i]))} {_n(self.y(y_edges[j + 1]))}H{_n(self.x(x_edges[i + 1]))}"
                f"V{_n(self.y(y_edges[j]))}H{_n(self.x(x_edges[i]))}z"
                for i, j in np.argwhere(level == index)
            )
            if path:
                self._add(f'<path class="{escape(name)}" d="{path}"/>')

    def _dot(self, px: float, py: float, css: str) -> None:
        # A zero-length line with a round cap stays round when the drawing is stretched; a circle would not.
        self._add(f'<path class="{escape(css)}" d="M{_n(px)} {_n(py)}h0"/>')

    def render(
        self, label: str, css: str = "", unit: str = "", place: tuple[float, float, float, float] | None = None
    ) -> Markup:
        """The finished `<svg>`; `label` is what a screen reader says, `unit` belongs to the value axis.

        `place` (x, y, width, height) is the chart's box inside a larger drawing; without it the style sheet decides.
        """
        box = ""
        if place is not None:
            box = ' x="{}" y="{}" width="{}" height="{}"'.format(*map(_n, place))
        axis = f' data-y0="{self.y0:.6g}" data-y1="{self.y1:.6g}" data-unit="{escape(unit)}"'
        if self._clipped:
            axis += " data-clipped"
        return Markup(
            f'<svg class="chart {escape(css)}"{box} viewBox="0 0 {_n(WIDTH)} {_n(self.height)}" '
            f'preserveAspectRatio="none" role="img" aria-label="{escape(label)}"{axis}>'
            f"{''.join(self._shapes)}</svg>"
        )
