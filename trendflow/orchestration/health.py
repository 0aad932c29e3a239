"""The asset `feature_health`: the feature vectors of all runs of a profile, judged together.

It depends on every partition of `feature_vector` and loads none of them through the IO manager: it reads the columns it
needs from the store.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from dagster import (
    AllPartitionMapping,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetDep,
    AssetsDefinition,
    Config,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field

from trendflow.contracts.schema_docs import markdown_table
from trendflow.dataset.corpus import VECTOR
from trendflow.dataset.health_checks import CHECKS
from trendflow.dataset.health_model import CheckResult
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.failures import typed_failures
from trendflow.orchestration.health_step import HEALTH, StoredHealth, judge, load_reference, store_report
from trendflow.orchestration.report_step import report_location
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.presentation.health_page import VERDICT_TEXTS

_ROWS = 40  # of a Markdown table; the JSON document has all


class HealthConfig(Config):
    """What to judge and what to compare with."""

    profile: str | None = Field(default=None, description="Profile whose runs are judged; default is the deployment's.")
    reference: str | None = Field(default=None, description="JSON file of an earlier report, to find drift.")


def build_health_asset() -> AssetsDefinition:
    """The asset with one check per rule. Checks warn about what could not be judged: that is no pass."""

    @asset(
        name=HEALTH,
        deps=[AssetDep(VECTOR, partition_mapping=AllPartitionMapping())],
        group_name="dataset",
        # One missed tick of the daily schedule, and the time that a late one may take, are forgiven.
        freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
        description="Coverage, constants, ranges, duplicates, drift and provenance of the features of all runs.",
        owners=OWNERS,
        kinds={"python", "html"},
        check_specs=[AssetCheckSpec(check.name, asset=HEALTH, description=check.rule) for check in CHECKS],
    )
    def feature_health(
        config: HealthConfig, trendflow: TrendFlowResource
    ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
        opened = trendflow.deployment
        with typed_failures():
            reference = None if config.reference is None else load_reference(Path(config.reference), opened.schemas)
            report = judge(opened, config.profile or opened.settings.profile, reference)
            stored = store_report(opened, report)
        yield MaterializeResult(asset_key=HEALTH, metadata=_metadata(opened, stored))
        for check in report.checks:
            yield _check_result(check)

    return feature_health


def _metadata(deployment: Deployment, stored: StoredHealth) -> dict[str, Any]:
    report = stored.report
    failing = [finding for finding in report.findings if not finding.advisory]
    return {
        "report": MetadataValue.path(report_location(deployment.store, stored.page_key)),
        "json": MetadataValue.path(report_location(deployment.store, stored.json_key)),
        "open_elsewhere": f"trendflow health --profile {report.profile} --output health.html",
        "rules": MetadataValue.md(
            _markdown(
                ("rule", "verdict", "result"),
                [(check.name, VERDICT_TEXTS[check.verdict], check.summary) for check in report.checks],
            )
        ),
        "findings": MetadataValue.md(
            _markdown(
                ("rule", "subject", "finding"),
                [(finding.check, f"`{finding.subject}`", finding.text) for finding in failing[:_ROWS]],
            )
        ),
        "passed": report.passed,
        "runs": report.n_runs,
        "videos": report.n_rows,
        "source_files": report.n_sources,
        "features": len(report.columns),
        "failing_findings": len(failing),
        "duplicate_pairs": len(report.pairs),
        "profile": report.profile,
        "config_hash": report.config_hash,
    }


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(head, rows) if rows else "none"


def _check_result(check: CheckResult) -> AssetCheckResult:
    failing = [finding for finding in check.findings if not finding.advisory]
    return AssetCheckResult(
        asset_key=HEALTH,
        check_name=check.name,
        passed=check.verdict == "pass",
        severity=AssetCheckSeverity.ERROR if check.severity == "error" else AssetCheckSeverity.WARN,
        metadata={
            "verdict": VERDICT_TEXTS[check.verdict],
            "result": check.summary,
            "findings": MetadataValue.md(
                _markdown(("subject", "finding"), [(f"`{found.subject}`", found.text) for found in failing[:_ROWS]])
            ),
        },
    )
