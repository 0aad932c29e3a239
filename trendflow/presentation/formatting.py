"""Numbers, times and digests as people read them. Missing values are always an en dash, never a zero."""

from __future__ import annotations

import math
from datetime import datetime

MISSING = "–"
MINUS = "−"
_UNITS = ("k", "M", "B")


def clock(seconds: float, decimals: int = 0) -> str:
    """Seconds as `m:ss`, with `decimals` digits after the second: `clock(71.96, 1)` is `1:12.0`.

    Rounds before it splits, so that 59.96 s never reads `0:60.0`.
    """
    if not math.isfinite(seconds):
        return MISSING
    scale = 10**decimals
    ticks = round(abs(seconds) * scale)
    minutes, rest = divmod(ticks, 60 * scale)
    whole, part = divmod(rest, scale)
    sign = MINUS if seconds < 0 and ticks else ""
    fraction = f".{part:0{decimals}d}" if decimals else ""
    return f"{sign}{minutes}:{whole:02d}{fraction}"


def number(value: float, digits: int = 3) -> str:
    """`value` with at most `digits` significant digits; exponent form only beyond a million or a millionth."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 6 or magnitude <= -7:
        text = f"{value:.{digits - 1}e}"
    else:
        text = f"{value:,.{max(0, digits - 1 - magnitude)}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS).replace(",", "\u202f")


def fixed(value: float, decimals: int = 1, unit: str = "") -> str:
    """`value` with a fixed number of decimals and its unit after a narrow space."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    text = text.replace("-", MINUS)
    return f"{text}\u202f{unit}" if unit else text


def difference(value: float, decimals: int = 2) -> str:
    """`value` with its sign, also when it is positive."""
    text = fixed(value, decimals)
    return f"+{text}" if value > 0 and float(text) else text


def percent(share: float) -> str:
    """A share in [0, 1] as whole percent; tiny shares read `<1 %`, not `0 %`."""
    if not math.isfinite(share):
        return MISSING
    if 0 < share < 0.005:
        return "<1\u202f%"
    return f"{share * 100:.0f}\u202f%"


def compact(count: float, digits: int = 3) -> str:
    """A large count as people say it: `12.3k`, `4.56M`; below a thousand as whole units."""
    if not math.isfinite(count):
        return MISSING
    if abs(count) < 999.5:
        return f"{round(count)}".replace("-", MINUS)
    rounded = float(f"{count:.{digits}g}")  # first, so that 999 999 is a million and not 1000k
    thousands = min(len(_UNITS), math.floor(math.log10(abs(rounded))) // 3)
    return f"{rounded / 1000**thousands:.12g}{_UNITS[thousands - 1]}".replace("-", MINUS)


def interval(low: float, high: float, decimals: int = 3) -> str:
    """Both ends of an interval; an en dash when either is missing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def byte_size(count: int | None) -> str:
    """Bytes in decimal units (kB = 1000 B)."""
    if count is None:
        return MISSING
    if count < 1000:
        return f"{count}\u202fB"
    value = float(count)
    for unit in ("kB", "MB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g}\u202f{unit}"
    return f"{value / 1000:.3g}\u202fGB"


def elapsed(milliseconds: float | None) -> str:
    """A processing time."""
    if milliseconds is None or not math.isfinite(milliseconds):
        return MISSING
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}\u202fms"
    seconds = milliseconds / 1000
    if seconds < 99.95:
        return f"{seconds:.1f}\u202fs"
    return f"{clock(seconds)}\u202fmin"


def moment(timestamp: str | None) -> str:
    """An ISO 8601 time stamp as `2026-03-01 14:05 UTC`; text that is none comes back unchanged."""
    if not timestamp:
        return MISSING
    try:
        parsed = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    return f"{parsed:%Y-%m-%d %H:%M} UTC"


def seconds_between(start: str | None, end: str | None) -> float:
    """Seconds between two ISO 8601 time stamps; NaN when one is missing or unreadable."""
    if not start or not end:
        return math.nan
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return math.nan


def short_hash(digest: str | None, length: int = 10) -> str:
    """The head of a digest: enough to compare by eye."""
    return digest[:length] if digest else MISSING


def plural(count: int, noun: str, many: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {many or noun + 's'}"
