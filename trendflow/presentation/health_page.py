"""The feature health of a corpus as one HTML file, in the look of the run report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from trendflow.contracts.keys import model_signature
from trendflow.presentation.blocks import Tile
from trendflow.presentation.formatting import MISSING, moment, number, percent, plural, short_hash
from trendflow.presentation.pages import asset, render_page
from trendflow.presentation.svg import Chart

if TYPE_CHECKING:
    from trendflow.dataset.health_model import CheckResult, ColumnHealth, ComponentHealth, Finding, HealthReport

_BINS = 24
_LISTED = 200  # findings of one rule, and pairs; one fault can spoil hundreds of features, and the JSON has all
_NO_MODEL = model_signature(())

VERDICT_TEXTS = {"pass": "Holds", "fail": "Fails", "not_judged": "Not judged"}
_TITLES = {"nan_rate": "NaN rate"}
_BADGES = {"error": "error", "warning": "warning"}


@dataclass(frozen=True)
class ColumnRow:
    """One feature as the page shows it."""

    name: str
    unit: str
    present: str
    values: str
    middle: str
    span: str
    drift: str
    note: str
    chart: Markup | None


def render_health_page(report: HealthReport) -> str:
    """The page as text; it names no video. Raises `artifact_validation_failed` beyond 3 MB."""
    return render_page("health.html.j2", _context(report))


def _context(report: HealthReport) -> dict[str, Any]:
    findings = report.findings
    failing = [finding for finding in findings if not finding.advisory]
    # Pairs have a list of their own, where their number of runs can be seen.
    hints = [finding for finding in findings if finding.advisory and finding.check != "duplicates"]
    return {
        "title": f"{report.profile} · TrendFlow feature health",
        "synthetic": False,
        "profile": report.profile,
        "verdict": _verdict(report),
        "header": _header(report),
        "tiles": _tiles(report, failing),
        "checks": [_check(check) for check in report.checks],
        "failing": _listed(failing),
        "failing_count": len(failing),
        "hints": _listed(hints),
        "hint_count": len(hints),
        "components": [_component(component, report) for component in report.components],
        "groups": _groups(report),
        "pairs": [_pair(report, pair) for pair in report.pairs[:_LISTED]],
        "pair_count": len(report.pairs),
        "embeddings": [(name, percent(share)) for name, share in report.embeddings.items()],
        "css": asset("report.css") + asset("blocks.css") + asset("health.css"),
    }


def _verdict(report: HealthReport) -> tuple[str, str]:
    """Badge and word for the whole corpus."""
    if report.passed:
        return "ok", "Passed"
    broken = any(check.verdict == "fail" for check in report.checks)
    return ("error", "Fails") if broken else ("empty", "Not judged in full")


def _header(report: HealthReport) -> list[tuple[str, str]]:
    return [
        ("Computed", moment(report.created_at)),
        ("Configuration", short_hash(report.config_hash)),
        ("Sampling policy", report.sampling_policy_version),
        ("Rules", report.rules.version),
        ("Reference", moment(report.reference_created_at) if report.reference_created_at else "none"),
    ]


def _tiles(report: HealthReport, failing: Sequence[Finding]) -> list[Tile]:
    errors = sum(finding.severity == "error" for finding in failing)
    left = report.n_videos - report.n_rows
    measured = sum(column.statistics.n > 0 for column in report.columns)
    least = int(report.rules.limits.min_runs)
    judged = sum(check.verdict != "not_judged" for check in report.checks)
    return [
        Tile(
            "Videos",
            f"{report.n_rows}",
            f"from {plural(report.n_runs, 'finished run')}"
            + (f"; {left} without a comparable vector" if left else "; one row per video"),
        ),
        Tile(
            "Different source files",
            f"{report.n_sources}",
            "enough to call a feature constant" if report.n_sources >= least else f"constants need {least}",
            report.n_sources < least,
        ),
        Tile(
            "Features",
            f"{len(report.columns)}",
            "all measured at least once"
            if measured == len(report.columns)
            else f"{len(report.columns) - measured} never measured",
        ),
        Tile(
            "Failing findings",
            f"{len(failing)}",
            f"{plural(errors, 'error')}, {plural(len(failing) - errors, 'warning')}" if failing else "none",
            not failing,
        ),
        Tile("Rules judged", f"{judged} of {len(report.checks)}", "the others lack runs or a reference"),
    ]


def _check(check: CheckResult) -> dict[str, str]:
    badge = {"pass": "ok", "not_judged": "empty"}.get(check.verdict) or _BADGES[check.severity or "warning"]
    return {
        "name": _title(check.name),
        "rule": check.rule,
        "badge": badge,
        "verdict": VERDICT_TEXTS[check.verdict],
        "summary": check.summary,
    }


def _listed(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The first of every rule: many of one must not hide the others."""
    seen: Counter[str] = Counter()
    rows = []
    for finding in findings:
        seen[finding.check] += 1
        if seen[finding.check] <= _LISTED:
            rows.append(_finding(finding))
    return rows


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": _title(finding.check),
        "subjects": [_short(subject) for subject in _subjects(finding)],
        "text": finding.text,
        "badge": "empty" if finding.advisory else _BADGES[finding.severity],
        "severity": "Hint" if finding.advisory else finding.severity.capitalize(),
    }


