"""The rows of a dataset as arrays: what splits, fits and metrics need besides the features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.targets import TARGETS, TargetPolicy
from trendflow.inference.encoding import numeric_column

_MICROSECONDS_PER_HOUR = 3_600_000_000
MISSING_TIME = int(np.iinfo(np.int64).min)
NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Head:
    """One target at one horizon."""

    target: str
    horizon_days: int

    @property
    def horizon(self) -> str:
        return f"{self.horizon_days}d"

    @property
    def name(self) -> str:
        return f"{self.target}_{self.horizon}"

    @property
    def target_column(self) -> str:
        return f"target_{self.name}"

    @property
    def mask_column(self) -> str:
        return f"mask_{self.name}"


HEADS = tuple(Head(target, days) for target in TARGETS for days in TargetPolicy().horizons_days)


@dataclass(frozen=True)
class Rows:
    """Arrays over all rows of a dataset. Times are microseconds since 1970 UTC, `MISSING_TIME` where absent.

    `bucket` is the age bucket at the first snapshot. `y`, `observed_at` [rows, heads]: targets (NaN where masked) and
    when they were seen, `NEVER` where unknown.
    """

    platform: np.ndarray
    video: np.ndarray
    channel: np.ndarray
    published: np.ndarray
    t0: np.ndarray
    bucket: np.ndarray
    y: np.ndarray
    observed_at: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    @property
    def labelled(self) -> np.ndarray:
        """bool [rows, heads]."""
        return ~np.isnan(self.y)

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """Raises `config_invalid` when the table lacks a head, being built for other horizons."""
        missing = [head.name for head in HEADS if head.target_column not in table.column_names]
        if missing:
            raise TrendFlowError("config_invalid", f"The dataset has no targets {', '.join(missing)}.", missing=missing)
        t0 = _times(table, "t0")
        hours = np.column_stack([numeric_column(table, f"observed_hours_{head.name}") for head in HEADS])
        y = np.column_stack([numeric_column(table, head.target_column) for head in HEADS])
        masks = np.column_stack([numeric_column(table, head.mask_column) for head in HEADS])
        y[~(masks > 0)] = np.nan
        observed = np.full(y.shape, NEVER)
        seen = ~np.isnan(y) & ~np.isnan(hours)
        observed[seen] = (t0[:, None] + np.nan_to_num(hours) * _MICROSECONDS_PER_HOUR).astype(np.int64)[seen]
        return cls(
            platform=_texts(table, "platform_id"),
            video=_texts(table, "video_id"),
            channel=_texts(table, "channel_id"),
            published=_times(table, "publish_time"),
            t0=t0,
            bucket=_texts(table, "age_bucket"),
            y=y,
            observed_at=observed,
        )


def _texts(table: pa.Table, name: str) -> np.ndarray:
    return np.array(pc.fill_null(pc.cast(table.column(name), pa.string()), "").to_pylist(), dtype=np.str_)


def _times(table: pa.Table, name: str) -> np.ndarray:
    micros = pc.cast(pc.cast(table.column(name), pa.timestamp("us", tz="UTC")), pa.int64())
    return np.asarray(pc.fill_null(micros, MISSING_TIME).to_numpy(), dtype=np.int64)
