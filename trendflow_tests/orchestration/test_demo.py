"""`trendflow demo` from the sample to a forecast, with a profile of five components; all that is invented says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trendflow.commands.demo import train_families
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import split_partition_key
from trendflow.dataset.table.reader import Dataset
from trendflow.inference.bundle import ModelBundle
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.corpus import MEASURING
from trendflow_tests.orchestration.runs import write_graph

FAMILIES = {"catboost", "lightgbm"}


def pages(printed: str) -> dict[str, Path]:
    """What the demonstration says to open: what it is → the file."""
    lines = printed.partition("open in a browser\n")[2].splitlines()
    return {line.rpartition(" ")[0].strip(): Path(line.rpartition(" ")[2]) for line in lines}


def test_the_demo_goes_from_video_to_forecast_and_trains_once(tmp_path: Path, models_dir: Path) -> None:
    graph = write_graph(tmp_path / "component_graph.yaml", *MEASURING)
    cli = Cli(tmp_path / "home", models_dir, TRENDFLOW_GRAPH_FILE=str(graph))
    first = cli("demo")
    assert first.returncode == 0, first.stderr
    found = pages(first.stdout)
    assert len(found) == 4
    for what, page in found.items():
        assert page.is_file(), what
        assert ("SYNTHETIC" in page.read_text(encoding="utf-8")) == ("SYNTHETIC" in what)

    [dataset] = cli.home.glob("demo/*/datasets/*")
    assert Dataset.read(dataset).synthetic
    assert dataset.name.startswith("SYNTHETIC_")
    runs = {path.parent for path in cli.home.glob("demo/*/training/*/training_run_manifest.json")}
    bundles = [ModelBundle.read(run) for run in runs]
    assert {bundle.manifest["model_family"] for bundle in bundles} == FAMILIES
    for bundle in bundles:
        assert bundle.manifest["heads_without_model"] == []
        assert bundle.manifest["dataset"]["dataset_fingerprint"] == Dataset.read(dataset).fingerprint
    document = json.loads(found["SYNTHETIC forecast of the video"].with_name("prediction_report.json").read_bytes())
    assert document["synthetic"]
    assert document["prediction_status"] == "ok"

    # The invented corpus is neither in the store of the real runs nor left on the disk.
    assert not list(cli.home.glob("demo/**/manifest.json"))
    store = ResultStore(ObjectStore.open((cli.home / "store").as_uri()))
    key = next(line.split()[1] for line in first.stdout.splitlines() if line.startswith("run "))
    assert [video for _, video in store.videos()] == [split_partition_key(key)[0]]

    second = cli("demo")
    assert second.returncode == 0, second.stderr
    assert {path.parent for path in cli.home.glob("demo/*/training/*/training_run_manifest.json")} == runs
    again = pages(second.stdout)
    for what in found.keys() - {"what was found in the video", "SYNTHETIC forecast of the video"}:
        assert again[what] == found[what]


def test_a_training_process_that_fails_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError) as failed:
        train_families(tmp_path / "no-dataset", tmp_path / "training")
    assert failed.value.error_code == "dependency_missing"
    assert failed.value.message == "Training catboost: The folder 'no-dataset' holds no dataset."
