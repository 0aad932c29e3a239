"""The Dagster code location of training. It needs no media library and no model runtime."""

from dagster import (
    AssetKey,
    AssetSelection,
    AssetSensorDefinition,
    DefaultSensorStatus,
    Definitions,
    RunRequest,
    asset_sensor,
    define_asset_job,
    in_process_executor,
)

from training.assets import TRAINING_DATASET, TrainingResource, build_training_assets, training_dataset
from trendflow.config import load_settings
from trendflow.logs import configure_logging

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
        sensors=[_sensor()],
        resources={"training": training},
        executor=in_process_executor,
    )


def _sensor() -> AssetSensorDefinition:
    """The bridge between the locations: no job and no launch of the UI spans both.

    Requests have no run key: Dagster launches a key once for ever, so a dataset that came back, whose run failed, or
    that another program would train on differently would never be trained on. The cursor asks once per
    materialization, and training finds the run it would only repeat.
    """

    @asset_sensor(
        AssetKey(TRAINING_DATASET),
        name=TRAIN_ON_NEW_DATASET,
        job_name=TRAIN_BASELINES,
        default_status=DefaultSensorStatus.STOPPED,
        description="Trains all baselines whenever the other location has built a dataset; equal runs are reused.",
    )
    def train_on_new_dataset() -> RunRequest:
        return RunRequest()

    return train_on_new_dataset


_settings = load_settings()
configure_logging(_settings.log_format, _settings.log_level)  # of a code server; other processes have done it
defs = build_definitions(TrainingResource())
