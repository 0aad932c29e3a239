"""The leakage guard: refuses whatever a model could not have known at the first snapshot.

It runs on a finished table with its provenance: at build, on the written dataset before training, and on the one row of
a forecast. Five nets, each blind to what the others see: provenance of every column, the times it was observed at, its
source, its name, and, where outcomes are known, what it says about them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.leakage_statistics import Outcome, correlations
from trendflow.dataset.table.columns import (
    CAPTURED,
    CHANNEL_SEEN,
    DOCUMENT_SEEN,
    FIRST_SEEN,
    PUBLISHED,
    ColumnProvenance,
)
from trendflow.dataset.table.feature_spec import LeakagePolicy
from trendflow.dataset.targets import HEADS

if TYPE_CHECKING:
    from trendflow.dataset.table.reader import Dataset

Net = Literal["provenance", "observation_time", "source", "name", "statistics"]
Verdict = Literal["pass", "fail", "not_judged"]
AUDIT_SCHEMA, AUDIT_FILE = "leakage_audit_v1", "leakage_report.json"
NETS: tuple[Net, ...] = ("provenance", "observation_time", "source", "name", "statistics")

SOURCE_KINDS = frozenset({"media", "document", "snapshot", "derived"})
"""What a feature may be read off. Comments, follow-up snapshots and outcomes are none of these."""

_COMMENT_COUNTERS = frozenset({"comments_0", "comments_per_view_0"})  # numbers, read off the first snapshot
_COMMENTS = re.compile(r"comment")
_FORBIDDEN_NAME = re.compile(r"target_|mask_|snapshot_[1-9]|_(?:7|14|21)d(?![0-9a-z])")
_NO_FEATURE = re.compile(r"(?:target|mask|x0|observed_hours)_")
_NO_FEATURES = frozenset(
    {
        *("platform_id", "video_id", "run_id", "channel_id", "age_bucket"),
        *(PUBLISHED, CAPTURED, FIRST_SEEN, CHANNEL_SEEN, DOCUMENT_SEEN),
    }
)
_BEYOND_FIRST, _BEYOND_FIRST_MIN_ROWS = 0.99, 30


@dataclass(frozen=True)
class Finding:
    """What one net caught: a column and a sentence. `rows` is the number of rows concerned, where that is defined."""

    net: Net
    column: str
    message: str
    rows: int | None = None


@dataclass(frozen=True)
class LeakageAudit:
    """The verdict of every net and all findings; `n_rows` and `n_columns` say what was looked at."""

    n_rows: int
    n_columns: int
    verdicts: Mapping[Net, Verdict]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings

    def document(self) -> dict[str, Any]:
        """The audit as a document. Raises `artifact_validation_failed` when it breaks its own schema."""
        found = {
            "schema_version": AUDIT_SCHEMA,
            "passed": self.passed,
            "n_rows": self.n_rows,
            "n_columns": self.n_columns,
            "verdicts": dict(self.verdicts),
            "findings": [asdict(finding) for finding in self.findings],
        }
        require_audit(found)
        return found


def audit(
    table: pa.Table,
    provenance: Sequence[ColumnProvenance],
    policy: LeakagePolicy,
    features: Sequence[str] | None = None,
) -> LeakageAudit:
    """Hold every feature of `table` against all nets.

    `features` are the columns a model would be given; by default all that have provenance and all that are no id, time,
    target or mask, so a column that somebody added is one. The table needs `t0` and the time columns that the
    provenance names. Statistics are not judged where the table has no targets, or fewer rows than the policy asks for.
    """
    known = {found.column: found for found in provenance}
    added = {name for name in table.column_names if not is_no_feature(name)}
    named = sorted({*known, *added}) if features is None else features
    held = set(table.column_names)
    columns = {name: table[name].combine_chunks() for name in named if name in held}
    outcomes = _outcomes(table)
    judged = any(np.count_nonzero(outcome.observed) >= policy.alarm_min_rows for outcome in outcomes)
    findings = [
        *_without_provenance(named, held, known),
        *_late(table, columns, known, policy),
        *_forbidden_sources(named, columns, known),
        *_forbidden_names(named),
        *_telling(columns, outcomes, policy),
    ]
    caught = {finding.net for finding in findings}
    verdicts: dict[Net, Verdict] = {net: "fail" if net in caught else "pass" for net in NETS}
    if not judged and "statistics" not in caught:
        verdicts["statistics"] = "not_judged"
    return LeakageAudit(table.num_rows, len(named), verdicts, tuple(findings))


def audit_dataset(dataset: Dataset) -> LeakageAudit:
    """The audit of a dataset as it was read from its files."""
    return audit(dataset.table, dataset.provenance, dataset.spec.leakage)


def require_audit(document: Any) -> None:
    """Raise `artifact_validation_failed` unless this is the document of an audit."""
    problems = validate_document(SchemaRegistry.load(), AUDIT_SCHEMA, document)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"A document is no {AUDIT_SCHEMA}: {problems[0]}")


def require_clean(found: LeakageAudit) -> None:
    """Raise `leakage_violation` with all findings in its detail unless there are none."""
    if found.passed:
        return
    first, more = found.findings[0], len(found.findings) - 1
    raise TrendFlowError(
        "leakage_violation",
        f"{first.message}{f' {more} more columns or rules are affected.' if more else ''}",
        findings=[asdict(finding) for finding in found.findings],
    )


def is_no_feature(column: str) -> bool:
    """Whether a column of a dataset is an id, a time, a target, a mask or what a target is reckoned from."""
    return column in _NO_FEATURES or _NO_FEATURE.match(column) is not None


def _without_provenance(
    named: Sequence[str], held: Collection[str], known: Mapping[str, ColumnProvenance]
) -> Iterator[Finding]:
    for name in named:
        if name not in held:
            yield Finding("provenance", name, f"The feature {name} is not in the table.")
        elif name not in known:
            yield Finding("provenance", name, f"The feature {name} has no provenance.")


def _late(
    table: pa.Table, columns: Mapping[str, pa.Array], known: Mapping[str, ColumnProvenance], policy: LeakagePolicy
) -> Iterator[Finding]:
    """Values observed after the first snapshot, or at no known time."""
    limit = pc.add(_times(table[FIRST_SEEN]), pa.scalar(round(policy.tolerance_minutes * 60e6), pa.int64()))
    outside: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if name not in known:
            continue
        clock = known[name].observed_at
        if clock not in outside:
            if clock not in table.column_names or not pa.types.is_timestamp(table[clock].type):
                yield Finding("observation_time", name, f"The table has no times {clock!r}, which {name} refers to.")
                continue
            in_time = pc.less_equal(_times(table[clock]), limit)
            outside[clock] = ~pc.fill_null(in_time, False).to_numpy(zero_copy_only=False)
        rows = int(np.count_nonzero(outside[clock] & _present(values)))
        if rows:
            yield Finding(
                "observation_time",
                name,
                f"The feature {name} was observed after the first snapshot, or at no known time, in {rows} rows.",
                rows,
            )


def _forbidden_sources(
    named: Sequence[str], columns: Mapping[str, pa.Array], known: Mapping[str, ColumnProvenance]
) -> Iterator[Finding]:
    for name in named:
        if name in known and known[name].source_kind not in SOURCE_KINDS:
            kind = known[name].source_kind
            yield Finding("source", name, f"The feature {name} is read off {kind!r}, which is never a source.")
        elif _COMMENTS.search(name.lower()) and name not in _COMMENT_COUNTERS:
            yield Finding("source", name, f"The feature {name} speaks of comments, which are never a source.")
        elif name in _NO_FEATURES or (name in columns and pa.types.is_temporal(columns[name].type)):
            yield Finding("source", name, f"The column {name} identifies or dates a row and is never a feature.")


def _forbidden_names(named: Sequence[str]) -> Iterator[Finding]:
    for name in named:
        if _FORBIDDEN_NAME.search(name) or (_NO_FEATURE.match(name) and name not in _NO_FEATURES):
            yield Finding("name", name, f"The feature {name} is named like a target, a mask or a later snapshot.")


def _telling(columns: Mapping[str, pa.Array], outcomes: list[Outcome], policy: LeakagePolicy) -> Iterator[Finding]:
    """Columns that follow an outcome more closely than the first snapshot can, each reported once."""
    numbers = (
        found for name, values in columns.items() if name not in policy.reviewed for found in _series(name, values)
    )
    told: dict[str, Finding] = {}
    for found in correlations(numbers, outcomes, min(_BEYOND_FIRST_MIN_ROWS, policy.alarm_min_rows)):
        if found.n >= policy.alarm_min_rows and abs(found.with_target) > policy.alarm_spearman:
            message = (
                f"The feature {found.column} has a rank correlation of {found.with_target:+.3f} with "
                f"{found.outcome} on {found.n} rows."
            )
        elif abs(found.beyond_first) > _BEYOND_FIRST:
            message = (
                f"The feature {found.column} tells of {found.outcome} what the first snapshot does not, with a partial "
                f"rank correlation of {found.beyond_first:+.3f} on {found.n} rows."
            )
        else:
            continue
        told.setdefault(found.column, Finding("statistics", found.column, message, found.n))
    yield from told.values()


def _series(name: str, values: pa.Array) -> Iterator[tuple[str, np.ndarray]]:
    """What there is to rank in a column: its numbers as float64 [R] with NaN for null, of an embedding each element."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        held = values.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), kind.list_size)
        for element in range(kind.list_size):
            numbers = np.full(len(values), np.nan)
            numbers[rows] = held[:, element]
            yield name, numbers
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        whole = values.cast(pa.int8()) if pa.types.is_boolean(kind) else values
        yield name, np.asarray(whole.to_numpy(zero_copy_only=False), dtype=np.float64)


def _outcomes(table: pa.Table) -> list[Outcome]:
    """Every counter and horizon that the table holds targets of."""
    found = []
    for head in HEADS:
        target, before = f"target_{head}", f"x0_{head.partition('_')[0]}"
        if target in table.column_names and before in table.column_names:
            y = table[target].to_numpy().astype(np.float64)
            x0 = table[before].to_numpy().astype(np.float64)
            found.append(Outcome(head, y, x0, x0 + np.expm1(y)))
    return found


def _present(values: pa.Array) -> np.ndarray:
    """bool [R]: cells that hold a value, NaN being none."""
    valid = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        valid = pc.and_(valid, pc.fill_null(pc.invert(pc.is_nan(values)), False))
    return np.asarray(valid.to_numpy(zero_copy_only=False), dtype=bool)


def _times(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.cast(values, pa.timestamp("us", tz="UTC")), pa.int64())
