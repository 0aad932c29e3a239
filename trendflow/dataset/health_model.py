"""The values a feature health report consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trendflow.dataset.column_statistics import ColumnStatistics
from trendflow.dataset.drift import Drift, Reference
from trendflow.dataset.duplicates import Pair
from trendflow.dataset.feature_table import ColumnInfo, Version
from trendflow.dataset.health_rules import Rules

Severity = Literal["error", "warning"]
Verdict = Literal["pass", "fail", "not_judged"]


@dataclass(frozen=True)
class ColumnHealth:
    """One feature over the corpus. Rates of `statistics` are shares of the comparable runs."""

    info: ColumnInfo
    statistics: ColumnStatistics
    coverage: float
    """Share of all rows that have a finite value, runs of another version included."""
    diverse: int
    """Finite values from different source files."""
    unexplained_rate: float
    """Share of the comparable runs where it is missing because its component failed or did not say why."""
    empty_reasons: Mapping[str, int]
    absent_reasons: Mapping[str, int]
    duplicates: tuple[str, ...] = ()
    drift: Drift | None = None

    @property
    def name(self) -> str:
        return self.info.name


@dataclass(frozen=True)
class ComponentHealth:
    """One component in the newest finished run of every video.

    `statuses` counts `ok`, `empty`, `error`, `skipped`; `versions` the rows of the table per version, the most frequent
    first. `coverage` is the share of finite values among its columns, NaN without columns.
    """

    name: str
    statuses: Mapping[str, int]
    empty_reasons: Mapping[str, int]
    errors: Mapping[str, int]
    shortfalls: int
    cache_hits: int
    versions: Mapping[Version, int]
    coverage: float


@dataclass(frozen=True)
class Finding:
    """Something a check found. An `advisory` one rests on too few runs to fail anything.

    `examples` are keys of runs, for a terminal; they are never stored.
    """

    check: str
    subject: str
    text: str
    severity: Severity = "error"
    advisory: bool = False
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """One rule over the corpus. `severity` is that of its worst failing finding, `warning` when it was not judged."""

    name: str
    rule: str
    verdict: Verdict
    severity: Severity | None
    summary: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Reproducibility:
    """Repeated runs of one video against each other.

    `pairs` counts repetitions in which something was computed anew, `failing` those that differ in too many features,
    `worst_share` the largest share of differing features, `columns` how often each column differed.
    """

    pairs: int = 0
    failing: int = 0
    worst_share: float = float("nan")
    columns: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReferenceReport:
    """What an earlier report left for comparison. `versions`: component → its version then."""

    created_at: str
    columns: Mapping[str, Reference]
    versions: Mapping[str, Version]


@dataclass(frozen=True)
class HealthReport:
    """Feature health of one corpus."""

    created_at: str
    profile: str
    config_hash: str
    sampling_policy_version: str
    n_runs: int
    n_videos: int
    n_rows: int
    n_sources: int
    set_aside: int
    rules: Rules
    columns: tuple[ColumnHealth, ...]
    components: tuple[ComponentHealth, ...]
    embeddings: Mapping[str, float]
    pairs: Sequence[Pair]
    reproducibility: Reproducibility
    checks: tuple[CheckResult, ...]
    reference_created_at: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every rule was judged and holds; only then may a corpus grow to its next stage."""
        return all(check.verdict == "pass" for check in self.checks)

    @property
    def findings(self) -> list[Finding]:
        """All findings: failing ones first, errors before warnings."""
        found = [finding for check in self.checks for finding in check.findings]
        return sorted(found, key=lambda finding: (finding.advisory, finding.severity != "error"))
