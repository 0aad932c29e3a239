"""Generates the assets from the component graph.

All assets of a run share one subsettable Dagster step. Which component runs, is skipped or ends the run depends on what
became of its dependencies, which a graph of steps cannot express: Dagster skips everything below an asset that was not
materialised. It is also several times cheaper than a step per component.
"""

from collections.abc import Collection, Iterable, Iterator
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

from trendflow import __version__
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode
from trendflow.contracts.keys import code_version, data_version, model_signature
from trendflow.contracts.manifest import ends_run, find_row
from trendflow.media import worker
from trendflow.models.resolve import entry_for_role
from trendflow.orchestration.checks import DESCRIPTION, VALID, check_stored
from trendflow.orchestration.costs import record_costs
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.metadata import report_metadata, result_metadata, run_metadata
from trendflow.orchestration.partitions import video_runs
from trendflow.orchestration.queue.child import leaving_to_successor
from trendflow.orchestration.queue.names import WORKER_TAG
from trendflow.orchestration.recorder import Halted
from trendflow.orchestration.report_step import write_report
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retries import failure_tags
from trendflow.orchestration.run_state import RunFailed, executing
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.scratch import drop_scratch, sweep_scratch
from trendflow.orchestration.text_intake import handed_over
from trendflow.orchestration.wrapper import blocked_by, finalise, run_component, skip, skipped_error, store
from trendflow.state.errors import Fenced

OWNERS = ["team:data-engineering"]
IO_MANAGER_KEY = "artifacts"
_KINDS = {"segmenter": {"python", "ffmpeg"}, "audio": {"python", "numpy"}, "visual": {"python", "onnx"}}
MANIFEST, REPORT = "run_manifest", "run_report"

STEP = "video_run"

Results = Iterator[MaterializeResult[Any] | AssetCheckResult]


def planned_code_version(deployment: Deployment, node: ComponentNode) -> str:
    """producer_version + schema_version + signature of the models the default profile maps."""
    spec = deployment.registry[node.name].spec
    profile = deployment.graph.profile(deployment.settings.profile)
    roles = [role for role in (*node.required_roles, *node.optional_roles) if role in profile.models]
    entries = [entry_for_role(deployment.catalogue, profile.models, profile.runtimes, role) for role in roles]
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


def closing_specs(deployment: Deployment) -> list[AssetSpec]:
    """The last two assets of a run: its closed manifest and its report."""
    return [
        AssetSpec(
            MANIFEST,
            deps=list(deployment.graph.components),
            description="The closed manifest of a run: every component with its status, digests and versions.",
            group_name="run",
            owners=OWNERS,
            kinds={"json"},
            code_version=__version__,
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
            code_version=__version__,
            skippable=True,
            partitions_def=video_runs,
        ),
    ]


def build_assets(deployment: Deployment) -> AssetsDefinition:
    """All assets of the graph. Raises `config_invalid` when graph and code disagree."""
    nodes = list(deployment.registry.graph.components.values())

    @multi_asset(
        name=STEP,
        specs=[*(component_spec(deployment, node) for node in nodes), *closing_specs(deployment)],
        check_specs=[AssetCheckSpec(VALID, asset=node.name, description=DESCRIPTION, blocking=True) for node in nodes],
        can_subset=True,
    )
    def video_run(context: AssetExecutionContext, trendflow: TrendFlowResource) -> Results:
        worker.warm_up()  # its start overlaps with opening the run
        selected = {key.path[-1] for key in context.selected_asset_keys}
        try:
            with leaving_to_successor(context.instance, context.run):
                run = trendflow.run(context.partition_key)
                run.clock.start()
                with handed_over(run), executing(run, context.run.tags.get(WORKER_TAG)):
                    yield from _execute(context, run, [node for node in nodes if node.name in selected], selected)
        except RunFailed as failed:
            raise _failure(context, failed.error, failed.component, failed.retries) from failed
        except Halted as halted:
            raise _failure(context, halted.error, "run") from halted.error
        except TrendFlowError as error:
            raise _failure(context, error, "run") from error

    return video_run


def _execute(
    context: AssetExecutionContext, run: RunContext, nodes: Iterable[ComponentNode], selected: Collection[str]
) -> Results:
    sweep_scratch(run.deployment.settings.scratch_dir)
    try:
        for node in nodes:
            if run.is_enabled(node.name):
                yield from _component(run, node)
        yield from _close(context, run, selected)
    except Halted:
        run.costs.clear()  # nothing more is stored
        raise
    finally:
        record_costs(run)
        drop_scratch(run)


def _component(run: RunContext, node: ComponentNode) -> Results:
    run.recorder.require()
    because = blocked_by(run, node.name)
    if because is not None:
        skip(run, node.name, because)
        if run.is_required(node.name):
            error = skipped_error(node.name, because)
            finalise(run, error.message.removesuffix("."))
            raise RunFailed(error, node.name)
        return
    finished = run_component(run, node.name)
    run.recorder.require()
    if finished.origin == "error" and run.is_required(node.name):
        # Stored before it is raised: the store must explain the run even when Dagster's history is gone.
        row = store(run, finished)
    else:
        yield MaterializeResult(
            asset_key=node.name,
            value=finished,
            data_version=DataVersion(data_version(finished.digests)),
            metadata=result_metadata(run, finished),
        )
        row = find_row(run.manifest(), node.name) or {}
    if ends_run(row, run.required):
        finalise(run)
        raise RunFailed(TrendFlowError(row["error_code"], row["error"]), node.name, row["retry_count"])
    check = check_stored(run, node)
    yield AssetCheckResult(
        asset_key=node.name,
        check_name=VALID,
        passed=check.passed,
        severity=AssetCheckSeverity.WARN if check.sound else AssetCheckSeverity.ERROR,
        metadata=dict(check.findings),
    )
    if not check.sound:
        # Blocking checks hold back other steps; inside this one nothing else would stop what comes next.
        finalise(run, f"{node.name} is stored but not valid")
        error = TrendFlowError("artifact_validation_failed", "What was stored is not valid; see its asset check.")
        raise RunFailed(error, node.name)


def _close(context: AssetExecutionContext, run: RunContext, selected: Collection[str]) -> Results:
    if MANIFEST in selected:
        run.recorder.require()
        manifest = finalise(run)
        yield MaterializeResult(asset_key=MANIFEST, metadata=run_metadata(run, manifest))
    if REPORT in selected:
        try:
            key, size = write_report(run)
        except TrendFlowError as error:
            raise _failure(context, error, REPORT) from error
        yield MaterializeResult(asset_key=REPORT, metadata=report_metadata(run, key, size))


def _failure(
    context: AssetExecutionContext, error: TrendFlowError, component: str, retries: int | None = None
) -> Failure:
    if not isinstance(error, Fenced):  # the run goes on in another process, and has not failed of anything
        context.instance.add_run_tags(context.run.run_id, failure_tags(context.run.tags, error.error_code, retries))
    metadata: dict[str, Any] = {
        "error_code": MetadataValue.text(error.error_code),
        "error_class": MetadataValue.text(error.error_class),
        "component": MetadataValue.text(component),
    }
    # Retries by error class already happened inside the wrapper; another by Dagster could not help.
    return Failure(description=f"{component}: {error}", metadata=metadata, allow_retries=False)
