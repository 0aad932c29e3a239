"""Both code locations together: from a SYNTHETIC corpus to models, evaluation, card, reports and a forecast."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import AssetKey, DagsterInstance, Definitions, ExecuteInProcessResult

from training.assets import BASELINES, TrainingResource
from training.config import FamilyName
from training.definitions import TRAIN_BASELINES, build_definitions
from training.program import trainer_digest
from training.rules import RULES
from training.run import plan_split
from training.split_table import verify_split
from trendflow.contracts.canonical import sha256_hex
from trendflow.dataset.stored_tables import DATASET, TableStore
from trendflow.definitions import build_definitions as build_first_location
from trendflow.inference.bundle import ModelBundle
from trendflow.orchestration.jobs import BUILD_DATASET, FORECAST_VIDEO
from trendflow.orchestration.partitions import add_partitions
from trendflow.orchestration.prediction import NO_MODEL, PREDICTION
from trendflow_tests.orchestration.corpus import (
    Corpus,
    checked,
    data_versions,
    failure_metadata,
    materialised,
    write_corpus,
)
from trendflow_tests.training.quick import DIVISION, QUICK, SETTINGS

# Training takes seconds, so it happens once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("locations")

RUN_KEY = "SYNTHETIC_video_000007/SYNTHETIC_run"
MADE_OF_DATA = ("splits", "baseline_catboost", "baseline_lightgbm", "evaluation", "model_card")


@dataclass(frozen=True)
class Both:
    """The deployment of both locations, one Dagster instance, and what the first runs of the jobs made."""

    corpus: Corpus
    artifacts: Path
    instance: DagsterInstance
    built: ExecuteInProcessResult
    trained: ExecuteInProcessResult

    def train(self, **config: dict[str, Any]) -> ExecuteInProcessResult:
        return _train(self.artifacts, self.instance, **config)

    def runs(self) -> dict[str, Path]:
        made = materialised(self.trained)
        return {family: Path(str(made[f"baseline_{family}"].metadata["folder"].value)) for family in BASELINES}


def _train(artifacts: Path, instance: DagsterInstance, **config: dict[str, Any]) -> ExecuteInProcessResult:
    job = build_definitions(TrainingResource(artifacts=str(artifacts))).resolve_job_def(TRAIN_BASELINES)
    settings: dict[str, dict[str, Any]] = {"splits": {"settings": DIVISION}}
    settings["baseline_catboost"] = {"settings": SETTINGS["catboost"]}
    file = artifacts.parent / "lightgbm.yaml"  # the other way to say it
    file.write_text(yaml.safe_dump(SETTINGS["lightgbm"]), encoding="utf-8")
    settings["baseline_lightgbm"] = {"config": str(file)}
    for name, values in config.items():
        settings[name] = {**settings[name], **values}
    ops = {name: {"config": values} for name, values in settings.items()}
    return job.execute_in_process(instance=instance, run_config={"ops": ops}, raise_on_error=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("locations")
    corpus = write_corpus(folder)
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        corpus.use(patch)
        job = build_first_location(corpus.deployment).resolve_job_def(BUILD_DATASET)
        config = {"ops": {"dataset_build": {"config": {"synthetic": True}}}}
        built = job.execute_in_process(instance=instance, run_config=config)
        trained = _train(folder / "artifacts", instance)
        yield Both(corpus, folder / "artifacts", instance, built, trained)


@pytest.fixture(autouse=True)
def _settings(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.corpus.use(monkeypatch)


def test_the_second_location_trains_on_the_dataset_of_the_first(both: Both) -> None:
    assert both.trained.success
    made = materialised(both.trained)
    assert set(made) == {
        "splits",
        "baseline_catboost",
        "baseline_lightgbm",
        "evaluation",
        "model_card",
        "training_report",
    }
    fingerprint = data_versions(both.built)["training_dataset"]
    for name in ("splits", "baseline_catboost", "baseline_lightgbm"):
        assert (made[name].tags or {})["dagster/input_data_version/training_dataset"] == fingerprint
    for family, folder in both.runs().items():
        bundle = ModelBundle.read(folder)
        assert bundle.synthetic
        assert folder.name.startswith(f"SYNTHETIC_{family}-")
        assert bundle.manifest["dataset"]["dataset_fingerprint"] == fingerprint
        assert bundle.manifest["model_version"].endswith(f"+{bundle.manifest['trainer_digest'][:12]}")
        assert bundle.manifest["config"]["resamples"] == QUICK["resamples"]
        assert bundle.manifest["config"]["hyperparameters"] == SETTINGS[family]["hyperparameters"]
        stored = both.corpus.deployment.store.get(f"training/{folder.name}/metrics.json")
        assert json.loads(stored) == bundle.metrics


def test_every_run_is_checked(both: Both) -> None:
    found = checked(both.trained)
    for family, folder in both.runs().items():
        name = f"baseline_{family}"
        assert {check for asset, check in found if asset == name} == set(RULES)
        for check in ("stored_models", "split_disjointness", "leakage"):
            assert found[name, check].passed
        gate = ModelBundle.read(folder).metrics["gate"]
        assert found[name, "quality_gate"].passed == gate["passed"]
        assert found[name, "quality_gate"].severity.value == "WARN"
    assert found["splits", "split_disjointness"].passed


def test_all_families_are_trained_on_the_same_proven_division(both: Both) -> None:
    stored = TableStore(both.corpus.deployment.store).require("splits")
    for folder in both.runs().values():
        assert sha256_hex((folder / "splits.parquet").read_bytes()) == stored.files["splits.parquet"]
        rows = pq.read_table(folder / "splits.parquet").to_pylist()
        parts: dict[str, set[str]] = {}
        for row in rows:
            if row["part"]:
                parts.setdefault(row["channel_id"], set()).add(row["part"])
        assert all(len(found) == 1 for found in parts.values())
        assert verify_split(folder / "splits.parquet")["n_test"] == sum(row["part"] == "test" for row in rows)


def test_evaluation_card_and_reports_are_stored_and_stamped(both: Both) -> None:
    store = both.corpus.deployment.store
    tables = TableStore(store)
    evaluation = json.loads(tables.read(tables.require("evaluation"))["evaluation.json"])
    assert evaluation["runs"] == {family: folder.name for family, folder in both.runs().items()}
    card = tables.read(tables.require("model_card"))["model_card.md"].decode()
    assert card.startswith("# SYNTHETIC Model card")
    for head, found in evaluation["heads"].items():
        assert f"### {head} (n = " in card
        for name in (*BASELINES, *found["comparators"]):
            assert f"| {name} | " in card
    for folder in both.runs().values():
        assert folder.name in card
        page = store.get(f"training/{folder.name}/report.html").decode()
        assert "SYNTHETIC" in page
        assert page.encode() == (folder / "report.html").read_bytes(), "rendering again changes nothing"
    made = materialised(both.trained)
    for name in (*MADE_OF_DATA, "training_report"):
        assert made[name].metadata["SYNTHETIC"].value is True


@pytest.mark.parametrize("name", [*MADE_OF_DATA, "training_report"])
def test_settings_that_are_wrong_fail_every_asset_with_their_code(
    both: Both, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = build_definitions(TrainingResource(artifacts=str(both.artifacts))).resolve_job_def(TRAIN_BASELINES)
    monkeypatch.setenv("TRENDFLOW_PRODUCTION", "perhaps")
    result = job.execute_in_process(instance=both.instance, asset_selection=[AssetKey(name)], raise_on_error=False)
    assert not result.success
    assert failure_metadata(result)["error_code"] == "config_invalid"


def test_nothing_new_trains_nothing(both: Both) -> None:
    again = both.train()
    assert again.success
    made = materialised(again)
    assert all(made[f"baseline_{family}"].metadata["reused"].value is True for family in BASELINES)
    assert data_versions(again) == data_versions(both.trained)
    assert {path.name for path in both.artifacts.iterdir() if path.name != "golden"} == {
        folder.name for folder in both.runs().values()
    }


def test_retraining_on_request_gives_the_same_models(both: Both, tmp_path: Path) -> None:
    shutil.copytree(both.artifacts, tmp_path / "artifacts")
    names = [f"baseline_{family}" for family in BASELINES]
    result = _train(tmp_path / "artifacts", both.instance, **{name: {"retrain": True} for name in names})
    made = materialised(result)
    for name in names:
        assert made[name].metadata["reused"].value is False
        assert data_versions(result)[name] == data_versions(both.trained)[name]
        before, after = (made[name].metadata["training_run_id"].value for made in (materialised(both.trained), made))
        assert before != after
    both.train()  # the runs of the module are the current ones again


def test_a_leak_planted_in_the_dataset_is_caught_before_anything_is_fitted(both: Both, tmp_path: Path) -> None:
    """The target under an innocent name, with digests that fit: only the guard can see it."""
    store = both.corpus.deployment.store
    before = TableStore(store).require(DATASET)
    prefix = f"{before.facts['prefix']}-leaking"
    metadata = json.loads(store.get(f"{before.facts['prefix']}/dataset_metadata.json"))
    for name in metadata["files"]:
        data = store.get(f"{before.facts['prefix']}/{name}")
        if name == "dataset.parquet":
            table = pq.read_table(pa.BufferReader(data))
            place = table.column_names.index("title_len")
            table = table.set_column(place, "title_len", table["target_views_14d"].cast(pa.float64()))
            pq.write_table(table, tmp_path / name)
            data = (tmp_path / name).read_bytes()
            metadata["files"][name] = sha256_hex(data)
        store.put(f"{prefix}/{name}", data)
    store.put(f"{prefix}/dataset_metadata.json", json.dumps(metadata).encode())
    try:
        TableStore(store).put(DATASET, facts={**before.facts, "prefix": prefix})
        result = both.train(**{f"baseline_{family}": {"retrain": True} for family in BASELINES})
    finally:
        TableStore(store).put(DATASET, facts=before.facts)
        both.train()
    assert not result.success
    caught = {asset: found for (asset, check), found in checked(result).items() if check == "leakage"}
    assert caught
    assert not any(found.passed for found in caught.values())
    assert "title_len" in str(next(iter(caught.values())).metadata["result"].value)
    assert not {name for name in materialised(result) if name.startswith("baseline_")}


def test_a_run_that_is_unsound_does_not_become_the_current_one(both: Both, tmp_path: Path) -> None:
    """The run is found again on disk, but its division is no longer the one it was trained on."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(both.artifacts, artifacts)
    (artifacts / both.runs()["catboost"].name / "splits.parquet").write_bytes(b"other bytes")
    tables = TableStore(both.corpus.deployment.store)
    trained = tables.require("baseline_catboost")
    try:
        former = tables.put("baseline_catboost", facts={**trained.facts, "run_id": "SYNTHETIC_former_run"})
        result = _train(artifacts, both.instance)
        assert tables.require("baseline_catboost") == former
    finally:
        tables.put("baseline_catboost", facts=trained.facts)
    assert not result.success
    assert failure_metadata(result)["error_code"] == "artifact_validation_failed"
    assert "baseline_catboost" not in materialised(result)
    found = {check: done for (asset, check), done in checked(result).items() if asset == "baseline_catboost"}
    assert set(found) == set(RULES)
    assert not found["split_disjointness"].passed
    assert found["split_disjointness"].severity.value == "ERROR"
    assert found["stored_models"].passed


