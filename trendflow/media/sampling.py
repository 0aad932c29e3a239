"""Sampling policy `sampling_v1`: which frames every component sees.

A pure function of timestamps, duration and budgets: the same input gives the same indices on every machine. Positions
are numbers of decoded frames in display order, 0-based.

Method: B = clip(⌊duration / gap + ½⌋, 1, 600), where gap is 0.25 s up to 60 s of video and runs through 1 s at 300 s,
2 s at 600 s, 3.5 s at 1200 s, linear between the logarithms of both. A component takes n = clip(max(min, min(target,
B)), min, max) frames of its budget; a group the largest min, the largest target and the smallest max of its members.
No set has more frames than the source or its parent.

Method: of the largest set frame k is the candidate nearest to the time k · t_last / (n − 1), the earlier one of two,
but later than frame k − 1 and early enough to leave one for each that follows. Candidates are all decoded frames
unless `analysis_fps` is lower than the source's rate. Every other set takes the positions ⌊k·(n_P − 1)/(n − 1) + ½⌋,
k = 0 … n − 1, of its parent with n_P frames; the parent of a group is the largest set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trendflow.contracts.errors import TrendFlowError

MAX_DURATION_BUDGET = 600
LARGE_GAP_SEC = 6.0
# Duration in seconds → spacing of samples in seconds; linear between these points in log–log space.
_GAP_CURVE = ((60.0, 0.25), (300.0, 1.0), (600.0, 2.0), (1200.0, 3.5), (3600.0, 6.0), (21600.0, 12.0))
_LOG_DURATION = np.log([point[0] for point in _GAP_CURVE])
_LOG_GAP = np.log([point[1] for point in _GAP_CURVE])


@dataclass(frozen=True)
class ComponentSampling:
    """Frame budget of one component.

    Members of a `group` share one set of frames. A `parent` (a group or a component) caps the number of frames and
    contains them; a component that belongs to a group stands for the group.
    """

    name: str
    min: int
    target: int
    max: int
    group: str | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.target <= self.max:
            raise TrendFlowError("config_invalid", f"Frame budget of {self.name} must be 1 ≤ min ≤ target ≤ max.")
        if self.group is not None and self.parent is not None:
            raise TrendFlowError("config_invalid", f"{self.name} cannot have both a sampling group and a parent.")


@dataclass(frozen=True)
class Shortfall:
    """A component that got fewer frames than its minimum, and why."""

    wanted_min: int
    got: int
    cause: str  # source_frames | analysis_fps | parent_cap | decode_loss

    def as_dict(self) -> dict[str, int | str]:
        return {"wanted_min": self.wanted_min, "got": self.got, "cause": self.cause}


@dataclass(frozen=True)
class SamplingPlan:
    """Frames to keep and who uses which.

    `union_source` int64 `[U]`: decoded frame numbers, increasing. `indices`: component → int32 positions in the union.
    """

    union_source: np.ndarray
    indices: Mapping[str, np.ndarray]
    groups: Mapping[str, tuple[str, ...]]
    budgets: Mapping[str, tuple[int, int, int]]
    candidates: int
    shortfall: Mapping[str, Shortfall] = field(default_factory=dict)


@dataclass(frozen=True)
class _FrameSet:
    """One set of frames: a group, or a component outside groups."""

    name: str
    members: tuple[ComponentSampling, ...]
    parent: str | None

    def wanted(self, duration_budget: int) -> int:
        low = max(member.min for member in self.members)
        high = min(member.max for member in self.members)
        target = max(member.target for member in self.members)
        return min(max(min(target, duration_budget), low), high)


def duration_budget(duration_sec: float) -> int:
    """`B(D) = clip(round(D / gap(D)), 1, 600)`; the gap is 0.25 s below 60 s."""
    gap = math.exp(float(np.interp(math.log(max(duration_sec, 1e-9)), _LOG_DURATION, _LOG_GAP)))
    return min(max(math.floor(duration_sec / gap + 0.5), 1), MAX_DURATION_BUDGET)


def candidate_frames(times: np.ndarray, source_fps: float, analysis_fps: float | None) -> np.ndarray:
    """Numbers of the frames sampling may choose from (int64, increasing).

    All of them, unless `analysis_fps` lies below the source rate: then those nearest to the grid `k / analysis_fps`.
    """
    if analysis_fps is None or analysis_fps >= source_fps:
        return np.arange(len(times), dtype=np.int64)
    grid = np.arange(math.floor(times[-1] * analysis_fps + 1e-9) + 1) / analysis_fps
    return np.unique(nearest(times, grid))


def nearest(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Index of the time nearest to each target; ties go to the earlier one."""
    right = np.clip(np.searchsorted(times, targets), 1, max(len(times) - 1, 1))
    right = np.minimum(right, len(times) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(targets - times[left] <= times[right] - targets, left, right)


def master_grid(times: np.ndarray, n: int) -> np.ndarray:
    """Positions of n samples: targets `τ_k = k · t_last / (n − 1)`, each served by the nearest free later position.

    `j_k = clip(nearest(τ_k), j_{k−1} + 1, S − n + k)`, so positions strictly increase.
    """
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    targets = np.arange(n) * times[-1] / (n - 1)
    positions = nearest(times, targets)
    chosen = np.empty(n, dtype=np.int64)
    last = -1
    for k in range(n):
        last = min(max(int(positions[k]), last + 1), len(times) - n + k)
        chosen[k] = last
    return chosen


def subset(n: int, parent_n: int) -> np.ndarray:
    """Positions `⌊k·(n_P − 1)/(n − 1) + ½⌋` of n evenly spread members of a parent set (int64)."""
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    k = np.arange(n, dtype=np.int64)
    # Integers throughout: ⌊a/b + ½⌋ = ⌊(2a + b) / 2b⌋.
    return (2 * k * (parent_n - 1) + (n - 1)) // (2 * (n - 1))


def plan_frames(
    times: np.ndarray,
    duration_sec: float,
    components: Sequence[ComponentSampling],
    *,
    source_fps: float,
    analysis_fps: float | None = None,
) -> SamplingPlan:
    """Choose the frames of all components.

    `times`: float64 `[F]` seconds of all frames, strictly increasing from 0. Raises `config_invalid` when the budgets
    of a group contradict each other or a parent is unknown. Without components the union is empty.
    """
    sets = _frame_sets(components)
    candidates = candidate_frames(times, source_fps, analysis_fps)
    budget = duration_budget(duration_sec)
    sizes = _set_sizes(sets, len(candidates), budget)
    if not sets:
        return SamplingPlan(np.empty(0, dtype=np.int64), {}, {}, {}, len(candidates))
    master_n = max(sizes.values())
    union = candidates[master_grid(times[candidates], master_n)]
    positions: dict[str, np.ndarray] = {}
    for name, frame_set in sets.items():
        if frame_set.parent is None:
            positions[name] = subset(sizes[name], master_n)
        else:
            positions[name] = positions[frame_set.parent][subset(sizes[name], sizes[frame_set.parent])]
    indices: dict[str, np.ndarray] = {}
    for name, frame_set in sets.items():
        for member in frame_set.members:
            indices[member.name] = positions[name].astype(np.int32)
    return SamplingPlan(
        union_source=union,
        indices={item.name: indices[item.name] for item in components},
        groups={name: tuple(m.name for m in s.members) for name, s in sets.items() if s.members[0].group == name},
        budgets={item.name: (item.min, item.target, item.max) for item in components},
        candidates=len(candidates),
        shortfall={
            member.name: Shortfall(member.min, sizes[name], _cause(member, frame_set, len(candidates), len(times)))
            for name, frame_set in sets.items()
            for member in frame_set.members
            if sizes[name] < member.min
        },
    )


def drop_lost(plan: SamplingPlan, source_of_slot: Sequence[int | None]) -> SamplingPlan:
    """The plan after decoding: `source_of_slot[k]` is the frame that serves union position k, None if there is none.

    Slots without a frame disappear and the shortfall test is repeated; new shortfalls have the cause `decode_loss`.
    """
    kept = np.array([source is not None for source in source_of_slot], dtype=bool)
    union = np.array([source for source in source_of_slot if source is not None], dtype=np.int64)
    rank = np.cumsum(kept) - 1
    indices = {name: rank[positions[kept[positions]]].astype(np.int32) for name, positions in plan.indices.items()}
    shortfall = dict(plan.shortfall)
    for name, positions in indices.items():
        wanted = plan.budgets[name][0]
        if len(positions) < wanted:
            cause = plan.shortfall[name].cause if name in plan.shortfall else "decode_loss"
            shortfall[name] = Shortfall(wanted, len(positions), cause)
    return SamplingPlan(union, indices, plan.groups, plan.budgets, plan.candidates, shortfall)


def has_large_gap(times: np.ndarray, indices: Mapping[str, np.ndarray]) -> bool:
    """True when neighbouring samples of some component lie more than 6 s apart. `times`: seconds of the union."""
    return any(len(found) > 1 and np.diff(times[found]).max() > LARGE_GAP_SEC for found in indices.values())


def _frame_sets(components: Sequence[ComponentSampling]) -> dict[str, _FrameSet]:
    """Sets by name, parents before children."""
    members: dict[str, list[ComponentSampling]] = {}
    for item in components:
        members.setdefault(item.group or item.name, []).append(item)
    names = [item.name for item in components]
    if len(set(names)) != len(names) or any(len(m) > 1 and m[0].group is None for m in members.values()):
        raise TrendFlowError("config_invalid", "Sampling names must be unique.")
    set_of = {item.name: item.group or item.name for item in components}
    sets = {name: _FrameSet(name, tuple(m), _parent_set(m[0].parent, set_of)) for name, m in members.items()}
    for found in sets.values():
        low = max(member.min for member in found.members)
        high = min(member.max for member in found.members)
        if low > high:
            raise TrendFlowError(
                "config_invalid",
                f"Sampling group {found.name}: the largest minimum {low} exceeds the smallest maximum {high}.",
            )
    ordered: dict[str, _FrameSet] = {}
    while len(ordered) < len(sets):
        ready = [s for s in sets.values() if s.name not in ordered and (s.parent is None or s.parent in ordered)]
        if not ready:
            waiting = sorted(s.name for s in sets.values() if s.name not in ordered)
            raise TrendFlowError("config_invalid", f"The sampling parents of {waiting} are not enabled.")
        ordered.update((s.name, s) for s in ready)
    return ordered


def _parent_set(parent: str | None, set_of: Mapping[str, str]) -> str | None:
    return None if parent is None else set_of.get(parent, parent)


def _set_sizes(sets: Mapping[str, _FrameSet], candidates: int, budget: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, frame_set in sets.items():
        limit = candidates if frame_set.parent is None else sizes[frame_set.parent]
        sizes[name] = min(limit, frame_set.wanted(budget))
    return sizes


def _cause(member: ComponentSampling, frame_set: _FrameSet, candidates: int, frames: int) -> str:
    if frames < member.min:
        return "source_frames"
    if candidates < member.min:
        return "analysis_fps"
    assert frame_set.parent is not None  # a set without a parent is limited by the candidates alone
    return "parent_cap"
