"""Feature health: what the columns of a corpus hold, and which rules they break.

`read_corpus` reads, `assess` computes. What is computed names no video, so that deleting one leaves nothing behind in
a stored report; only `Finding.examples`, which is not stored, does.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trendflow.contracts.canonical import utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.vocab import EMPTY_REASONS
from trendflow.dataset.column_statistics import column_statistics
from trendflow.dataset.corpus import Corpus, RunRecord, find_corpus
from trendflow.dataset.drift import drift
from trendflow.dataset.duplicates import Pair, duplicate_pairs
from trendflow.dataset.feature_table import FeatureTable, Vector, build_table, read_vectors
from trendflow.dataset.health_checks import CHECKS, Evidence, changed_components
from trendflow.dataset.health_model import ColumnHealth, ComponentHealth, HealthReport, ReferenceReport
from trendflow.dataset.health_rules import Rules, load_rules
from trendflow.dataset.reproducibility import compare_repeats
from trendflow.storage.result_store import ResultStore

K = TypeVar("K")


@dataclass(frozen=True)
class Readings:
    """What was read of a corpus: its table, and the vectors of the second runs of videos that were computed twice."""

    corpus: Corpus
    table: FeatureTable
    earlier: Sequence[tuple[RunRecord, Vector]] = ()


def read_corpus(
    results: ResultStore,
    schemas: SchemaRegistry,
    profile: str,
    required: Sequence[str],
    run_paths: Sequence[str] | None = None,
    *,
    tombstones: Container[tuple[str, str]] = frozenset(),
) -> Readings:
    """Read the feature vectors of the runs `find_corpus` selects; errors as there.

    Raises `dependency_missing` when no finished run of the profile has one.
    """
    corpus = find_corpus(results, profile, required, run_paths, tombstones=tombstones)
    rows, unreadable = read_vectors(results, corpus.rows)
    if not rows:
        raise TrendFlowError(
            "dependency_missing",
            f"No finished run of profile {profile!r} has a feature vector; process a video first.",
            kind="artifact",
        )
    earlier, lost = read_vectors(results, [older for _, older in corpus.repeats])
    return Readings(corpus, build_table(rows, schemas, (*unreadable, *lost)), earlier)


def assess(
    readings: Readings,
    reference: ReferenceReport | None = None,
    rules: Rules | None = None,
) -> HealthReport:
    """The health of a corpus under `rules`, by default those of this release. Order of runs and columns is no input."""
    rules = rules or load_rules()
    corpus, table = readings.corpus, readings.table
    comparable = np.where(table.comparable, table.values.astype(np.float64), np.nan)
    pairs = tuple(duplicate_pairs(comparable, rules.limits.duplicate_correlation, int(rules.limits.least_rows)))
    columns = _columns(table, pairs)
    deviations = np.array([column.statistics.std for column in columns])
    evidence = Evidence(
        corpus=corpus,
        table=table,
        columns=columns,
        components=_components(corpus, table),
        pairs=pairs,
        reproducibility=compare_repeats(table, deviations, corpus.repeats, readings.earlier, rules.limits),
        reference=reference,
        rules=rules,
    )
    if reference is not None:
        evidence = dataclasses.replace(evidence, columns=_compared(evidence, comparable, reference))
    config_hash, policy = corpus.configuration or ("", "")
    return HealthReport(
        created_at=utc_now(),
        profile=corpus.profile,
        config_hash=config_hash,
        sampling_policy_version=policy,
        n_runs=corpus.n_runs,
        n_videos=len(corpus.latest),
        n_rows=evidence.n_rows,
        n_sources=evidence.n_sources,
        set_aside=sum(corpus.set_aside.values()),
        rules=rules,
        columns=evidence.columns,
        components=evidence.components,
        embeddings=table.embeddings,
        pairs=pairs,
        reproducibility=evidence.reproducibility,
        checks=tuple(check.result(evidence) for check in CHECKS),
        reference_created_at=None if reference is None else reference.created_at,
    )


def _columns(table: FeatureTable, pairs: Sequence[Pair]) -> tuple[ColumnHealth, ...]:
    partners: dict[int, list[str]] = {}
    for pair in pairs:
        partners.setdefault(pair.first, []).append(table.columns[pair.second].name)
        partners.setdefault(pair.second, []).append(table.columns[pair.first].name)
    first_of_source = table.first_of_source
    found = []
    for index, info in enumerate(table.columns):
        rows = table.comparable[:, index]
        values = table.values[rows, index]
        finite = np.isfinite(table.values[:, index])
        codes, counts = np.unique(table.reason_codes[rows, index], return_counts=True)
        reasons = {
            table.reasons[code]: int(count)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True)
            if code >= 0
        }
        found.append(
            ColumnHealth(
                info=info,
                statistics=column_statistics(values, info.range),
                coverage=float(finite.mean()),
                diverse=int((finite & rows & first_of_source).sum()),
                unexplained_rate=float(table.unexplained[rows, index].mean()) if rows.any() else float("nan"),
                empty_reasons={reason: count for reason, count in reasons.items() if reason in EMPTY_REASONS},
                absent_reasons={reason: count for reason, count in reasons.items() if reason not in EMPTY_REASONS},
                duplicates=tuple(sorted(partners.get(index, ()))),
            )
        )
    return tuple(found)


def _compared(evidence: Evidence, comparable: np.ndarray, reference: ReferenceReport) -> tuple[ColumnHealth, ...]:
    """The columns with their drift, where the same version computed both sides."""
    changed = set(changed_components(evidence))
    found = []
    for index, column in enumerate(evidence.columns):
        before = reference.columns.get(column.name)
        if before is not None and column.info.component not in changed:
            values = comparable[:, index]
            column = dataclasses.replace(column, drift=drift(values[np.isfinite(values)], before))
        found.append(column)
    return tuple(found)


def _components(corpus: Corpus, table: FeatureTable) -> tuple[ComponentHealth, ...]:
    outcomes = {name for run in corpus.latest for name in (*run.outcomes, *run.skipped)}
    finite = np.isfinite(table.values)
    found = []
    for name in sorted(outcomes):
        latest = [run.outcomes[name] for run in corpus.latest if name in run.outcomes]
        rows = [run.outcomes[name] for run in table.records if name in run.outcomes]
        statuses = Counter(outcome.status for outcome in latest)
        statuses["skipped"] = sum(name in run.skipped for run in corpus.latest)
        columns = [index for index, info in enumerate(table.columns) if info.component == name]
        found.append(
            ComponentHealth(
                name=name,
                statuses=_counts(statuses),
                empty_reasons=_counts(Counter(outcome.empty_reason for outcome in latest if outcome.empty_reason)),
                errors=_counts(Counter(outcome.error_code for outcome in latest if outcome.error_code)),
                shortfalls=sum(outcome.shortfall for outcome in latest),
                cache_hits=sum(outcome.cache_hit for outcome in latest),
                versions=_counts(Counter(outcome.version for outcome in rows if outcome.status != "error")),
                coverage=float(finite[:, columns].mean()) if columns else float("nan"),
            )
        )
    return tuple(found)


def _counts(counter: Counter[K]) -> Mapping[K, int]:
    """Non-zero counts, the largest first; equal ones in an order that does not depend on the runs'."""
    return dict(sorted(((key, n) for key, n in counter.items() if n), key=lambda item: (-item[1], str(item[0]))))
