"""Which rows train, which stop the training and calibrate, and which judge it.

Every method keeps channels disjoint inside a fold. `time` cuts the time key once; `rolling_origin` cuts it several
times and pools the test parts, for data too small for one cut; `group_kfold` ignores time and is labelled
`not_time_ordered` wherever its numbers appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from training.config import SplitConfig
from training.rows import MISSING_TIME, Rows
from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError

PARTS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
NONE = -1

# Why a row is in no part of a fold.
MISSING_KEY = "missing_time_or_channel"
NO_TARGET = "no_observed_target"
AFTER_FOLD = "after_fold"
GOLDEN = "golden_set"
EMBARGO = "embargo"
CHANNEL = "channel_in_other_part"

Cuts = tuple[int, int, int | None]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fold:
    """One division. `part` int8 [rows] is a position in `PARTS` or `NONE`; `reason` [rows] is "" inside a part.

    `embargoed` bool [rows, heads]: targets that may not be used although the row is. `cuts` are (T_val, T_test, end)
    in microseconds since 1970, `end` None for an open test part; None altogether when time plays no role.
    """

    part: np.ndarray
    reason: np.ndarray
    embargoed: np.ndarray
    cuts: Cuts | None

    def rows(self, part: int) -> np.ndarray:
        return np.flatnonzero(self.part == part)


def make_folds(rows: Rows, config: SplitConfig, golden: np.ndarray) -> tuple[Fold, ...]:
    """The folds of a dataset; `golden` bool [rows] marks videos that never reach train or val.

    Raises `input_constraint_violated` when a part gets fewer rows than `min_rows`.
    """
    key = time_key(rows, config)
    base = np.full(len(rows), "", dtype="<U32")
    base[~rows.labelled.any(axis=1)] = NO_TARGET
    base[(key == MISSING_TIME) | (rows.channel == "")] = MISSING_KEY
    eligible = base == ""
    if not eligible.any():
        raise TrendFlowError("input_constraint_violated", "No row has an observed target, a time and a channel.")
    assigned: list[tuple[np.ndarray, np.ndarray, Cuts | None]]
    if config.method == "group_kfold":
        assigned = [(part, base.copy(), None) for part in _group_parts(rows.channel, eligible, config.folds)]
    else:
        assigned = [(*_time_parts(key, base, cuts), cuts) for cuts in _cuts(np.sort(key[eligible]), config)]
    folds = tuple(_restrict(rows, config, golden, *fold) for fold in assigned)
    _require_size(folds, config)
    return folds


def time_key(rows: Rows, config: SplitConfig) -> np.ndarray:
    return rows.published if config.time_key == "publish_time" else rows.t0


def to_microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _cuts(times: np.ndarray, config: SplitConfig) -> list[Cuts]:
    """(T_val, T_test, end) of every fold, from the sorted times of the eligible rows."""

    def point(share: float) -> int:
        return int(times[min(int(share * len(times)), len(times) - 1)])

    if config.method == "time":
        if config.t_val is not None and config.t_test is not None:
            return [(to_microseconds(config.t_val), to_microseconds(config.t_test), None)]
        return [(point(config.val_point), point(config.test_point), None)]
    width = (1 - config.first_origin) / config.folds
    origins = [config.first_origin + fold * width for fold in range(config.folds)]
    ends: list[int | None] = [point(origin) for origin in origins[1:]]
    return [
        (point(origin * (1 - config.val_share)), point(origin), end)
        for origin, end in zip(origins, [*ends, None], strict=True)
    ]


def _time_parts(key: np.ndarray, base: np.ndarray, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
    t_val, t_test, end = cuts
    part = np.where(key < t_val, TRAIN, np.where(key < t_test, VAL, TEST)).astype(np.int8)
    reason = base.copy()
    if end is not None:
        reason[(reason == "") & (key >= end)] = AFTER_FOLD
    part[reason != ""] = NONE
    return part, reason


def channel_groups(channel: np.ndarray, eligible: np.ndarray, count: int) -> np.ndarray:
    """int64 [rows]: channels dealt to `count` groups, the largest first and each to the smallest group.

    Rows that are not eligible are in no group (`NONE`). Ties are broken by a hash of the channel, so the result
    depends on neither row order nor chance.
    """
    names, counts = np.unique(channel[eligible], return_counts=True)
    hashes = [sha256_hex(str(name).encode()) for name in names]
    group_of: dict[str, int] = {}
    sizes = np.zeros(count, dtype=np.int64)
    for position in sorted(range(len(names)), key=lambda i: (-counts[i], hashes[i])):
        group = int(np.argmin(sizes))
        group_of[str(names[position])] = group
        sizes[group] += counts[position]
    return np.array([group_of[str(name)] if known else NONE for name, known in zip(channel, eligible, strict=True)])


def _group_parts(channel: np.ndarray, eligible: np.ndarray, folds: int) -> list[np.ndarray]:
    """Fold i tests group i, the next group is its val."""
    group = channel_groups(channel, eligible, folds)
    parts = []
    for fold in range(folds):
        part = np.full(len(channel), TRAIN, dtype=np.int8)
        part[group == (fold + 1) % folds] = VAL
        part[group == fold] = TEST
        part[~eligible] = NONE
        parts.append(part)
    return parts


def _restrict(
    rows: Rows,
    config: SplitConfig,
    golden: np.ndarray,
    part: np.ndarray,
    reason: np.ndarray,
    cuts: Cuts | None,
) -> Fold:
    learning = (part == TRAIN) | (part == VAL)
    _drop(part, reason, learning & golden, GOLDEN)
    embargoed = np.zeros(rows.y.shape, dtype=bool)
    if config.embargo and cuts is not None:
        embargoed = learning[:, None] & rows.labelled & (rows.observed_at > cuts[1])
        _drop(part, reason, learning & (part != NONE) & ~(rows.labelled & ~embargoed).any(axis=1), EMBARGO)
    if cuts is not None:  # groups are disjoint by construction
        home = _channel_home(rows.channel, part, config.channel_rule)
        _drop(part, reason, (part != NONE) & (part != home), CHANNEL)
    return Fold(part, reason, embargoed, cuts)


def _drop(part: np.ndarray, reason: np.ndarray, which: np.ndarray, why: str) -> None:
    part[which] = NONE
    reason[which] = why


def _channel_home(channel: np.ndarray, part: np.ndarray, rule: str) -> np.ndarray:
    """int8 [rows]: the part each row's channel lives in."""
    names, index = np.unique(channel, return_inverse=True)
    counts = np.zeros((len(names), len(PARTS)), dtype=np.int64)
    inside = part != NONE
    np.add.at(counts, (index[inside], part[inside]), 1)
    if rule == "latest":
        counts = (counts > 0).astype(np.int64)
    # argmax takes the first of equals; seen from the end that is the later part.
    home = len(PARTS) - 1 - np.argmax(counts[:, ::-1], axis=1)
    return home[index].astype(np.int8)


def _require_size(folds: Sequence[Fold], config: SplitConfig) -> None:
    for number, fold in enumerate(folds):
        for part in (TRAIN, VAL):
            _require(len(fold.rows(part)), PARTS[part], number, config.min_rows)
    tested = np.zeros(len(folds[0].part), dtype=bool)
    for fold in folds:
        tested |= fold.part == TEST
    _require(int(tested.sum()), "test", None, config.min_rows)


def _require(size: int, part: str, fold: int | None, minimum: int) -> None:
    if size < minimum:
        where = part if fold is None else f"{part} of fold {fold}"
        raise TrendFlowError(
            "input_constraint_violated",
            f"{where} has {size} rows, fewer than min_rows = {minimum}.",
            part=part,
            rows=size,
        )