def _subjects(finding: Finding) -> list[str]:
    """The columns or the component a finding is about; two columns that say the same are written as an equation."""
    return finding.subject.split(" = ")


def _title(check: str) -> str:
    return _TITLES.get(check) or check.capitalize()


def _short(column: str) -> str:
    """A column without what every column says: a plain feature's statistic."""
    return column.removesuffix("__value").replace("__", " · ", 1)


def _component(component: ComponentHealth, report: HealthReport) -> dict[str, Any]:
    total = sum(component.statuses.values())
    return {
        "name": component.name,
        "share": 0.0 if math.isnan(component.coverage) else component.coverage,
        "coverage": percent(component.coverage),
        "columns": sum(column.info.component == component.name for column in report.columns),
        "statuses": [(status, f"{count}") for status, count in component.statuses.items()],
        "why": [f"{name} {count}" for name, count in (*component.empty_reasons.items(), *component.errors.items())],
        "shortfalls": f"{component.shortfalls}" if component.shortfalls else MISSING,
        "cached": percent(component.cache_hits / total) if total else MISSING,
        "versions": [
            f"{producer}, {'no model' if signature == _NO_MODEL else f'model {short_hash(signature, 8)}'}"
            + (f": {plural(runs, 'run')}" if len(component.versions) > 1 else "")
            for (producer, _, signature), runs in component.versions.items()
        ],
    }


def _groups(report: HealthReport) -> list[dict[str, Any]]:
    """Columns by component."""
    failing = (finding for finding in report.findings if not finding.advisory)
    flagged = {subject for finding in failing for subject in _subjects(finding)}
    groups: dict[str, list[ColumnHealth]] = {}
    for column in report.columns:
        groups.setdefault(column.info.component, []).append(column)
    return [
        {
            "component": component,
            "rows": [_column(column) for column in columns],
            "flagged": sum(column.name in flagged for column in columns),
        }
        for component, columns in groups.items()
    ]


def _column(column: ColumnHealth) -> ColumnRow:
    found = column.statistics
    span = f"{number(found.p01)} … {number(found.p99)}" if found.n else MISSING
    return ColumnRow(
        name=_short(column.name).removeprefix(f"{column.info.component} · "),
        unit=column.info.unit,
        present=percent(1 - found.nan_rate - found.inf_rate) if found.n_rows else MISSING,
        values=f"{found.n_unique}",
        middle=number(found.p50),
        span=span,
        drift=MISSING if column.drift is None else number(column.drift.ks, 2),
        note=_why_missing({**column.empty_reasons, **column.absent_reasons}),
        chart=_distribution(column),
    )


def _why_missing(reasons: Mapping[str, int]) -> str:
    """The most frequent reason and how many others there are."""
    if not reasons:
        return ""
    first, count = max(reasons.items(), key=lambda item: (item[1], item[0]))
    others = f", {plural(len(reasons) - 1, 'other reason')}" if len(reasons) > 1 else ""
    return f"missing in {count}: {first}{others}"


def _distribution(column: ColumnHealth) -> Markup | None:
    """A histogram between the 1st and the 99th percentile; None for fewer than two different values."""
    found = column.statistics
    if found.n_unique < 2:
        return None
    low, high = (found.p01, found.p99) if found.p99 > found.p01 else (found.sketch[0], found.sketch[-1])
    if not high > low:  # the few other values lie between two order statistics
        return None
    counts, _ = np.histogram(np.clip(found.sketch, low, high), bins=_BINS, range=(low, high))
    chart = Chart((0.0, float(_BINS)), (0.0, float(counts.max())), height=24.0)
    chart.steps(np.arange(_BINS + 1.0), counts, "curve", "area")
    return chart.render(f"Distribution from {number(low)} to {number(high)}", css="spark")


def _pair(report: HealthReport, pair: Any) -> dict[str, str]:
    return {
        "first": _short(report.columns[pair.first].name),
        "second": _short(report.columns[pair.second].name),
        "pearson": number(pair.pearson),
        "spearman": number(pair.spearman),
        "n": f"{pair.n}",
    }