def test_a_division_that_is_not_proven_does_not_become_the_current_one(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TableStore(both.corpus.deployment.store)
    before = tables.require("splits")
    table = pq.read_table(pa.BufferReader(tables.read(before)["splits.parquet"]))
    rows = table.to_pylist()
    first = next(row for row in rows if row["part"] == "train")
    other = next(row for row in rows if row["part"] == "test")
    other["channel_id"] = first["channel_id"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
    file = sink.getvalue().to_pybytes()
    monkeypatch.setattr("training.steps.plan_split", lambda data, config: replace(plan_split(data, config), file=file))
    result = both.train()
    assert not result.success
    assert failure_metadata(result)["error_code"] == "leakage_violation"
    assert tables.require("splits") == before
    assert "splits" not in materialised(result)
    proof = checked(result)["splits", "split_disjointness"]
    assert not proof.passed
    assert "channels of both train and test" in str(proof.metadata["result"].value)


@pytest.mark.parametrize("family", BASELINES)
def test_a_forecast_of_the_trained_model(both: Both, family: FamilyName) -> None:
    folder = both.runs()[family]
    for model in (str(folder), f"training/{folder.name}", f"baseline_{family}"):
        result = _forecast(both, models=[model], allow_synthetic=True)
        assert result.success
        made = materialised(result)[PREDICTION]
        assert made.partition == RUN_KEY
        assert made.metadata["SYNTHETIC"].value is True
        assert made.metadata["model"].value == folder.name
        assert made.metadata["first_snapshot"].value == "from the stored snapshots"
    video_id, _, run_id = RUN_KEY.partition("/")
    place = f"render_cache/upload/{video_id}/{run_id}"
    document = json.loads(both.corpus.deployment.store.get(f"{place}/prediction_report.json"))
    assert document["synthetic"]
    assert document["model_used"]["model_family"] == family
    bundle = ModelBundle.read(folder)
    assert set(document["outputs"]["heads"]) == set(bundle.heads)
    assert set(document["explainability"]["heads"]) == set(bundle.heads)
    page = both.corpus.deployment.store.get(f"{place}/forecast.html").decode()
    assert "SYNTHETIC" in page
    again = _forecast(both, models=[str(folder)], allow_synthetic=True)
    assert data_versions(again) == data_versions(result)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"models": ["training/no-such-run"], "allow_synthetic": True}, "weights_missing"),
        ({"models": ["../no run"], "allow_synthetic": True}, "weights_missing"),
        ({"models": ["baseline_other"], "allow_synthetic": True}, "weights_missing"),
        ({"models": ["{model}"]}, "model_spec_invalid"),
        ({"models": ["{model}"], "allow_synthetic": True, "snapshot": "of other videos"}, "dependency_missing"),
    ],
)
def test_a_forecast_that_cannot_be_made_fails_with_its_code(
    both: Both, tmp_path: Path, config: dict[str, Any], code: str
) -> None:
    model, others = both.runs()["catboost"].name, tmp_path / "others.csv"
    others.write_text("video_id,snapshot_time,views\nanother-video,2026-03-01T22:00Z,5\n")
    names = [name.format(model=model) for name in config["models"]]
    snapshot = {"snapshot": str(others)} if "snapshot" in config else {}
    result = _forecast(both, **{**config, "models": names, **snapshot})
    assert not result.success
    assert failure_metadata(result)["error_code"] == code


