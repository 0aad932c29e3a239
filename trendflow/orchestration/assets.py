"""Generates the assets from the component graph.

The components of one stage share one Dagster step (a subsettable multi-asset), because a step costs more than most
cached components; `step_granularity=component` gives every component a step of its own.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    multi_asset,
)

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode
from trendflow.contracts.keys import code_version, data_version, model_signature
from trendflow.orchestration.checks import DESCRIPTIONS, VALID, run_checks
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.inputs import drop_scratch
from trendflow.orchestration.metadata import result_metadata, run_metadata
from trendflow.orchestration.partitions import video_runs
from trendflow.orchestration.report_step import write_report
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import finalise, persist, run_component

OWNERS = ["team:data-engineering"]
IO_MANAGER_KEY = "artifacts"
ERROR_TAG = "trendflow/error_code"
_KINDS = {"segmenter": {"python", "ffmpeg"}, "audio": {"python", "numpy"}, "visual": {"python", "onnx"}}
MANIFEST, REPORT = "run_manifest", "run_report"

StageResult = Iterator[MaterializeResult[Finished] | AssetCheckResult]


def planned_code_version(deployment: Deployment, node: ComponentNode) -> str:
    """producer_version + schema_version + signature of the models the default profile maps."""
    spec = deployment.registry[node.name].spec
    mapping = deployment.graph.profile(deployment.settings.profile).models
    roles = [role for role in (*node.required_roles, *node.optional_roles) if role in mapping]
    entries = [deployment.catalogue[mapping[role]] for role in roles]
    signature = model_signature(entry.model_used(entry.device_policy) for entry in entries)
    return code_version(spec.producer_version, node.schema_version, signature)


def component_spec(deployment: Deployment, node: ComponentNode) -> AssetSpec:
    deps = [dep for dep in node.deps if dep in deployment.graph.components]
    spec = AssetSpec(
        key=node.name,
        deps=deps,
        description=node.description,
        group_name=node.stage,
        owners=OWNERS,
        kinds=_KINDS.get(node.processor, {"python"}),
        code_version=planned_code_version(deployment, node),
        skippable=True,  # a component whose run already failed is skipped, not failed
        partitions_def=video_runs,
        tags={"trendflow/tier": str(node.tier), "trendflow/unit": node.unit},
        metadata={
            "schema_version": node.schema_version,
            "soft_dependencies": ", ".join(node.soft) or "none",
            "model_roles": ", ".join((*node.required_roles, *node.optional_roles)) or "none",
        },
    )
    return spec.with_io_manager_key(IO_MANAGER_KEY)


def check_specs(node: ComponentNode) -> list[AssetCheckSpec]:
    return [
        AssetCheckSpec(name, asset=node.name, description=text, blocking=name == VALID)
        for name, text in DESCRIPTIONS.items()
    ]


def build_step(deployment: Deployment, name: str, nodes: Sequence[ComponentNode]) -> AssetsDefinition:
    """One Dagster step that runs `nodes` in topological order."""

    @multi_asset(
        name=name,
        specs=[component_spec(deployment, node) for node in nodes],
        check_specs=[check for node in nodes for check in check_specs(node)],
        can_subset=True,
    )
    def step(context: AssetExecutionContext, trendflow: TrendFlowResource) -> StageResult:
        run = _open(context, trendflow)
        selected = {key.path[-1] for key in context.selected_asset_keys}
        for node in nodes:
            if node.name in selected and run.is_enabled(node.name) and not _already_failed(context, run):
                yield from _materialize(context, run, node)

    return step


def _open(context: AssetExecutionContext, trendflow: TrendFlowResource) -> RunContext:
    try:
        return trendflow.run(context.partition_key)
    except TrendFlowError as error:
        raise _failure(context, error, "run") from error


def _materialize(context: AssetExecutionContext, run: RunContext, node: ComponentNode) -> StageResult:
    finished = run_component(run, node.name)
    if finished.origin == "error" and run.is_required(node.name):
        # Stored before it is raised: the store must explain the run even when Dagster's history is gone.
        persist(run, finished)
        finalise(run)
        drop_scratch(run)
        meta = finished.meta
        raise _failure(context, TrendFlowError(meta["error_code"], meta["error"]), node.name)
    yield MaterializeResult(
        asset_key=node.name,
        value=finished,
        data_version=DataVersion(data_version(finished.digests)),
        metadata=result_metadata(run, finished),
    )
    for check in run_checks(run, node):
        severity = AssetCheckSeverity.ERROR if check.blocking else AssetCheckSeverity.WARN
        yield AssetCheckResult(
            asset_key=node.name,
            check_name=check.name,
            passed=check.passed,
            severity=severity,
            metadata=dict(check.findings),
        )


def _failure(context: AssetExecutionContext, error: TrendFlowError, component: str) -> Failure:
    context.instance.add_run_tags(context.run.run_id, {ERROR_TAG: error.error_code})
    metadata: dict[str, Any] = {
        "error_code": MetadataValue.text(error.error_code),
        "error_class": MetadataValue.text(error.error_class),
        "component": MetadataValue.text(component),
    }
    # Retries by error class already happened inside the wrapper; another by Dagster could not help.
    return Failure(description=f"{component}: {error}", metadata=metadata, allow_retries=False)


def _already_failed(context: AssetExecutionContext, run: RunContext) -> bool:
    """True when a required component failed in this attempt: then nothing new starts.

    An error row of an earlier attempt does not count; this attempt may well repair it.
    """
    failed = [row for row in run.manifest()["components"] if row["status"] == "error" and run.is_required(row["name"])]
    if not failed:
        return False
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None or record.start_time is None:
        return False
    began = datetime.fromtimestamp(record.start_time, UTC)
    return any(datetime.fromisoformat(row["started_at"]) >= began for row in failed)


def build_closing_assets(deployment: Deployment) -> AssetsDefinition:
    """The last two assets of a run: its closed manifest and its report."""
    names = list(deployment.graph.components)
    specs = [
        AssetSpec(
            MANIFEST,
            deps=names,
            description="The closed manifest of a run: every component with its status, digests and versions.",
            group_name="run",
            owners=OWNERS,
            kinds={"json"},
            skippable=True,
            partitions_def=video_runs,
        ),
        AssetSpec(
            REPORT,
            deps=[MANIFEST],
            description="One self-contained HTML page that shows what was found in the video.",
            group_name="run",
            owners=OWNERS,
            kinds={"html"},
            skippable=True,
            partitions_def=video_runs,
        ),
    ]

    @multi_asset(name="close_run", specs=specs, can_subset=True)
    def close_run(context: AssetExecutionContext, trendflow: TrendFlowResource) -> Iterator[MaterializeResult[Any]]:
        run = _open(context, trendflow)
        selected = {key.path[-1] for key in context.selected_asset_keys}
        if MANIFEST in selected:
            manifest = finalise(run)
            yield MaterializeResult(asset_key=MANIFEST, metadata=run_metadata(run, manifest))
        if REPORT in selected:
            try:
                key, size = write_report(run)
            except TrendFlowError as error:
                raise _failure(context, error, REPORT) from error
            yield MaterializeResult(asset_key=REPORT, metadata={"report": key, "bytes": size})
        drop_scratch(run)

    return close_run


def build_assets(deployment: Deployment) -> list[AssetsDefinition]:
    """All assets of the graph. Raises `config_invalid` when graph and code disagree."""
    per_component = deployment.settings.step_granularity == "component"
    steps: dict[str, list[ComponentNode]] = {}
    for node in deployment.graph.components.values():
        steps.setdefault(node.name if per_component else node.stage, []).append(node)
    built = [build_step(deployment, f"run_{name}", nodes) for name, nodes in steps.items()]
    return [*built, build_closing_assets(deployment)]
