"""The label of invented data. It is part of names, so that it survives every copy, join and report."""

from __future__ import annotations

from collections.abc import Iterable

LABEL = "SYNTHETIC_"
"""Video ids, channel ids, sources, releases and dataset names of invented data begin with it."""


def is_synthetic(names: Iterable[str | None]) -> bool:
    """Whether any of the names carries the label."""
    return any(name is not None and name.startswith(LABEL) for name in names)


def labelled(name: str, synthetic: bool) -> str:
    """`name` with the label where it is due, once."""
    return f"{LABEL}{name}" if synthetic and not name.startswith(LABEL) else name
