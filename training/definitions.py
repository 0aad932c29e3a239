"""The Dagster code location of training. It needs no media library and no model runtime."""

from dagster import (
    AssetKey,
    AssetSelection,
    AssetSensorDefinition,
    DefaultSensorStatus,
    Definitions,
    EventLogEntry,
    RunRequest,
    SensorEvaluationContext,
    asset_sensor,
    define_asset_job,
    in_process_executor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from training.assets import TRAINING_DATASET, TrainingResource, build_training_assets, training_dataset

TRAIN_BASELINES, TRAIN_ON_NEW_DATASET = "train_baselines", "train_on_new_dataset"


def build_definitions(training: TrainingResource) -> Definitions:
    """Assets, job, sensor and resource. `training_dataset` belongs to the other location."""
    job = define_asset_job(
        TRAIN_BASELINES,
        selection=AssetSelection.all() - AssetSelection.assets(TRAINING_DATASET),
        executor_def=in_process_executor,
        description="Divide the current dataset, train all baselines on it, compare them and write card and reports.",
    )
    return Definitions(
        assets=[training_dataset(), *build_training_assets()],
        jobs=[job],
        sensors=[_sensor(job)],
        resources={"training": training},
        executor=in_process_executor,
    )


def _sensor(job: UnresolvedAssetJobDefinition) -> AssetSensorDefinition:
    """The bridge between the locations: no job and no launch of the UI spans both."""

    @asset_sensor(
        AssetKey(TRAINING_DATASET),
        name=TRAIN_ON_NEW_DATASET,
        job=job,
        default_status=DefaultSensorStatus.STOPPED,
        description="Trains all baselines when the other location has built a dataset; once per fingerprint.",
    )
    def train_on_new_dataset(context: SensorEvaluationContext, built: EventLogEntry) -> RunRequest:
        found = built.asset_materialization
        assert found is not None  # an asset sensor is called with nothing else
        return RunRequest(run_key=(found.tags or {})["dagster/data_version"])

    return train_on_new_dataset


defs = build_definitions(TrainingResource())
