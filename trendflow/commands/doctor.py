"""`trendflow doctor`: everything that processing videos needs, examined, with one sentence on what to do."""

from __future__ import annotations

import json
from typing import Any

from trendflow.commands.console import err, out, table
from trendflow.commands.doctor_deployment import deployment_examinations
from trendflow.commands.doctor_machine import machine_examinations
from trendflow.commands.examination import Examination
from trendflow.commands.fleet import status_of
from trendflow.config import Settings, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.service.health import Check, Finding, run_checks

# Digests of all weights of a profile are computed; everything else answers in moments.
_LIMIT_SEC = 300.0
_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def doctor(as_json: bool) -> int:
    """Examine everything and print one line each. Raises the first failure of what is needed, after printing all."""
    settings = load_settings()
    examinations = _examinations(settings)
    with err.status("examining"):
        findings = run_checks([Check(found.name, found.run) for found in examinations], _LIMIT_SEC)
    rows = [_row(*pair) for pair in zip(examinations, findings, strict=True)]
    if as_json:
        failed = any(row["state"] == "error" for row in rows)
        out.print_json(json.dumps({"state": "error" if failed else "ok", "checks": rows}))
    else:
        _print(rows)
    for examination, finding in zip(examinations, findings, strict=True):
        if examination.needed and finding.error_code is not None:
            raise TrendFlowError(finding.error_code, f"{examination.name}: {finding.text}")
    return 0


def _examinations(settings: Settings) -> list[Examination]:
    return [
        *machine_examinations(settings, _uses_model_server(settings)),
        *deployment_examinations(settings),
        Examination(
            "fleet",
            lambda: _fleet(settings),
            "Run 'trendflow up' for what has ended; look at 'trendflow status' and the logs for what does not answer.",
        ),
    ]


def _uses_model_server(settings: Settings) -> bool:
    from trendflow.orchestration.deployment import open_deployment

    try:
        profile = open_deployment(settings).graph.profile(settings.profile)
    except TrendFlowError:
        return False  # the graph has an examination of its own
    return "triton" in profile.runtimes.values()


def _fleet(settings: Settings) -> str:
    found = status_of(settings)
    if not found["is_up"]:
        return "not up; commands work on their own"
    broken = [row for row in found["services"] if row["condition"] in ("dead", "unhealthy")]
    if broken:
        texts = "; ".join(f"{row['service']} is {row['condition']}: {row['reason']}" for row in broken)
        raise TrendFlowError("internal_error", f"{texts}.")
    running = sum(row["condition"] == "healthy" for row in found["services"])
    return f"{running} services are healthy"


def _row(examination: Examination, finding: Finding) -> dict[str, Any]:
    wrong = finding.error_code is not None
    return {
        "name": finding.name,
        "state": ("error" if examination.needed else "warning") if wrong else "ok",
        "error_code": finding.error_code,
        "finding": finding.text,
        "advice": examination.advice if wrong else None,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    lines = [
        [row["name"], f"[{_STYLES[row['state']]}]{row['state']}[/]", row["finding"], row["advice"] or ""]
        for row in rows
    ]
    out.print(table(None, ["check", "state", "finding", "what to do"], lines))
