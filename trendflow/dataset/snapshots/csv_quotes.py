"""Quotes of a CSV file: one that is never closed turns all that follows into a single field.

A parser that forgives that reports one bad record where thousands are lost. So every file is gone through once,
strictly, before it is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

from trendflow.contracts.errors import TrendFlowError


def checked_header(file: BinaryIO, name: str) -> list[str]:
    """The names of the columns of a CSV file in UTF-8, whose quotes are in order; leaves `file` at its beginning.

    Raises `input_constraint_violated` for a quote that is never closed, or closed in the middle of a field, or whose
    field swallowed the rows below it, and UnicodeDecodeError for another encoding.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        return _header(text, name)
    finally:
        text.detach()
        file.seek(0)


def _header(text: Iterable[str], name: str) -> list[str]:
    lines = _Lines(text)
    records = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        lines.begin_record()
        try:
            record = next(records, None)
        except csv.Error:
            raise _unclosed(lines, name) from None  # without the cause: it may quote the row
        if record is None:
            return header or []
        header = record if header is None else header
        if lines.held > 1 and len(record) != len(header):  # nobody could tell how many rows that was
            raise _unclosed(lines, name)


class _Lines(Iterator[str]):
    """Lines of a text, those of the record being read kept. `held`: how many those are."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self._first = 1
        self._record: list[str] = []

    def __next__(self) -> str:
        line = next(self._text)
        self._record.append(line)
        return line

    @property
    def held(self) -> int:
        return len(self._record)

    def begin_record(self) -> None:
        self._first += len(self._record)
        self._record.clear()

    def opened_last(self) -> int:
        """1-based line of the last quote that opens a field of this record, up to the first fault; 0 without any."""
        state: Literal["start", "plain", "quoted", "closed"] = "start"
        opened = 0
        for number, line in enumerate(self._record, self._first):
            for character in line:
                if state == "quoted":
                    state = "closed" if character == '"' else "quoted"
                elif character == '"' and state == "closed":  # two of them stand for one
                    state = "quoted"
                elif character == '"' and state == "start":
                    state, opened = "quoted", number
                elif character in ",\r\n":
                    state = "start"
                elif state == "closed":
                    return opened
                else:
                    state = "plain"
        return opened


def _unclosed(lines: _Lines, name: str) -> TrendFlowError:
    line = lines.opened_last()
    if not line:  # some field is longer than any text
        return TrendFlowError("artifact_validation_failed", f"{name} is not a readable CSV file in UTF-8.")
    return TrendFlowError(
        "input_constraint_violated", f"{name} has a quote in line {line} that is not closed in its field.", line=line
    )
