"""Comparators fitted on train; `trendflow.inference.comparators` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from training.rows import Head, Rows
from trendflow.dataset.table.metadata_features import AGE
from trendflow.inference.comparators import LogLinear, velocity
from trendflow.inference.encoding import numeric_column

COMPARATORS = ("constant", "channel_median", "velocity", "persistence", "loglinear", "loglinear_multivariate")
PERSISTENCE = ("persistence", "loglinear")
"""The two that carry the first counters on: a model that beats neither adds nothing to them."""
_SNAPSHOT = (
    "views_0",
    "likes_0",
    "comments_0",
    "channel_subscribers_0",
    "channel_total_views_0",
    "channel_total_videos_0",
    AGE,
    "duration_seconds",
)


@dataclass(frozen=True)
class FittedComparators:
    """`constant`: train median of y. `lines`: `persistence` on log1p(views_0), `loglinear` on log1p(x₀) and log1p(age
    hours), `loglinear_multivariate` on the log1p of every number of the first snapshot and the duration."""

    constant: float
    lines: Mapping[str, LogLinear]

    @classmethod
    def fit(cls, train: pa.Table, y: np.ndarray, head: Head) -> FittedComparators:
        columns = {
            "persistence": ("views_0",),
            "loglinear": (f"x0_{head.target}", AGE),
            "loglinear_multivariate": tuple(name for name in _SNAPSHOT if name in train.column_names),
        }
        return cls(float(np.median(y)), {name: LogLinear.fit(train, terms, y) for name, terms in columns.items()})

    def predict(self, table: pa.Table, head: Head, channel_medians: np.ndarray) -> dict[str, np.ndarray]:
        """Per name float64 [rows]. `channel_medians`: see `past_channel_medians`; NaN falls back to the constant."""
        x0 = numeric_column(table, f"x0_{head.target}")
        return {
            "constant": np.full(table.num_rows, self.constant),
            "channel_median": np.where(np.isnan(channel_medians), self.constant, channel_medians),
            "velocity": velocity(x0, numeric_column(table, AGE), head.horizon_days),
            **{name: line.predict(table) for name, line in self.lines.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        return {"constant": self.constant, **{name: line.as_dict() for name, line in self.lines.items()}}


def past_channel_medians(rows: Rows, head: int, positions: np.ndarray) -> np.ndarray:
    """Per row of `positions`: the median outcome of the channel's other videos that had been observed by its t₀.

    Channels live in one part, so a median over train never exists for a test row. What was known at the time of the
    forecast does; it comes from all rows but never from a later moment. NaN where the channel has no such video.
    """
    result = np.full(len(positions), np.nan)
    y, seen = rows.y[:, head], rows.observed_at[:, head]
    of_channel: dict[str, np.ndarray] = {}
    labelled = np.flatnonzero(~np.isnan(y))
    order = labelled[np.argsort(rows.channel[labelled], kind="stable")]
    names, starts = np.unique(rows.channel[order], return_index=True)
    for name, members in zip(names, np.split(order, starts[1:]), strict=True):
        of_channel[str(name)] = members
    for at, row in enumerate(positions):
        members = of_channel.get(str(rows.channel[row]), np.empty(0, dtype=np.int64))
        past = members[(seen[members] <= rows.t0[row]) & (members != row)]
        if len(past):
            result[at] = np.median(y[past])
    return result
