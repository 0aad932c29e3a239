"""Single values of a snapshot or of metadata, from whatever a source wrote into them.

Nothing here guesses: a value that cannot be read is missing, and the report counts it.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from typing import Any

from trendflow.dataset.snapshots.report import ImportReport

NAN = float("nan")

_NUMBER = re.compile(r"[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE]\+?[0-9]{1,3})?\Z")
_TIME_GET = re.compile(r"([0-9]{4})_([0-9]{2})_([0-9]{2})_([0-9]{2})_([0-9]{2})\Z")
_CHANNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_ISO_DURATION = re.compile(
    r"P(?:(?P<weeks>\d{1,6})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?:(?P<hours>\d{1,6})H)?(?:(?P<minutes>\d{1,6})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?\Z"
)
_FLAGS = {"true": True, "false": False}
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
# Only complete references: `&copy=1` in the query of a URL is no copyright sign.
_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def number(value: Any) -> float | None:
    """A finite number ≥ 0 from a number or from its decimal digits as text; None for everything else."""
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.match(value):
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found + 0.0 if math.isfinite(found) and found >= 0 else None  # + 0.0 leaves no negative zero


def number_or_nan(value: Any) -> float:
    """As `number`, NaN for everything that is none."""
    found = number(value)
    return NAN if found is None else found


def utc_time(value: Any) -> datetime | None:
    """A time in UTC from a datetime or from ISO 8601 with date and time of day; without a zone it is UTC already."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) < len("2025-01-01T00:00") or text[10] not in "T ":  # a day alone is no time
            return None
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return None


def time_get(value: Any) -> datetime | None:
    """A time in UTC from `YYYY_MM_DD_HH_MM`."""
    match = _TIME_GET.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        year, month, day, hour, minute = map(int, match.groups())
        return datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None


def iso_duration(value: Any) -> float | None:
    """Seconds of an ISO 8601 duration of weeks, days and times such as `P1DT2H6M5S`; None for everything else."""
    match = _ISO_DURATION.match(value) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        return None
    return float(sum(float(part) * _SECONDS[unit] for unit, part in match.groupdict().items() if part))


class Values:
    """Reads values and counts in `report` what was missing or could not be read."""

    def __init__(self, report: ImportReport) -> None:
        self._report = report

    def counter(self, value: Any, column: str) -> float:
        """A counter; NaN when it is missing, not a number, or negative."""
        if _absent(value):
            self._report.add("counter_missing", column=column)
            return NAN
        found = number(value)
        if found is None:
            self._report.add("counter_bad", column=column)
            return NAN
        return found

    def quantity(self, value: Any, column: str) -> float:
        """A number of metadata; NaN when missing or bad."""
        if _absent(value):
            return NAN
        found = number(value)
        if found is None:
            self._bad(column)
            return NAN
        return found

    def duration(self, seconds: Any, iso: Any) -> float:
        """Seconds from a number, else from an ISO 8601 duration. A live stream's `P0D` says nothing and is missing."""
        found = self.quantity(seconds, "duration_seconds")
        if math.isnan(found) and not _absent(iso):
            parsed = iso_duration(iso)
            if parsed is None:
                self._bad("duration_seconds")
            found = parsed or NAN
        return found if found > 0 else NAN

    def text(self, value: Any, column: str) -> str | None:
        """A text, HTML character references decoded, in NFC. Empty stays empty; None when there is no text."""
        if value is None:
            return None
        if not isinstance(value, str):
            self._bad(column)
            return None
        # Half of a surrogate pair is no character and fits into no file.
        whole = value.encode("utf-8", "replace").decode("utf-8")
        clean = unicodedata.normalize("NFC", _REFERENCE.sub(_decoded, whole))
        if clean != value:
            self._report.add("text_decoded", column=column)
        return clean

    def word(self, value: Any, column: str) -> str | None:
        """A short code such as a language; empty means missing."""
        found = self.text(value, column)
        return found.strip() or None if found is not None else None

    def tags(self, value: Any) -> tuple[str, ...] | None:
        """A list of texts; as text, a JSON list or tags separated by `|`."""
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.lstrip().startswith("[") else value.split("|") if value else None
            except (ValueError, RecursionError):
                self._bad("tags")
                return None
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
            self._bad("tags")
            return None
        return tuple(self.text(tag, "tags") or "" for tag in value)

    def flag(self, value: Any, column: str) -> bool | None:
        """A boolean, or the words true and false."""
        if isinstance(value, bool):
            return value
        if _absent(value):
            return None
        found = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            self._bad(column)
        return found

    def category(self, value: Any) -> str | None:
        """A category's number as text."""
        if _absent(value):
            return None
        found = number(value)
        if found is None or found % 1:
            self._bad("category_id")
            return None
        return str(int(found))

    def channel_id(self, value: Any, video_id: str) -> str | None:
        """A channel's id. The video's own id never stands in for it."""
        if _absent(value):
            return None
        if not isinstance(value, str) or not _CHANNEL_ID.match(value) or value == video_id:
            self._bad("channel_id")
            return None
        return value

    def size(self, value: Any, column: str) -> float:
        """How many entries a list or an object has; NaN when it is missing or neither."""
        if value is None:
            return NAN
        if isinstance(value, (list, dict)):
            return float(len(value))
        self._bad(column)
        return NAN

    def _bad(self, column: str) -> None:
        self._report.add("metadata_bad", column=column)


def _absent(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _decoded(match: re.Match[str]) -> str:
    return unescape(match[0])
