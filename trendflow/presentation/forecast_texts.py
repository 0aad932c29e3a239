"""The words of forecasts: heads, comparators, age buckets and metrics as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HEAD = re.compile(r"(?P<target>[a-z]+)_(?P<days>\d+)d")

COMPARATORS: Mapping[str, str] = {
    "constant": "Constant",
    "channel_median": "Channel median",
    "velocity": "Velocity so far",
    "persistence": "Persistence, first count",
    "loglinear": "Persistence, count and age",
    "loglinear_multivariate": "Log-linear, all counters",
    "previous": "Previous model",
}
BUCKETS: Mapping[str, str] = {
    "<24h": "younger than a day",
    "1-30d": "1 to 30 days old",
    ">30d": "older than 30 days",
}
ORDERS: Mapping[str, str] = {
    "horizons": "Moved to another horizon",
    "levels": "Moved to another end of the interval",
}
METRICS: Mapping[str, str] = {"spearman": "Spearman", "rmse": "RMSE", "mae": "MAE"}
FAMILIES: Mapping[str, str] = {
    "metadata": "Metadata and first snapshot",
    "visual": "Picture",
    "audio": "Sound",
    "text": "Text",
}


def split_head(head: str) -> tuple[str, int]:
    """`views_14d` as ("views", 14). Raises ValueError for a name that is no head."""
    match = _HEAD.fullmatch(head)
    if match is None:
        raise ValueError(f"{head = } is no forecast head")
    return match["target"], int(match["days"])


def head_title(head: str) -> str:
    """`views_14d` as "Views after 14 days"."""
    target, days = split_head(head)
    return f"{target.capitalize()} after {days} days"


def head_order(head: str) -> tuple[bool, str, int]:
    """Views before likes, early before late."""
    target, days = split_head(head)
    return target != "views", target, days


def comparator_title(name: str) -> str:
    return COMPARATORS.get(name) or name.replace("_", " ").capitalize()


def order_lines(document: Mapping[str, Any]) -> list[str]:
    """Which heads of a prediction report had to be put in order, one sentence per kind of contradiction."""
    repaired = (document["outputs"] or {}).get("put_in_order") or {}
    return [
        f"{what}: {', '.join(map(head_title, sorted(repaired[name], key=head_order)))}."
        for name, what in ORDERS.items()
        if repaired.get(name)
    ]


def bucket_title(name: str) -> str:
    return BUCKETS.get(name) or name
