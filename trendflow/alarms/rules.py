"""When an alarm is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from statistics import median
from typing import Any, Literal

from trendflow.alarms.ended_runs import EndedRun
from trendflow.contracts.costs import PLANNED_FROM, WHOLE, CostRow, series_key

Rule = Literal["success_rate", "error_code", "empty_reason", "out_of_memory", "slow_component", "retry_budget"]
Severity = Literal["error", "warning"]

FAILURES = frozenset({"voice_quality_all_segments_failed", "all_extractors_empty", "no_valid_crops"})
"""Empty reasons that tell of work which failed. The others tell what a video is like, whatever their names say: without
an audio stream, without a beat, without what another component looks for. Many of those are a warning.
"""


@dataclass(frozen=True)
class AlarmLimits:
    """Thresholds. A share is not judged before `min_runs` runs ended, a rate not before `min_recent` of them.

    `slowdown`: the median cost of a unit in the last hour over the one of the registry before; judged with at least
    `min_recent` executions of that hour and `min_runs` before.
    """

    window: int = 200
    systematic_share: float = 0.05
    out_of_memory_share: float = 0.10
    success_rate: float = 0.80
    recent: timedelta = timedelta(hours=1)
    slowdown: float = 2.0
    min_runs: int = 20
    min_recent: int = 5


@dataclass(frozen=True)
class Alarm:
    """`value` is past `threshold`, as found in `runs` runs or executions. `subject` is what the rule is about."""

    rule: Rule
    subject: str
    value: float
    threshold: float
    runs: int
    severity: Severity = "error"
    error_code: str | None = None


def success_rate(statuses: Collection[str]) -> float:
    """Share of successes among runs that ended; nothing failed while nothing ran: no alarm sounds at night."""
    ended = [status for status in statuses if status != "cancelled"]
    return ended.count("success") / len(ended) if ended else 1.0


def run_alarms(runs: Sequence[EndedRun], now: datetime, limits: AlarmLimits) -> Iterator[Alarm]:
    """Alarms about the newest ended runs, of which `runs` holds up to `limits.window`."""
    recent = [run for run in runs if run.finished_at >= now - limits.recent]
    rate = success_rate([run.status for run in recent])
    if len(recent) >= limits.min_recent and rate < limits.success_rate:
        causes = Counter(code for run in recent if run.status == "error" for code in sorted(run.error_codes))
        code = causes.most_common(1)[0][0] if causes else None
        yield Alarm("success_rate", "", round(rate, 4), limits.success_rate, len(recent), error_code=code)
    if len(runs) < limits.min_runs:
        return
    for code, share in _shares(runs, lambda run: run.error_codes, limits.systematic_share):
        yield Alarm("error_code", code, share, limits.systematic_share, len(runs), error_code=code)
    for reason, share in _shares(runs, lambda run: run.empty_reasons, limits.systematic_share):
        severity: Severity = "error" if reason in FAILURES else "warning"
        yield Alarm("empty_reason", reason, share, limits.systematic_share, len(runs), severity)
    out_of_memory = sum(run.out_of_memory for run in runs) / len(runs)
    if out_of_memory > limits.out_of_memory_share:
        value = round(out_of_memory, 4)
        yield Alarm("out_of_memory", "", value, limits.out_of_memory_share, len(runs), error_code="out_of_memory")


def slow_components(rows: Iterable[CostRow], now: datetime, limits: AlarmLimits) -> Iterator[Alarm]:
    """Components that cost a multiple of what the registry has of them: same input, models, code and device.

    The worst series of each component counts. `rows` reach back as far as a baseline is to be found.
    """
    worst: dict[str, tuple[float, int]] = {}
    whole = sorted((row for row in rows if row["component_part"] == WHOLE), key=series_key)
    since = now - limits.recent
    for _, found in groupby(whole, key=series_key):
        series = sorted(found, key=_measured_at)
        recent = [_cost(row) for row in series if _measured_at(row) >= since]
        before = [_cost(row) for row in series if _measured_at(row) < since][-PLANNED_FROM:]
        if len(recent) < limits.min_recent or len(before) < limits.min_runs or median(before) <= 0:
            continue
        name, ratio = str(series[0]["component"]), median(recent) / median(before)
        worst[name] = max(worst.get(name, (0.0, 0)), (ratio, len(recent)))
    for name, (ratio, count) in sorted(worst.items()):
        if ratio > limits.slowdown:
            yield Alarm("slow_component", name, round(ratio, 2), limits.slowdown, count)


def _shares(
    runs: Sequence[EndedRun], words: Callable[[EndedRun], Collection[str]], limit: float
) -> Iterator[tuple[str, float]]:
    """Words, and the share of runs that hold them, where it is above the limit."""
    counts = Counter(word for run in runs for word in words(run))
    for word, count in sorted(counts.items()):
        if count / len(runs) > limit:
            yield word, round(count / len(runs), 4)


def _measured_at(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["valid_from"])


def _cost(row: Mapping[str, Any]) -> float:
    return float(row["latency_ms_per_unit"])
