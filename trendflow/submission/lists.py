"""Lists of videos: plain lines, CSV or JSON. One broken entry never stops the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_run_id
from trendflow.submission.message import PRIORITIES, Priority
from trendflow.submission.sources import Source, parse_source, parse_url

ListForm = Literal["lines", "csv", "json"]
LIST_FORMS: tuple[ListForm, ...] = get_args(ListForm)
MAX_LIST_BYTES = 16 << 20
MAX_ENTRIES = 10_000
COLUMNS = ("source", "video_id", "run_id", "priority")
"""What an entry of a CSV or JSON list may state; `source` is required."""
_SHOWN = 80
"""Characters of a refused header that its refusal repeats."""


@dataclass(frozen=True)
class Entry:
    """One entry of a list. `place` says where it stands, for a person."""

    place: str
    outcome: Source | TrendFlowError
    run_id: str | None = None
    priority: Priority = "normal"


def parse_list(data: bytes, form: ListForm, *, local_files: bool, priority: Priority = "normal") -> list[Entry]:
    """Entries in the order of the list.

    `lines`: one source per line; empty lines and those that begin with `#` are left out. `csv`: a header with `source`
    and any of the other `COLUMNS`. `json`: an array of sources and of objects with these keys. Without `local_files`
    only URLs are accepted. `priority` is that of entries that state none. Raises `input_constraint_violated` for what
    is no such list, is empty or too long.
    """
    if len(data) > MAX_LIST_BYTES:
        raise _refused(f"The list has more than {MAX_LIST_BYTES} bytes.")
    try:
        text = data.decode("utf-8-sig")  # spreadsheets begin their CSV with a byte order mark
    except UnicodeDecodeError:
        raise _refused("The list is not text in UTF-8.") from None
    readers = {"lines": _lines, "csv": _csv, "json": _json}
    entries: list[Entry] = []
    for place, row in readers[form](text):
        if len(entries) == MAX_ENTRIES:
            raise _refused(f"The list has more than {MAX_ENTRIES} entries.")
        entries.append(_entry(place, row, local_files, priority))
    if not entries:
        raise _refused("The list is empty.")
    return entries


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        source = line.strip()
        if source and not source.startswith("#"):
            yield f"line {number}", {"source": source}


def _csv(text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or ()
        if "source" not in header or set(header) - set(COLUMNS) or len(set(header)) < len(header):
            raise _refused(
                f"The header of a CSV list holds 'source' and at most {', '.join(COLUMNS[1:])}; "
                f"this one holds {_shown(header)}."
            )
        for row in reader:
            # A field too many stands under None, a missing one is None; both are told as one sentence below.
            yield f"line {reader.line_num}", {name: value for name, value in row.items() if value != ""}
    except csv.Error:
        raise _refused(f"The CSV list is damaged near line {reader.line_num}.") from None


def _json(text: str) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refused(f"The list is not JSON from line {error.lineno}, column {error.colno} on.") from None
    except (ValueError, RecursionError):
        raise _refused("The list is not JSON.") from None
    if not isinstance(rows, list):
        raise _refused("A JSON list is an array of sources.")
    for number, row in enumerate(rows, start=1):
        yield f"entry {number}", {"source": row} if isinstance(row, str) else row


def _entry(place: str, row: Any, local_files: bool, priority: Priority) -> Entry:
    try:
        values = _values(row)
        source, video_id = values["source"], values.get("video_id")
        found = parse_url(source) if "://" in source or not local_files else parse_source(source, video_id)
        if video_id not in (None, found.video_id):
            raise _refused("The video_id is not that of the URL.")
        return Entry(place, found, _run_id(values), _priority(values, priority))
    except TrendFlowError as error:
        return Entry(place, error)


def _values(row: Any) -> Mapping[str, str]:
    if not isinstance(row, Mapping) or set(row) - set(COLUMNS) or "source" not in row:
        raise _refused(f"An entry holds 'source' and at most {', '.join(COLUMNS[1:])}.")
    if not all(isinstance(value, str) for value in row.values()):
        raise _refused("Every value of an entry is a text.")
    return row


def _run_id(values: Mapping[str, str]) -> str | None:
    run_id = values.get("run_id")
    if run_id is not None:
        validate_run_id(run_id)
    return run_id


def _priority(values: Mapping[str, str], default: Priority) -> Priority:
    wanted = values.get("priority", default)
    for priority in PRIORITIES:
        if priority == wanted:
            return priority
    raise _refused(f"A priority is one of {', '.join(PRIORITIES)}.")


def _shown(header: Sequence[str]) -> str:
    """A header for a person, and the beginning of a file that has none."""
    text = ", ".join(repr(name) for name in header)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def _refused(message: str) -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", message)
