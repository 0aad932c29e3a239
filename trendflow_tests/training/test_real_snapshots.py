"""Training on real snapshots: metadata and first-snapshot features, few rows, all comparators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.rows import HEADS
from training.split_table import verify_split
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.table.build import build_dataset
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.files import write_dataset
from trendflow.dataset.targets import build_targets

SETTINGS = """
family: lightgbm
hyperparameters: {iterations: 40, learning_rate: 0.1}
resamples: 200
threads: 1
split: {method: group_kfold, folds: 3}
"""


@pytest.fixture(scope="module")
def dataset_folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    snapshots = import_snapshots([data_dir / "snapshots" / "snapshots.parquet"])
    built = build_dataset(snapshots, build_targets(snapshots), FeatureSpec.load().without_content())
    return write_dataset(built, tmp_path_factory.mktemp("real"), SchemaRegistry.load())


def training(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_command_trains_on_real_snapshots(dataset_folder: Path, repo_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(SETTINGS)
    artifacts = tmp_path / "artifacts"
    done = training("train", str(dataset_folder), "--config", str(config), "--artifacts", str(artifacts), cwd=repo_root)
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in artifacts.iterdir() if path.name != "golden")
    assert not folder.name.startswith("SYNTHETIC_")
    metrics = json.loads((folder / "metrics.json").read_bytes())
    # Videos with a snapshot within a day of t0 + 7, 14, 21 days, counted with pandas: 331, 314, 301; one fell.
    counts = {head.name: metrics["heads"][head.name]["model"]["overall"]["n"] for head in HEADS[:3]}
    assert counts == {"views_7d": 331, "views_14d": 313, "views_21d": 301}
    assert verify_split(folder / "splits.parquet")["n_test"] == 469
    assert metrics["not_time_ordered"] is True
    assert "not_time_ordered" in done.stdout
    for head in HEADS:
        found = metrics["heads"][head.name]
        # Growth follows the speed so far: what any honest reader of these data finds first.
        assert found["comparators"]["velocity"]["overall"]["spearman"]["value"] > 0.65
        assert found["model"]["overall"]["spearman"]["value"] > 0.4
        assert head.name in done.stdout


def test_mistakes_are_one_sentence_and_an_exit_code(dataset_folder: Path, repo_root: Path, tmp_path: Path) -> None:
    unknown = training("train", str(dataset_folder), "--family", "oracle", cwd=repo_root)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("config_invalid: Unknown families: oracle; known ones: ")
    absent = training("train", str(tmp_path), cwd=repo_root)
    assert absent.returncode == 3
    assert absent.stderr.splitlines()[-1].startswith("dependency_missing: ")
