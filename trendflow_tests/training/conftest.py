"""A synthetic dataset and one training run on it, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import GoldenConfig, SplitConfig, TrainingConfig
from training.run import TrainingRun, train
from trendflow_tests.training.synthetic import write_synthetic_dataset


@pytest.fixture(scope="session")
def quick() -> TrainingConfig:
    """Few trees and resamples: what is tested is the machinery, not the forecast."""
    return TrainingConfig(
        family="lightgbm",
        hyperparameters={"iterations": 30, "learning_rate": 0.2},
        resamples=100,
        threads=1,
        split=SplitConfig(val_point=0.6, test_point=0.8, min_rows=20, min_head_rows=20),
        golden=GoldenConfig(max_share=0.02),
    )


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_dataset(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="session")
def run(dataset_folder: Path, quick: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return train(dataset_folder, quick, tmp_path_factory.mktemp("artifacts"))
