"""The rules of feature health. Each check looks at the same evidence and says pass, fail or why it cannot judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trendflow.dataset.column_statistics import out_of_range
from trendflow.dataset.corpus import Corpus, RunRecord
from trendflow.dataset.duplicates import Pair
from trendflow.dataset.feature_table import FeatureTable
from trendflow.dataset.health_model import (
    CheckResult,
    ColumnHealth,
    ComponentHealth,
    Finding,
    ReferenceReport,
    Reproducibility,
    Severity,
)
from trendflow.dataset.health_rules import Limits, Rules

_AUDIO_PRESENT = "segmenter__audio_present__value"
# Reasons whose subject is announced by something known before it was looked for. Nothing announces faces or a beat.
_NEEDS_AUDIO = frozenset({"audio_missing_or_extract_failed", "audio_silent", "audio_too_short"})
_NEEDS_TEXT = frozenset({"no_text_available"})
_NEVER_EXPECTED = frozenset({"too_few_frames", "video_too_short"})  # shorter videos are refused before a run


@dataclass(frozen=True)
class Evidence:
    """Everything the checks may look at."""

    corpus: Corpus
    table: FeatureTable
    columns: tuple[ColumnHealth, ...]
    components: tuple[ComponentHealth, ...]
    pairs: tuple[Pair, ...]
    reproducibility: Reproducibility
    reference: ReferenceReport | None
    rules: Rules

    @property
    def limits(self) -> Limits:
        return self.rules.limits

    @property
    def n_rows(self) -> int:
        return len(self.table.records)

    @property
    def n_sources(self) -> int:
        return int(self.table.first_of_source.sum())

    def too_few(self, least: float, n: int | None = None) -> str | None:
        """Why `n` rows (default: all) are not enough, or None."""
        n = self.n_rows if n is None else n
        return f"not enough runs: {n} of {least:g}" if n < least else None


@dataclass(frozen=True)
class Check:
    """A rule: `judged` gives the reason why it cannot be judged, `find` what breaks it."""

    name: str
    rule: str
    judged: Callable[[Evidence], str | None]
    find: Callable[[Evidence], Iterable[Finding]]

    def result(self, evidence: Evidence) -> CheckResult:
        findings = tuple(self.find(evidence))
        failing = [finding for finding in findings if not finding.advisory]
        hints = len(findings) - len(failing)
        if failing:
            worst: Severity = "error" if any(finding.severity == "error" for finding in failing) else "warning"
            return CheckResult(self.name, self.rule, "fail", worst, _found(len(failing), hints), findings)
        why = self.judged(evidence)
        if why is not None:
            summary = f"{why}; {_hints(hints)}" if hints else why
            return CheckResult(self.name, self.rule, "not_judged", "warning", summary, findings)
        return CheckResult(self.name, self.rule, "pass", None, _hints(hints) if hints else "in order", findings)


def _found(failing: int, hints: int) -> str:
    text = f"{failing} finding" if failing == 1 else f"{failing} findings"
    return f"{text} and {_hints(hints)}" if hints else text


def _hints(count: int) -> str:
    return f"{count} hint" if count == 1 else f"{count} hints"


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _coverage(evidence: Evidence) -> Iterator[Finding]:
    corpus, table = evidence.corpus, evidence.table
    without = len(corpus.latest) - evidence.n_rows
    if without:
        share = evidence.n_rows / len(corpus.latest)
        enough = share >= evidence.limits.coverage or evidence.too_few(evidence.limits.low_n, len(corpus.latest))
        yield Finding(
            "coverage",
            "feature_vector",
            f"{without} of {len(corpus.latest)} videos have no feature vector of this configuration.",
            "warning",
            advisory=bool(enough),
            examples=_keys(run for run in corpus.latest if not run.successful),
        )
    broken = (*corpus.unreadable, *table.unreadable)
    if broken:
        yield Finding(
            "coverage", "result_store", f"{len(broken)} stored runs could not be read.", examples=tuple(broken[:3])
        )


def _nan_rate(evidence: Evidence) -> Iterator[Finding]:
    limits, reference = evidence.limits, evidence.reference
    for column in evidence.columns:
        rate, n = column.statistics.nan_rate, column.statistics.n_rows
        advisory = n < limits.low_n
        if column.unexplained_rate > limits.nan_rate and n >= limits.least_rows:
            yield Finding(
                "nan_rate",
                column.name,
                f"Missing in {_share(column.unexplained_rate)} of {n} runs without a reason.",
                advisory=advisory,
            )
        before = reference.columns.get(column.name) if reference else None
        if before is not None and rate - before.nan_rate > limits.nan_rate_increase:
            yield Finding(
                "nan_rate",
                column.name,
                f"Missing in {_share(rate)} of {n} runs, {_share(before.nan_rate)} in the reference.",
                advisory=advisory or before.n < limits.low_n,
            )


def _constants(evidence: Evidence) -> Iterator[Finding]:
    limits = evidence.limits
    for column in evidence.columns:
        found, n = column.statistics, column.statistics.n
        if n < limits.least_rows:
            continue
        top = found.top_value_share > limits.top_value_share
        if not top and not found.spread <= limits.narrow_spread:
            continue
        if top:
            text = f"{_share(found.top_value_share)} of {n} values are {found.top_value:g}."
        else:
            text = f"98 % of {n} values lie between {found.p01:.6g} and {found.p99:.6g}."
        reason = evidence.rules.constant_reason(column.name)
        text = text if reason is None else f"{text} {reason}"
        advisory = reason is not None or column.diverse < limits.min_runs
        yield Finding("constants", column.name, text, "error" if top else "warning", advisory)


def _ranges(evidence: Evidence) -> Iterator[Finding]:
    table = evidence.table
    for index, column in enumerate(evidence.columns):
        values = np.where(table.comparable[:, index], table.values[:, index].astype(np.float64), np.nan)
        infinite = np.isinf(values)
        if infinite.any():
            text = f"Infinite in {_share(column.statistics.inf_rate)} of {column.statistics.n_rows} runs."
            yield Finding("ranges", column.name, text, examples=_at(table, infinite))
        outside = out_of_range(values, column.info.range) & ~infinite
        if outside.any():
            low, high = ("…" if bound is None else f"{bound:g}" for bound in column.info.range)
            text = (
                f"{int(outside.sum())} of {column.statistics.n} values lie outside [{low}, {high}], "
                f"from {values[outside].min():g} to {values[outside].max():g}."
            )
            yield Finding("ranges", column.name, text, examples=_at(table, outside))


def _duplicates(evidence: Evidence) -> Iterator[Finding]:
    for pair in evidence.pairs:
        first, second = (evidence.columns[index].name for index in (pair.first, pair.second))
        yield Finding(
            "duplicates",
            f"{first} = {second}",
            f"Pearson {pair.pearson:.4f}, Spearman {pair.spearman:.4f} over {pair.n} runs.",
            advisory=pair.n < evidence.limits.low_n,
        )


def _drift(evidence: Evidence) -> Iterator[Finding]:
    reference, limits = evidence.reference, evidence.limits
    if reference is None:
        return
    for component in changed_components(evidence):
        yield Finding(
            "drift",
            component,
            "Another version computed the reference; its columns are not compared.",
            "warning",
            advisory=True,
        )
    gone = sorted(set(reference.columns) - {column.name for column in evidence.columns})
    for name in gone:
        yield Finding("drift", name, "A column of the reference that no run has any more.", "warning")
    for column in evidence.columns:
        found = column.drift
        if found is None:
            continue
        rows = min(found.n, found.n_reference)
        if found.ks > limits.ks and found.ks_p < limits.ks_p and rows >= limits.least_rows:
            text = f"KS {found.ks:.3f}, p {found.ks_p:.2g} ({found.n} against {found.n_reference} runs)."
            yield Finding("drift", column.name, text, "warning", rows < limits.low_n)
        elif found.psi > limits.psi and rows >= limits.psi_min_runs:
            yield Finding("drift", column.name, f"PSI {found.psi:.3f}, KS {found.ks:.3f}.", "warning")


def changed_components(evidence: Evidence) -> list[str]:
    """Components whose version is not the one behind the reference."""
    if evidence.reference is None:
        return []
    before = evidence.reference.versions
    now = {component.name: component.versions for component in evidence.components}
    return sorted(name for name, version in before.items() if now.get(name) and version != next(iter(now[name])))


def _provenance(evidence: Evidence) -> Iterator[Finding]:
    if evidence.corpus.set_aside:
        count = sum(evidence.corpus.set_aside.values())
        yield Finding(
            "provenance",
            "configuration",
            f"{count} videos have a vector of another configuration only; they are left out.",
        )
    for component in evidence.components:
        if len(component.versions) > 1:
            parts = ", ".join(
                f"{producer} / {schema} / {signature[:8]}: {count}"
                for (producer, schema, signature), count in component.versions.items()
            )
            yield Finding("provenance", component.name, f"{len(component.versions)} versions, runs of each: {parts}.")


def _reproducibility(evidence: Evidence) -> Iterator[Finding]:
    found, limits = evidence.reproducibility, evidence.limits
    if found.failing:
        often = ", ".join(list(found.columns)[:5])
        yield Finding(
            "reproducibility",
            "repeated runs",
            f"{found.failing} of {found.pairs} repetitions differ in more than {_share(limits.reproducible_share)} "
            f"of their features, at worst in {_share(found.worst_share)}: {often}.",
            advisory=evidence.n_rows < limits.low_n,
            examples=found.examples,
        )


def _empties(evidence: Evidence) -> Iterator[Finding]:
    records = evidence.table.records
    audio = evidence.table.column(_AUDIO_PRESENT)
    with_audio = np.zeros(len(records), dtype=bool) if audio is None else audio == 1
    expected = {
        **dict.fromkeys(_NEEDS_AUDIO, with_audio),
        **dict.fromkeys(_NEEDS_TEXT, np.array([record.has_document for record in records], dtype=bool)),
        **dict.fromkeys(_NEVER_EXPECTED, np.ones(len(records), dtype=bool)),
    }
    for component in evidence.components:
        reasons = [_empty_reason(record, component.name) for record in records]
        for reason in sorted({found for found in reasons if found in expected}):
            runs = expected[reason]
            hits = runs & np.array([found == reason for found in reasons])
            if hits.sum() > evidence.limits.empty_share * runs.sum():
                yield Finding(
                    "empties",
                    component.name,
                    f"Empty with {reason} in {int(hits.sum())} of {int(runs.sum())} runs that should have its subject.",
                    "warning",
                    advisory=int(runs.sum()) < evidence.limits.low_n,
                    examples=_at(evidence.table, hits),
                )


def _empty_reason(record: RunRecord, component: str) -> str | None:
    outcome = record.outcomes.get(component)
    return None if outcome is None else outcome.empty_reason


def _at(table: FeatureTable, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(table.records[row].key for row in np.flatnonzero(rows)[:3])


def _keys(records: Iterable[RunRecord]) -> tuple[str, ...]:
    return tuple(record.key for record in records)[:3]


def _needs(limit: Callable[[Limits], float], distinct: bool = False) -> Callable[[Evidence], str | None]:
    def judged(evidence: Evidence) -> str | None:
        return evidence.too_few(limit(evidence.limits), evidence.n_sources if distinct else None)

    return judged


def _drift_judged(evidence: Evidence) -> str | None:
    if evidence.reference is None:
        return "no reference was given"
    return evidence.too_few(evidence.limits.low_n)


def _repeats_judged(evidence: Evidence) -> str | None:
    if not evidence.reproducibility.pairs:
        return "no video was computed twice"
    return evidence.too_few(evidence.limits.low_n)


def _always(evidence: Evidence) -> str | None:
    return None


CHECKS = (
    Check("coverage", "Nearly every video has a feature vector.", _needs(lambda limits: limits.low_n), _coverage),
    Check("nan_rate", "Missing values have reasons and do not spread.", _needs(lambda limits: limits.low_n), _nan_rate),
    Check("constants", "Every feature varies.", _needs(lambda limits: limits.min_runs, distinct=True), _constants),
    Check("ranges", "Values are finite and within the range of their schema.", _always, _ranges),
    Check("duplicates", "No two features say the same.", _needs(lambda limits: limits.low_n), _duplicates),
    Check("drift", "Distributions are those of the reference.", _drift_judged, _drift),
    Check("provenance", "One version of each component computed all runs.", _always, _provenance),
    Check("reproducibility", "Computing a video twice gives the same features.", _repeats_judged, _reproducibility),
    Check("empties", "What should be there is found.", _needs(lambda limits: limits.low_n), _empties),
)
"""In the order in which they are shown."""
