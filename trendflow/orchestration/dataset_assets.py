"""The assets from snapshots to `training_dataset`. They span videos: each judges all runs of a profile together."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from dagster import (
    AllPartitionMapping,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetDep,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    Config,
    DataVersion,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    asset,
    multi_asset,
)
from pydantic import Field

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.schedule import SchedulePolicy
from trendflow.dataset.corpus import VECTOR
from trendflow.dataset.leakage import Finding
from trendflow.dataset.program import builder_digest
from trendflow.dataset.stored_tables import StoredTable
from trendflow.dataset.table.fingerprint import TABLE_VERSION
from trendflow.dataset.targets import TargetPolicy
from trendflow.dataset.verdict import CheckVerdict
from trendflow.orchestration import dataset_metadata as shown
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.dataset_checks import RULES, check_stored_dataset, leakage_check
from trendflow.orchestration.dataset_step import (
    BuildRequest,
    build_stored,
    collect_due,
    configured_files,
    publish_built,
    store_built,
    store_channels,
    store_snapshots,
    store_targets,
)
from trendflow.orchestration.failures import failure, typed_failures
from trendflow.orchestration.resources import TrendFlowResource

COLLECTED, SNAPSHOTS, TARGETS, CHANNELS = "collected_snapshots", "snapshots", "targets", "channel_enrichment"
FEATURE_TABLE, TRAINING_DATASET = "feature_table", "training_dataset"
# Apart: collecting needs a key of the platform and its own pace; all of the other group can be made at once.
_COLLECTION, _GROUP = "collection", "dataset"

# One missed tick of the schedule, and the time that a late one may take, are forgiven.
_DAILY = FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
_WEEKLY = FreshnessPolicy.time_window(fail_window=timedelta(days=15), warn_window=timedelta(days=8))

Results = Iterator[MaterializeResult[Any] | AssetCheckResult]


class CollectorConfig(Config):
    """How often the collector runs, which decides how early it may take a snapshot."""

    cadence_hours: float = Field(default=24.0, gt=0, description="Hours between two runs.")


class SnapshotsConfig(Config):
    """Where snapshots come from."""

    files: list[str] = Field(
        default_factory=list,
        description="JSON shards, Parquet or CSV tables; default is every such file of TRENDFLOW_SNAPSHOT_FOLDER.",
    )
    collected: bool = Field(default=True, description="Also what the collector took.")


class TargetsConfig(Config):
    """How snapshots become targets; see `TargetPolicy`."""

    horizon_tolerance_hours: float = Field(default=24.0, description="How far a snapshot may lie from its horizon.")
    decrease_policy: Literal["mask", "floor"] = Field(
        default="mask", description="A counter that fell has no target, or one of zero."
    )
    decrease_tolerance: float = Field(default=0.001, description="Share by which a counter may fall unnoticed.")


class DatasetConfig(Config):
    """What a dataset is built of."""

    profile: str | None = Field(default=None, description="Profile of the runs; default is the deployment's.")
    config_hash: str | None = Field(default=None, description="Their configuration; default that of the profile now.")
    metadata_only: bool = Field(default=False, description="Use first snapshots alone, without any run.")
    feature_spec: str | None = Field(default=None, description="File of the feature spec; default is the shipped one.")
    readers: int = Field(default=8, ge=1, le=64, description="Files read at once.")
    allow_mixed: bool = Field(default=False, description="Keep runs of several releases; training refuses the result.")
    synthetic: bool = Field(default=False, description="Accept SYNTHETIC inputs; the dataset says so.")
    min_coverage: float = Field(default=0.5, ge=0, le=1, description="Share of videos that should have each target.")


def build_dataset_assets() -> list[AssetsDefinition]:
    """Collector, import, targets, channels, and the step that makes the feature table and the dataset."""
    return [_collected(), _snapshots(), _targets(), _channels(), _dataset()]


def _collected() -> AssetsDefinition:
    @asset(
        name=COLLECTED,
        group_name=_COLLECTION,
        freshness_policy=_DAILY,
        owners=OWNERS,
        kinds={"python"},
        description="One run of the collector: the snapshots of followed videos that are due now, in the store.",
    )
    def collected_snapshots(config: CollectorConfig, trendflow: TrendFlowResource) -> MaterializeResult[Any]:
        with typed_failures():
            report = collect_due(trendflow.deployment, SchedulePolicy(cadence_hours=config.cadence_hours))
        # An exhausted quota is how the collector is meant to stop; what is left stays due.
        return MaterializeResult(metadata=shown.of_collector(report))

    return collected_snapshots


def _snapshots() -> AssetsDefinition:
    @asset(
        name=SNAPSHOTS,
        deps=[COLLECTED],
        group_name=_GROUP,
        freshness_policy=_WEEKLY,
        owners=OWNERS,
        kinds={"parquet"},
        description="Snapshots of files and of the collector in one form: snapshots_v1 and videos_v1.",
    )
    def snapshots(config: SnapshotsConfig, trendflow: TrendFlowResource) -> MaterializeResult[Any]:
        deployment = trendflow.deployment
        with typed_failures():
            files = [Path(name) for name in config.files] or configured_files(deployment)
            stored, found = store_snapshots(deployment, files, config.collected)
        return _made(stored, shown.of_snapshots(deployment, stored, found))

    return snapshots


def _targets() -> AssetsDefinition:
    @asset(
        name=TARGETS,
        deps=[SNAPSHOTS],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"parquet"},
        description="How far views and likes rise within 7, 14 and 21 days; what cannot be known is masked.",
    )
    def targets(config: TargetsConfig, trendflow: TrendFlowResource) -> MaterializeResult[Any]:
        deployment = trendflow.deployment
        with typed_failures():
            stored, made = store_targets(deployment, TargetPolicy(**config.model_dump()))
        return _made(stored, shown.of_targets(deployment, stored, made))

    return targets


def _channels() -> AssetsDefinition:
    @asset(
        name=CHANNELS,
        deps=[SNAPSHOTS],
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"parquet"},
        description="Channels that snapshots lack, asked for on the platform. Without a key it says so and adds none.",
    )
    def channel_enrichment(context: AssetExecutionContext, trendflow: TrendFlowResource) -> MaterializeResult[Any]:
        deployment = trendflow.deployment
        with typed_failures():
            stored, looked = store_channels(deployment)
        if looked.unasked is not None:
            context.log.warning(looked.unasked)
        return _made(stored, shown.of_channels(deployment, stored, looked))

    return channel_enrichment


def _dataset() -> AssetsDefinition:
    specs = [
        _table_spec(
            FEATURE_TABLE,
            [
                AssetDep(SNAPSHOTS),
                AssetDep(CHANNELS),
                AssetDep(VECTOR, partition_mapping=AllPartitionMapping()),
            ],
            "One row per video: what its newest successful run and its first snapshot say, no outcome.",
        ),
        _table_spec(
            TRAINING_DATASET,
            [AssetDep(FEATURE_TABLE), AssetDep(TARGETS)],
            "The feature table with targets and masks, fingerprinted and held against the leakage guard.",
        ),
    ]

    @multi_asset(
        name="dataset_build",
        specs=specs,
        check_specs=[AssetCheckSpec(name, asset=TRAINING_DATASET, description=rule) for name, rule in RULES.items()],
    )
    def dataset_build(context: AssetExecutionContext, config: DatasetConfig, trendflow: TrendFlowResource) -> Results:
        deployment = trendflow.deployment
        request = BuildRequest(
            profile=config.profile,
            config_hash=config.config_hash,
            metadata_only=config.metadata_only,
            spec=None if config.feature_spec is None else Path(config.feature_spec),
            readers=config.readers,
            allow_mixed=config.allow_mixed,
            synthetic=config.synthetic,
        )
        try:
            built = build_stored(deployment, request)
            stored = store_built(deployment, built)
            checks = check_stored_dataset(deployment, stored, config.min_coverage)
            unsound = [check for check in checks if not check.sound]
            if not unsound:
                publish_built(deployment, stored)
        except TrendFlowError as error:
            if error.error_code == "leakage_violation":
                findings = [Finding(**found) for found in error.detail.get("findings", [])]
                yield _check_result(leakage_check(findings, None))
            raise failure(error) from error
        if unsound:
            yield from map(_check_result, checks)
            raise failure(TrendFlowError("artifact_validation_failed", f"{unsound[0].name}: {unsound[0].result}."))
        yield MaterializeResult(
            asset_key=FEATURE_TABLE,
            data_version=DataVersion(shown.feature_digest(built)),
            metadata=shown.of_feature_table(built),
        )
        yield MaterializeResult(
            asset_key=TRAINING_DATASET,
            data_version=DataVersion(stored.facts["fingerprint"]),
            metadata=shown.of_dataset(deployment, stored, built),
        )
        yield from map(_check_result, checks)

    return dataset_build


def _made(stored: StoredTable, metadata: dict[str, Any]) -> MaterializeResult[Any]:
    return MaterializeResult(data_version=DataVersion(stored.digest), metadata=metadata)


def _code_version() -> str:
    """The form of the tables and the program that fills them."""
    return f"{TABLE_VERSION}-{builder_digest()[:12]}"


def _table_spec(name: str, deps: list[AssetDep], description: str) -> AssetSpec:
    return AssetSpec(
        name,
        deps=deps,
        description=description,
        group_name=_GROUP,
        owners=OWNERS,
        kinds={"parquet"},
        code_version=_code_version(),
        freshness_policy=_WEEKLY,
        skippable=True,  # a build that the leakage guard or a check stops makes neither
    )


def _check_result(check: CheckVerdict) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key=TRAINING_DATASET,
        check_name=check.name,
        passed=check.passed,
        severity=AssetCheckSeverity.WARN if check.sound else AssetCheckSeverity.ERROR,
        metadata={"result": check.result, "findings": MetadataValue.md(shown.findings_table(check.findings))},
    )