def test_without_a_model_the_forecast_is_skipped_with_the_reason(both: Both) -> None:
    result = _forecast(both)
    assert result.success
    assert not materialised(result)
    observed = [found.asset_observation_data for found in result.all_events if found.is_asset_observation]
    [skipped] = [found.asset_observation for found in observed]
    assert skipped.metadata["skipped"].value == NO_MODEL


def _forecast(both: Both, **config: Any) -> ExecuteInProcessResult:
    job = build_first_location(both.corpus.deployment).resolve_job_def(FORECAST_VIDEO)
    add_partitions(both.instance, [RUN_KEY])
    return job.execute_in_process(
        instance=both.instance,
        partition_key=RUN_KEY,
        run_config={"ops": {PREDICTION: {"config": config}}},
        raise_on_error=False,
    )


def test_lineage_crosses_the_locations(both: Both) -> None:
    first = build_first_location(both.corpus.deployment)
    second = build_definitions(TrainingResource())
    for definitions in (first, second):
        Definitions.validate_loadable(definitions)
    shared = first.resolve_asset_graph().get_all_asset_keys() & second.resolve_asset_graph().get_all_asset_keys()
    assert shared == {AssetKey("training_dataset")}
    graph = second.resolve_asset_graph()
    assert not graph.get(AssetKey("training_dataset")).is_executable
    assert graph.get(AssetKey("splits")).parent_keys == {AssetKey("training_dataset")}
    assert str(graph.get(AssetKey("splits")).code_version).endswith(f"+{trainer_digest()[:12]}")
    assert first.resolve_asset_graph().get(AssetKey("training_dataset")).is_executable


def test_the_workspace_has_both_locations(repo_root: Path) -> None:
    workspace = yaml.safe_load((repo_root / "workspace.yaml").read_text(encoding="utf-8"))
    named = {
        entry["python_module"]["location_name"]: entry["python_module"]["module_name"]
        for entry in workspace["load_from"]
    }
    assert named == {"trendflow": "trendflow.definitions", "training": "training.definitions"}


def test_the_second_location_needs_no_media_library_and_loads_nothing_that_computes(tmp_path: Path) -> None:
    program = """
import sys

class Absent:
    names = {"av", "onnxruntime", "cv2", "librosa", "soundfile", "soxr", "torch", "tritonclient"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
from training.config import FamilyName
from training.definitions import defs

assert len(defs.resolve_asset_graph().get_all_asset_keys()) == 7
loaded = {"catboost", "lightgbm", "sklearn", "pandas", "pyarrow", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
import training.steps, training.run_checks, training.report
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
