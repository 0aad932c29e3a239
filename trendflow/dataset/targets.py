"""Targets: how far views and likes rise above the first snapshot within 7, 14 and 21 days.

For x in {views, likes} and a horizon h, `x_h` is the snapshot nearest to t₀ + h within the tolerance, and
y = log1p(max(x_h − x₀, 0)). What cannot be known is masked, with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.tables import KEY, UTC_TIME, SnapshotSet, starts

TARGETS = ("views", "likes")
HEADS = tuple(f"{target}_{days}d" for target in TARGETS for days in (7, 14, 21))
"""The six heads of the product, as they end the names of target columns."""

MASK_REASONS = ("no_snapshot", "bad_counter", "hidden_likes", "decreased")
"""In the order of precedence. Likes that were hidden look like a fall; the fall is then not what is unknown."""

HIDDEN_LIKES_MIN_VIEWS = 10_000.0
"""Likes of 0 beside more views than these are hidden rather than none. No setting: targets and features, of training
and of forecasts alike, have to mean the same by it."""

_HOUR_US = 3_600_000_000
_QUANTILES = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class TargetPolicy:
    """How snapshots become targets.

    `decrease_policy`: what happens to a counter that fell by more than the share `decrease_tolerance`: `mask` or
    `floor` (y = 0).
    """

    horizons_days: tuple[int, ...] = (7, 14, 21)
    horizon_tolerance_hours: float = 24.0
    decrease_policy: Literal["mask", "floor"] = "mask"
    decrease_tolerance: float = 0.001

    def __post_init__(self) -> None:
        gaps = np.diff([0, *self.horizons_days])
        # Windows that overlap would let one snapshot answer for two horizons, or the first one for itself.
        if not self.horizons_days or not 0 <= 2 * self.horizon_tolerance_hours < 24 * gaps.min():
            raise TrendFlowError("config_invalid", "Horizons must rise by more than twice their tolerance, from 0 on.")
        if self.decrease_policy not in ("mask", "floor") or not 0 <= self.decrease_tolerance < 1:
            raise TrendFlowError("config_invalid", "A fall is masked or floored, and its tolerance is from 0 to 1.")

    @property
    def heads(self) -> tuple[str, ...]:
        """`<target>_<h>d`, targets first."""
        return tuple(f"{target}_{days}d" for target in TARGETS for days in self.horizons_days)

    def as_dict(self) -> dict[str, Any]:
        """All rules, as reports and fingerprints state them."""
        return {**asdict(self), "hidden_likes_min_views": HIDDEN_LIKES_MIN_VIEWS}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TargetPolicy:
        """The inverse of `as_dict`, also after a turn as JSON."""
        own = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**own, "horizons_days": tuple(own["horizons_days"])})


@dataclass(frozen=True)
class Targets:
    """`table`: one row per video, sorted by platform and video, columns as `target_columns` says. `report`: counts."""

    table: pa.Table
    report: dict[str, Any]


def build_targets(snapshot_set: SnapshotSet, policy: TargetPolicy | None = None) -> Targets:
    """Targets of every video that has a snapshot.

    Columns: `platform_id video_id t0 x0_views x0_likes`, then per head `target_<head>` float32 (NaN when masked),
    `mask_<head>` bool, `mask_reason_<head>` (null when there is a target) and `observed_hours_<head>`, the time from
    t₀ to the snapshot that answers for the horizon (NaN without one).
    """
    policy = policy or TargetPolicy()
    ordered = snapshot_set.snapshots.sort_by([(name, "ascending") for name in (*KEY, "snapshot_time")])
    begins = starts(ordered)
    first, video = np.flatnonzero(begins), np.cumsum(begins) - 1
    time = ordered["snapshot_time"].cast(pa.int64()).to_numpy()
    counters = {target: ordered[target].to_numpy() for target in TARGETS}
    since = time - time[first][video]
    begin = {target: values[first] for target, values in counters.items()}
    hidden = likes_hidden(begin["views"], begin["likes"])
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **{key: ordered[key].take(pa.array(first)) for key in KEY},
        "t0": pa.array(time[first]).cast(UTC_TIME),
        "x0_views": pa.array(begin["views"]),
        "x0_likes": pa.array(np.where(hidden, np.nan, begin["likes"])),
    }
    report: dict[str, Any] = {"policy": policy.as_dict(), "n_rows": len(first), "heads": {}, "offsets_hours": {}}
    falls: list[dict[str, Any]] = []
    for days in policy.horizons_days:
        found = _nearest(video, since, len(first), days * 24 * _HOUR_US, policy.horizon_tolerance_hours * _HOUR_US)
        hours = np.where(found < 0, np.nan, since[found] / _HOUR_US)
        report["offsets_hours"][f"{days}d"] = _distribution(hours - days * 24)
        for target in TARGETS:
            head = f"{target}_{days}d"
            end = {name: np.where(found < 0, np.nan, values[found]) for name, values in counters.items()}
            judged = _judge(target, begin, end, found >= 0, policy)
            columns |= _head_columns(head, judged, hours)
            report["heads"][head] = judged.counts()
            names = {key: columns[key] for key in KEY}
            falls += _falls(head, judged, begin[target], end[target], names)
    table = pa.table(columns)
    report["falls"] = sorted(falls, key=lambda fall: (*(fall[key] for key in KEY), fall["head"]))
    return Targets(table.select(target_columns(policy)).combine_chunks(), report)


def target_columns(policy: TargetPolicy | None = None) -> list[str]:
    """Names of the columns of `Targets.table`, in order."""
    heads = (policy or TargetPolicy()).heads
    kinds = ("target", "mask", "mask_reason", "observed_hours")
    return [*KEY, "t0", "x0_views", "x0_likes", *(f"{kind}_{head}" for kind in kinds for head in heads)]


def likes_hidden(views: np.ndarray, likes: np.ndarray) -> np.ndarray:
    """bool [N]: likes of 0 beside so many views that they are hidden rather than none. Such likes are unknown."""
    return (likes == 0) & (views > HIDDEN_LIKES_MIN_VIEWS)


@dataclass(frozen=True)
class _Judged:
    """One head over all videos: y float32 [N], reason [N] as index into MASK_REASONS or −1, and what fell."""

    y: np.ndarray
    reason: np.ndarray
    fell: np.ndarray
    beyond: np.ndarray

    def counts(self) -> dict[str, Any]:
        """`pairs`: videos whose two counters are known; `decreased` of them fell beyond the tolerance."""
        kept = self.reason < 0
        known = kept | (self.reason == MASK_REASONS.index("decreased"))
        pairs, decreased = int(known.sum()), int((known & self.beyond).sum())
        return {
            "n": int(kept.sum()),
            "coverage": float(kept.mean()) if len(kept) else None,
            "reasons": {name: int((self.reason == at).sum()) for at, name in enumerate(MASK_REASONS)},
            "pairs": pairs,
            "decreased": decreased,
            "decreased_share": decreased / pairs if pairs else None,
            "floored": int((kept & self.fell).sum()),
        }


def _nearest(video: np.ndarray, since: np.ndarray, n: int, horizon: float, tolerance: float) -> np.ndarray:
    """int64 [n]: per video the row nearest to the horizon within the tolerance, both ends included; −1 without one.

    Of two rows equally near the earlier one stands.
    """
    distance = np.abs(since - horizon)
    rows = np.flatnonzero(distance <= tolerance)
    rows = rows[np.lexsort((since[rows], distance[rows], video[rows]))]
    found = np.full(n, -1, dtype=np.int64)
    owners, at = np.unique(video[rows], return_index=True)
    found[owners] = rows[at]
    return found


def _judge(
    target: str,
    begin: Mapping[str, np.ndarray],
    end: Mapping[str, np.ndarray],
    seen: np.ndarray,
    policy: TargetPolicy,
) -> _Judged:
    before, after = begin[target], end[target]
    bad = np.isnan(before) | np.isnan(after)
    hidden = np.zeros(len(before), dtype=bool)
    if target == "likes":
        hidden = likes_hidden(begin["views"], before) | likes_hidden(end["views"], after)
    fell = after < before
    beyond = after < before * (1 - policy.decrease_tolerance)
    masked_fall = beyond & (policy.decrease_policy == "mask")
    reason = np.select([~seen, bad, hidden, masked_fall], range(len(MASK_REASONS)), default=-1)
    y = np.where(reason < 0, np.log1p(np.maximum(after - before, 0)), np.nan).astype(np.float32)
    return _Judged(y, reason, fell, beyond)


def _head_columns(head: str, judged: _Judged, hours: np.ndarray) -> dict[str, pa.Array]:
    names = np.array([*MASK_REASONS, None], dtype=object)
    return {
        f"target_{head}": pa.array(judged.y),
        f"mask_{head}": pa.array(judged.reason < 0),
        f"mask_reason_{head}": pa.array(names[judged.reason], pa.string()),
        f"observed_hours_{head}": pa.array(hours),
    }


def _falls(
    head: str,
    judged: _Judged,
    before: np.ndarray,
    after: np.ndarray,
    names: Mapping[str, pa.Array | pa.ChunkedArray],
) -> list[dict[str, Any]]:
    """Every counter that fell, however little, with its size and what became of it."""
    return [
        {
            **{key: values[int(at)].as_py() for key, values in names.items()},
            "head": head,
            "x0": float(before[at]),
            "x_h": float(after[at]),
            "fall": float(before[at] - after[at]),
            "relative": float(1 - after[at] / before[at]),
            "treatment": "floored" if judged.reason[at] < 0 else f"masked:{MASK_REASONS[judged.reason[at]]}",
        }
        for at in np.flatnonzero(judged.fell)
    ]


def _distribution(offsets: np.ndarray) -> dict[str, Any]:
    """Hours between a horizon and the snapshot that answers for it; negative is early."""
    known = offsets[~np.isnan(offsets)]
    if not len(known):
        return {"n": 0, **dict.fromkeys(_QUANTILES), "mean_absolute": None}
    values = np.quantile(known, list(_QUANTILES.values()))
    named = {name: float(value) for name, value in zip(_QUANTILES, values, strict=True)}
    return {"n": len(known), **named, "mean_absolute": float(np.abs(known).mean())}
