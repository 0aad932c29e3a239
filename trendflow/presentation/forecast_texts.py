"""The words of forecasts: heads, comparators, age buckets and metrics as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def bucket_title(name: str) -> str:
    return BUCKETS.get(name) or name
