"""The asset `feature_health`: the feature vectors of all runs of a profile, judged together.

It depends on every partition of `feature_vector` and loads none of them through the IO manager: it reads the columns it
needs from the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    Failure,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.corpus import VECTOR
from trendflow.dataset.health import assess, read_corpus
from trendflow.dataset.health_checks import CHECKS
from trendflow.dataset.health_document import read_reference, to_json
from trendflow.dataset.health_model import CheckResult, HealthReport, ReferenceReport
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.report_step import report_location
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.runs import run_path_of
from trendflow.presentation.health_page import VERDICT_TEXTS, render_health_page

HEALTH = "feature_health"
_ROWS = 40  # of a Markdown table; the page has all


@dataclass(frozen=True)
class StoredHealth:
    """A report and where its two presentations lie in the store."""

    report: HealthReport
    page_key: str
    json_key: str


class HealthConfig(Config):
    """What to judge and what to compare with."""

    profile: str | None = Field(default=None, description="Profile whose runs are judged; default is the deployment's.")
    reference: str | None = Field(default=None, description="JSON file of an earlier report, to find drift.")


def load_reference(path: Path, schemas: SchemaRegistry) -> ReferenceReport:
    """An earlier report from a file. Raises `config_invalid` when there is none at `path`."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise TrendFlowError("config_invalid", f"The reference {path.name!r} cannot be read.") from exc
    return read_reference(data, schemas)


def judge(
    deployment: Deployment, profile: str, reference: ReferenceReport | None = None, keys: Sequence[str] = ()
) -> HealthReport:
    """The health of the finished runs of a profile, or of those among them that `keys` name.

    Raises `dependency_missing` when none has a feature vector, `config_invalid` for an unknown profile.
    """
    components = deployment.graph.profile(profile).components
    required = [name for name, component in components.items() if component.required]
    paths = [run_path_of(key) for key in keys] or None
    return assess(read_corpus(deployment.results, deployment.schemas, profile, required, paths), reference)


def store_report(deployment: Deployment, report: HealthReport) -> StoredHealth:
    """Render and store a report, in place of the last one of its profile."""
    folder = f"render_cache/_corpus/{report.profile}"  # no platform begins with an underscore
    stored = StoredHealth(report, f"{folder}/{HEALTH}.html", f"{folder}/{HEALTH}.json")
    deployment.store.put(stored.page_key, render_health_page(report).encode())
    deployment.store.put(stored.json_key, to_json(report))
    return stored


def build_health_asset() -> AssetsDefinition:
    """The asset with one check per rule. Checks warn about what could not be judged: that is no pass."""

    @asset(
        name=HEALTH,
        deps=[AssetDep(VECTOR, partition_mapping=AllPartitionMapping())],
        group_name="dataset",
        description="Coverage, constants, ranges, duplicates, drift and provenance of the features of all runs.",
        owners=OWNERS,
        kinds={"python", "html"},
        check_specs=[AssetCheckSpec(check.name, asset=HEALTH, description=check.rule) for check in CHECKS],
    )
    def feature_health(
        config: HealthConfig, trendflow: TrendFlowResource
    ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
        opened = trendflow.deployment
        try:
            reference = None if config.reference is None else load_reference(Path(config.reference), opened.schemas)
            report = judge(opened, config.profile or opened.settings.profile, reference)
            stored = store_report(opened, report)
        except TrendFlowError as error:
            raise Failure(
                description=str(error),
                metadata={"error_code": MetadataValue.text(error.error_code)},
                allow_retries=error.error_class == "transient",
            ) from error
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
    if not rows:
        return "none"
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


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
