"""A whole training run on a SYNTHETIC dataset: its folder, its labels, what it refuses, and that it repeats."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.commands import evaluate
from training.compare import compare, markdown
from training.config import SplitConfig, TrainingConfig, load_config
from training.files import publish_folder
from training.rows import HEADS
from training.run import TrainingRun, train
from training.split_table import verify_split
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.table.reader import Dataset
from trendflow.inference.bundle import ModelBundle
from trendflow.storage.object_store import ObjectStore

FILES = {
    "training_run_manifest.json",
    "metrics.json",
    "feature_spec.yaml",
    "leakage_audit.json",
    "splits.parquet",
    "predictions.parquet",
    "importance_report.md",
    "report.html",
    "dataset_metadata.json",
}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in value for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_the_folder_holds_exactly_what_is_specified(run: TrainingRun) -> None:
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    models = {
        f"models/{head.target}/{head.horizon}{level}.txt" for head in HEADS for level in ("", ".p10", ".p50", ".p90")
    }
    assert files == FILES | models
    assert [path.name for path in run.folder.parent.iterdir() if path.name.startswith(".tmp")] == []


def test_the_manifest_satisfies_its_schema_and_names_every_part(run: TrainingRun) -> None:
    manifest = json.loads((run.folder / "training_run_manifest.json").read_bytes())
    assert validate_document(SchemaRegistry.load(), "training_run_manifest_v1", manifest) == []
    proof = verify_split(run.folder / "splits.parquet")
    assert manifest["split"]["n"] == proof["folds"][-1]["n"]
    assert manifest["imputation"]["fitted_on"] == "train"
    assert [entry["name"] for entry in manifest["bundles"][0]["horizons"]] == ["7d", "14d", "21d"]
    assert set(manifest["quantiles"]["coverage"]) == {head.name for head in HEADS}


def test_the_schema_refuses_a_synthetic_run_that_hides_it(run: TrainingRun) -> None:
    honest = json.loads((run.folder / "training_run_manifest.json").read_bytes())
    hidden = {**honest, "training_run_id": honest["training_run_id"].removeprefix("SYNTHETIC_")}
    assert validate_document(SchemaRegistry.load(), "training_run_manifest_v1", hidden)
    assert validate_document(SchemaRegistry.load(), "training_run_manifest_v1", {**honest, "registry_state": "core"})


def test_synthetic_data_are_labelled_everywhere(run: TrainingRun) -> None:
    assert run.folder.name.startswith("SYNTHETIC_")
    assert run.manifest["synthetic"] is run.metrics["synthetic"] is True
    assert run.manifest["model_version"].startswith("SYNTHETIC_")
    assert all(bundle["name"].startswith("SYNTHETIC_") for bundle in run.manifest["bundles"])
    assert pq.read_schema(run.folder / "predictions.parquet").metadata[b"synthetic"] == b"true"
    assert "SYNTHETIC" in (run.folder / "importance_report.md").read_text()
    assert "SYNTHETIC" in (run.folder / "report.html").read_text()


def test_the_bundle_predicts_what_the_run_predicted(run: TrainingRun, dataset_folder: Path) -> None:
    bundle, table = ModelBundle.read(run.folder), Dataset.read(dataset_folder).table
    predictions = pq.read_table(run.folder / "predictions.parquet").to_pylist()
    row_of = {video: row for row, video in enumerate(table.column("video_id").to_pylist())}
    quantiles, points, lines = bundle.predict(table), bundle.point(table), bundle.comparators(table)
    assert set(bundle.heads) == {head.name for head in HEADS}
    for row in predictions[:: max(1, len(predictions) // 60)]:
        head, at = f"{row['target']}_{row['horizon']}", row_of[row["video_id"]]
        assert quantiles[head][at].tolist() == pytest.approx([row["p10"], row["p50"], row["p90"]], abs=1e-12)
        assert points[head][at] == pytest.approx(row["point"], abs=1e-12)
        for name, values in lines[head].items():
            assert values[at] == pytest.approx(row[name], abs=1e-12)
    for made in quantiles.values():
        assert (np.diff(made, axis=1) >= 0).all()


def test_no_written_forecast_falls_with_time(run: TrainingRun) -> None:
    """What is judged is what would be shown: per video, every quantile rises over the horizons."""
    table = pq.read_table(run.folder / "predictions.parquet").to_pandas()
    table["days"] = table["horizon"].str.removesuffix("d").astype(int)
    ordered = table.sort_values("days").groupby(["video_id", "target"])[["p10", "p50", "p90"]]
    assert (ordered.diff().dropna() >= 0).all(axis=None)
    told = {name: found["repairs"] for name, found in run.metrics["heads"].items()}
    for (target, horizon), rows in table.groupby(["target", "horizon"]):
        shares = {name: rows[name].mean() for name in ("crossed", "rearranged")}
        assert told[f"{target}_{horizon}"] == {"n": len(rows), **shares}
    assert any(found["rearranged"] > 0 for found in told.values()), "the models of this test do contradict each other"


def test_offsets_are_calibrated_on_forecasts_in_order(run: TrainingRun, dataset_folder: Path) -> None:
    """By hand: val forecasts of the stored files sorted over levels and horizons, and the order statistic of CQR."""
    bundle, table = ModelBundle.read(run.folder), Dataset.read(dataset_folder).table
    matrix = bundle.encoding.matrix(table)
    division = pq.read_table(run.folder / "splits.parquet").to_pandas()
    last = division[division["fold"] == division["fold"].max()]
    val = table.column("video_id").to_pandas().isin(last.loc[last["part"] == "val", "video_id"]).to_numpy()
    for target in run.manifest["bundles"]:
        raw = [
            [
                lightgbm.Booster(model_file=run.folder / found["path"]).predict(matrix)
                for found in horizon["quantile_models"].values()
            ]
            for horizon in target["horizons"]
        ]
        ordered = np.sort(np.sort(np.maximum(raw, 0), axis=1), axis=0)  # [horizons, levels, rows]
        for (low, _, high), horizon in zip(ordered, target["horizons"], strict=True):
            y = table.column(horizon["target_col"]).to_numpy()
            judged = val & (table.column(horizon["mask_col"]).to_numpy() == 1)
            assert judged.sum() == horizon["n_val"]
            scores = np.sort(np.maximum(low - y, y - high)[judged])
            offset = scores[math.ceil(0.8 * (len(scores) + 1)) - 1]
            assert horizon["conformal_offset"] == pytest.approx(offset, abs=1e-9)


def test_metrics_and_comparison_satisfy_their_schemas(run: TrainingRun) -> None:
    schemas = SchemaRegistry.load()
    metrics = json.loads((run.folder / "metrics.json").read_bytes())
    assert validate_document(schemas, "training_metrics_v1", metrics) == []
    assert validate_document(schemas, "training_comparison_v1", compare([run.folder]).document) == []
    head = metrics["heads"]["views_14d"]
    del head["model"]["overall"]["n"]
    assert validate_document(schemas, "training_metrics_v1", metrics) != []


def test_forecasts_that_changed_after_the_run_are_not_compared(run: TrainingRun, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / run.folder.name))
    path = copy / "predictions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("point"), "point", table["y"]), path)
    with pytest.raises(TrendFlowError, match=r"predictions\.parquet") as caught:
        compare([copy])
    assert caught.value.error_code == "artifact_validation_failed"


def test_intervals_of_another_rule_are_refused(run: TrainingRun, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / run.folder.name))
    path = copy / "training_run_manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["quantiles"]["method"] = "quantile loss"
    path.write_text(json.dumps(manifest))
    with pytest.raises(TrendFlowError) as caught:
        ModelBundle.read(copy)
    assert caught.value.error_code == "model_spec_invalid"


def test_contributions_explain_the_point_forecast(run: TrainingRun, dataset_folder: Path) -> None:
    bundle, table = ModelBundle.read(run.folder), Dataset.read(dataset_folder).table.slice(0, 20)
    for head, found in bundle.contributions(table).items():
        total = found.values.sum(axis=1) + found.base
        np.testing.assert_allclose(np.maximum(total, 0), bundle.point(table)[head], atol=1e-9)
        assert found.names == tuple(run.manifest["feature_names"])


def test_one_row_alone_is_predicted_like_among_others(run: TrainingRun, dataset_folder: Path) -> None:
    bundle, table = ModelBundle.read(run.folder), Dataset.read(dataset_folder).table
    together = bundle.predict(table)
    alone = bundle.predict(table.slice(17, 1))
    for head in bundle.heads:
        np.testing.assert_array_equal(alone[head][0], together[head][17])


def test_training_again_gives_the_same_metrics(
    run: TrainingRun, dataset_folder: Path, quick: TrainingConfig, tmp_path: Path
) -> None:
    again = train(dataset_folder, quick, tmp_path)
    first, second = numbers(run.metrics["heads"]), numbers(again.metrics["heads"])
    assert len(first) > 500
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)
    assert again.manifest["splits_sha256"] == run.manifest["splits_sha256"]
    assert again.run_id != run.run_id


def test_rolling_folds_are_pooled_and_a_current_model_is_compared(
    run: TrainingRun, dataset_folder: Path, quick: TrainingConfig, tmp_path: Path
) -> None:
    split = SplitConfig(method="rolling_origin", folds=2, min_rows=20, min_head_rows=20, val_share=0.4, embargo=True)
    config = quick.model_copy(update={"split": split})
    found = train(dataset_folder, config, tmp_path, previous=run.folder)
    assert found.metrics["evaluated_on"] == "pooled_folds"
    assert found.manifest["split"]["n_test_pooled"] > found.manifest["split"]["n"]["test"]
    shared = found.metrics["heads"]["views_14d"]["differences"]["previous"]["overall"]["n"]
    assert 0 < shared <= found.metrics["heads"]["views_14d"]["model"]["overall"]["n"]
    verdicts = {check["name"]: check["verdict"] for check in found.metrics["gate"]["checks"]}
    assert verdicts["previous_spearman"] in ("pass", "fail")


def test_a_run_reaches_the_store_with_the_manifest_last(
    run: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore.open(tmp_path.as_uri())
    put: list[str] = []
    original = store.put_file

    def recorded(key: str, path: Path) -> None:
        put.append(key)
        original(key, path)

    monkeypatch.setattr(store, "put_file", recorded)
    publish_folder(run.folder, store, f"training/{run.run_id}", "training_run_manifest.json")
    assert put[-1] == f"training/{run.run_id}/training_run_manifest.json"
    assert store.get(f"training/{run.run_id}/metrics.json") == (run.folder / "metrics.json").read_bytes()
    assert len(put) == len(FILES) + 24


def damaged(run: TrainingRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.folder, tmp_path / "damaged"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "training_run_manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return apply


def outside(manifest: dict[str, Any]) -> None:
    manifest["bundles"][0]["horizons"][0]["model_path"] = "../../models/views/7d.txt"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda folder: flip(folder / "models/views/14d.txt"), "weights_missing"),
        (lambda folder: (folder / "models/likes/7d.p90.txt").unlink(), "weights_missing"),
        (lambda folder: flip(folder / "metrics.json"), "artifact_validation_failed"),
        (lambda folder: flip(folder / "feature_spec.yaml"), "artifact_validation_failed"),
        (lambda folder: (folder / "training_run_manifest.json").unlink(), "artifact_validation_failed"),
        (edit(lambda manifest: manifest.pop("seed")), "artifact_validation_failed"),
        (edit(outside), "artifact_validation_failed"),
    ],
)
def test_a_damaged_run_is_not_loaded(run: TrainingRun, tmp_path: Path, damage: Any, code: str) -> None:
    folder = damaged(run, tmp_path)
    ModelBundle.read(folder)
    damage(folder)
    with pytest.raises(TrendFlowError) as caught:
        ModelBundle.read(folder)
    assert caught.value.error_code == code


def test_a_planted_leak_stops_the_training_before_anything_is_fitted(
    dataset_folder: Path, quick: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follow-up counter under an innocent name, in a dataset that is otherwise in order."""
    dataset = Dataset.read(dataset_folder)
    leak = pa.array(dataset.table.column("target_views_14d").to_numpy().astype(np.float32))
    table = dataset.table.set_column(dataset.table.column_names.index("duration_seconds"), "duration_seconds", leak)
    leaking = Dataset(dataset.folder, table, dataset.metadata, dataset.spec, dataset.provenance)
    monkeypatch.setattr(Dataset, "read", classmethod(lambda cls, folder: leaking))
    with pytest.raises(TrendFlowError) as caught:
        train(dataset_folder, quick, tmp_path)
    assert caught.value.error_code == "leakage_violation"
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_several_programs_is_refused(
    dataset_folder: Path, quick: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.read(dataset_folder)
    mixed = Dataset(
        dataset.folder, dataset.table, {**dataset.metadata, "mixed": True}, dataset.spec, dataset.provenance
    )
    monkeypatch.setattr(Dataset, "read", classmethod(lambda cls, folder: mixed))
    with pytest.raises(TrendFlowError, match="mixes code versions"):
        train(dataset_folder, quick, tmp_path)


def test_a_failed_run_leaves_nothing(dataset_folder: Path, quick: TrainingConfig, tmp_path: Path) -> None:
    config = quick.model_copy(update={"split": SplitConfig(min_rows=5, min_head_rows=10_000)})
    with pytest.raises(TrendFlowError) as caught:
        train(dataset_folder, config, tmp_path)
    assert caught.value.error_code == "input_constraint_violated"
    assert [path.name for path in tmp_path.iterdir()] == ["golden"]


def test_a_previous_model_that_cannot_be_read_stops_before_anything_is_fitted(
    dataset_folder: Path, quick: TrainingConfig, tmp_path: Path
) -> None:
    told: list[str] = []
    with pytest.raises(TrendFlowError, match="'no-run'") as caught:
        train(dataset_folder, quick, tmp_path / "runs", previous=tmp_path / "no-run", progress=told.append)
    assert caught.value.error_code == "artifact_validation_failed"
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_runs_of_one_split_are_compared_and_others_refused(
    run: TrainingRun,
    dataset_folder: Path,
    quick: TrainingConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = train(dataset_folder, quick.model_copy(update={"family": "hist_gradient_boosting"}), tmp_path)
    found = compare([run.folder, other.folder])
    assert set(found.heads["likes_21d"]["models"]) == {"lightgbm", "hist_gradient_boosting"}
    change = found.heads["views_14d"]["between_models"]["lightgbm - hist_gradient_boosting"]
    assert change["n"] == run.metrics["heads"]["views_14d"]["model"]["overall"]["n"]
    page = markdown(found)
    assert evaluate([run.folder, other.folder], tmp_path / "comparison.json", tmp_path / "comparison.md") == 0
    assert json.loads((tmp_path / "comparison.json").read_bytes()) == found.document
    assert (tmp_path / "comparison.md").read_text() == page
    assert "SYNTHETIC" in capsys.readouterr().out
    assert page.startswith("**SYNTHETIC")
    assert "| loglinear_multivariate |" in page
    elsewhere = SplitConfig(val_point=0.5, test_point=0.7, min_rows=20, min_head_rows=20)
    moved = train(dataset_folder, quick.model_copy(update={"split": elsewhere}), tmp_path / "moved")
    with pytest.raises(TrendFlowError, match="split"):
        compare([run.folder, moved.folder])


@pytest.mark.parametrize("name", ["few_rows_time", "few_rows_rolling"])
def test_the_shipped_settings_are_valid(repo_root: Path, name: str) -> None:
    assert load_config(repo_root / "training" / "configs" / f"{name}.yaml", {}).split.min_rows == 50


def test_settings_come_from_a_file_with_options_on_top(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("family: lightgbm\nsplit: {method: rolling_origin, folds: 4}\n")
    found = load_config(file, {"seed": 3, "split": {"folds": 6}})
    assert (found.family, found.seed, found.split.method, found.split.folds) == ("lightgbm", 3, "rolling_origin", 6)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("famly: catboost", "famly"),
        ("family: xgboost\nhyperparameters: {depth: twelve}", "family"),
        ("seed: -1", "seed"),
        ("seed: 4294967296", "seed"),
        ("threads: many", "threads"),
        ("hyperparameters: {depth: twelve}", "hyperparameters: depth"),
        ("hyperparameters: {depth: true}", "hyperparameters: depth"),
        ("hyperparameters: {depth: 40}", "hyperparameters: depth"),
        ("hyperparameters: {learning_rate: .nan}", "hyperparameters: learning_rate"),
        ("hyperparameters: {iterations: 0}", "hyperparameters: iterations"),
        ("family: lightgbm\nhyperparameters: {num_threads: 64}", "num_threads"),
        ("family: lightgbm\nhyperparameters: {depth: 4}", "depth"),
        ("family: hist_gradient_boosting\nhyperparameters: {max_leaf_nodes: 1}", "max_leaf_nodes"),
        ("hyperparameters: 4", "hyperparameters"),
        ("split: {t_val: 2025-01-01T00:00:00Z}", "split: give both t_val and t_test"),
        ("split: {val_point: 0.9, test_point: 0.5}", "split: val_point must be below test_point"),
        ("split: {folds: 1}", "split.folds"),
        ("split: 3", "split"),
        ("3: 4", "3"),
        ("- list", ""),
        ("{", ""),
    ],
)
def test_mistakes_in_a_file_of_settings_name_the_file_and_the_key(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(TrendFlowError) as caught:
        load_config(file, {"split": {}})
    assert caught.value.error_code == "config_invalid"
    assert "mine.yaml" in caught.value.message
    assert key in caught.value.message
    assert "Value error" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("options", [{"seed": -1}, {"split": {"folds": 1}}, {"split": 3}])
def test_a_mistake_in_an_option_is_not_laid_on_the_file(tmp_path: Path, options: dict[str, Any]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("split: {method: rolling_origin}\n")
    with pytest.raises(TrendFlowError) as caught:
        load_config(file, options)
    assert caught.value.error_code == "config_invalid"
    assert "mine.yaml" not in caught.value.message
    assert next(iter(options)) in caught.value.message


def test_overrides_of_hyperparameters_keep_the_other_defaults() -> None:
    config = TrainingConfig(family="catboost", hyperparameters={"depth": 4, "learning_rate": 1})
    expected = {"iterations": 2000, "learning_rate": 1.0, "depth": 4, "l2_leaf_reg": 3.0}
    assert config.complete_hyperparameters == expected
