"""A strict little reader of report pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "link", "br", "hr", "input"}


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

    @property
    def visible(self) -> str:
        """Text with runs of plain white space collapsed; narrow spaces before units stay."""
        return re.sub(r"[ \n\t]+", " ", " ".join(self.text))
