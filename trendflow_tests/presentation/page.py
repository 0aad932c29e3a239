"""A strict little reader of report pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "img", "link", "br", "hr", "input"}


Element = tuple[str, dict[str, str | None]]


class Drawing:
    """One chart of a page, read back from its shapes into data units."""

    def __init__(self, frame: dict[str, str | None], shapes: list[Element]) -> None:
        self.frame, self.shapes = frame, shapes
        self.low, self.high = (float(frame[key] or "nan") for key in ("data-y0", "data-y1"))
        self.height = float((frame["viewbox"] or "").split()[3])

    def all(self, tag: str, css: str) -> list[dict[str, str | None]]:
        """Attributes of every `tag` with the class `css`."""
        return [attrs for name, attrs in self.shapes if name == tag and css in (attrs.get("class") or "").split()]

    def curves(self, css: str = "main") -> list[np.ndarray]:
        """Every unbroken piece of a curve: `[n, 2]` of the share of the time axis and the value."""
        pieces = []
        for line in self.all("polyline", css):
            x, y = np.array([pair.split(",") for pair in (line["points"] or "").split()], dtype=float).T
            pieces.append(np.column_stack([x / 1000, self.high - y / self.height * (self.high - self.low)]))
        return pieces

    def dots(self, css: str) -> list[float]:
        """Shares of the time axis where dots of a class stand."""
        return [float((dot["d"] or "").lstrip("M").split()[0]) / 1000 for dot in self.all("path", css)]


class Page(HTMLParser):
    """Elements, ids and text of a page; refuses tags that are closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        """Attributes of every `tag` that carries the class `css`."""
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (not css or css in (attrs.get("class") or "").split())
        ]

    def chart(self, label: str) -> Drawing:
        """The chart whose spoken label begins with `label`."""
        starts = [k for k, (tag, _) in enumerate(self.elements) if tag == "svg"]
        for start, stop in zip(starts, [*starts[1:], len(self.elements)], strict=True):
            frame = self.elements[start][1]
            if (frame.get("aria-label") or "").startswith(label):
                return Drawing(frame, self.elements[start + 1 : stop])
        raise AssertionError(f"no chart {label!r}")

    @property
    def visible(self) -> str:
        """Text with runs of plain white space collapsed; narrow spaces before units stay."""
        return re.sub(r"[ \n\t]+", " ", " ".join(self.text))
