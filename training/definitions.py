"""The Dagster code location of training. It needs no media library and no model runtime."""

from dagster import AssetSelection, Definitions, define_asset_job, in_process_executor

from training.assets import TRAINING_DATASET, TrainingResource, build_training_assets, training_dataset

TRAIN_BASELINES = "train_baselines"


def build_definitions(training: TrainingResource) -> Definitions:
    """Assets, job and resource. `training_dataset` belongs to the other location."""
    job = define_asset_job(
        TRAIN_BASELINES,
        selection=AssetSelection.all() - AssetSelection.assets(TRAINING_DATASET),
        executor_def=in_process_executor,
        description="Divide the current dataset, train all baselines on it, compare them and write card and reports.",
    )
    return Definitions(
        assets=[training_dataset(), *build_training_assets()],
        jobs=[job],
        resources={"training": training},
        executor=in_process_executor,
    )


defs = build_definitions(TrainingResource())
