"""`trendflow health`: judge the features of all runs together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.commands.console import err, out, table
from trendflow.commands.files import write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.dataset.health_model import CheckResult, Finding, HealthReport

FAIL_ON = ("error", "warning")
_VERDICTS = {"pass": "[green]holds[/]", "not_judged": "[yellow]not judged[/]"}
_COLOURS = {"error": "red", "warning": "yellow"}
_SHOWN = 30


def health(
    keys: list[str],
    profile: str | None,
    reference: Path | None,
    page: Path | None,
    document: Path | None,
    fail_on: str | None,
) -> int:
    """Print the verdict on every rule and what breaks it; write the page and the JSON document where asked.

    Returns 0 unless `fail_on` asks for more: `error` raises `artifact_validation_failed` when a rule is broken that
    spoils data, `warning` also for one that deserves a look or could not be judged.
    """
    if fail_on is not None and fail_on not in FAIL_ON:
        raise TrendFlowError("config_invalid", f"--fail-on is one of {', '.join(FAIL_ON)}, not {fail_on!r}.")
    if page is not None and document is not None and os.path.realpath(page) == os.path.realpath(document):
        raise TrendFlowError("config_invalid", "--output and --json name the same file; each needs one of its own.")
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.health_step import judge, load_reference

    settings = load_settings()
    deployment = open_deployment(settings)
    before = None if reference is None else load_reference(reference, deployment.schemas)
    try:
        with err.status("reading feature vectors"):
            report = judge(deployment, profile or settings.profile, before, keys)
    except TrendFlowError as error:
        if error.detail.get("kind") != "artifact" or fail_on is not None:
            raise
        out.print(error.message, highlight=False, soft_wrap=True)
        return 0
    if page is not None:
        from trendflow.presentation.health_page import render_health_page

        write_output(page, render_health_page(report).encode())
    if document is not None:
        from trendflow.dataset.health_document import to_json

        write_output(document, to_json(report))
    _print(report)
    for what, path in (("page", page), ("document", document)):
        if path is not None:
            out.print(f"{what} {path}", highlight=False, soft_wrap=True)
    broken = [check.name for check in report.checks if _counts(check, fail_on)]
    if broken:
        raise TrendFlowError("artifact_validation_failed", f"Feature health does not hold: {', '.join(broken)}.")
    return 0


def _counts(check: CheckResult, fail_on: str | None) -> bool:
    if fail_on is None or check.verdict == "pass":
        return False
    return fail_on == "warning" or check.severity == "error"


def _print(report: HealthReport) -> None:
    from trendflow.presentation.formatting import plural

    left = report.n_videos - report.n_rows
    aside = f", {plural(left, 'video')} without a comparable vector" if left else ""
    out.print(
        f"[bold]{report.profile}[/]  {plural(len(report.columns), 'feature')} of {plural(report.n_rows, 'video')} "
        f"({plural(report.n_sources, 'source file')}) from {plural(report.n_runs, 'finished run')}{aside}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(table(None, ["rule", "verdict", "result"], [_rule(check) for check in report.checks]))
    failing = [finding for finding in report.findings if not finding.advisory]
    hints = [finding for finding in report.findings if finding.advisory]
    for title, findings in (("findings", failing), ("hints: too few runs, or a registered reason", hints)):
        if findings:
            rows = [_row(finding) for finding in findings[:_SHOWN]]
            out.print(table(title, ["rule", "severity", "subject", "finding"], rows))
            if len(findings) > _SHOWN:
                out.print(f"… and {len(findings) - _SHOWN} more; --json writes all of them")


def _rule(check: CheckResult) -> list[str]:
    colour = _COLOURS[check.severity or "warning"]
    return [check.name, _VERDICTS.get(check.verdict) or f"[{colour}]fails[/]", check.summary]


def _row(finding: Finding) -> list[str]:
    where = f" Look at: {', '.join(finding.examples)}." if finding.examples else ""
    severity = "hint" if finding.advisory else f"[{_COLOURS[finding.severity]}]{finding.severity}[/]"
    return [finding.check, severity, finding.subject.replace(" = ", "\n= "), f"{finding.text}{where}"]
