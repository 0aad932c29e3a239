"""One training run from a dataset folder to a run folder. Each function is one step; assets and commands call these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.ablation import ablation
from training.config import TrainingConfig
from training.data import TrainingData
from training.documents import METRICS_SCHEMA, json_bytes, require_valid
from training.evaluation import evaluate
from training.families import FAMILIES
from training.files import new_folder, publish_folder, write_atomically
from training.fold import FoldResult, Progress, fit_fold, point_booster
from training.gate import quality_gate
from training.golden import GoldenSets, golden_sets, store_golden_sets
from training.importance import head_importance, importance_page, ranking
from training.manifest import build_manifest, model_files, prefix, training_run_id
from training.predictions import PREDICTIONS, predictions_table, read_predictions
from training.rows import HEADS
from training.split_table import split_bytes, verify_split
from training.splits import TEST, Fold, make_folds
from trendflow.contracts.canonical import sha256_hex, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import audit_dataset, require_clean
from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.table.files import METADATA_FILE
from trendflow.dataset.table.reader import Dataset
from trendflow.inference.bundle import MANIFEST, METRICS, SPEC, ModelBundle
from trendflow.inference.stored_runs import STORE_PREFIX
from trendflow.storage.object_store import ObjectStore

SPLITS, AUDIT = "splits.parquet", "leakage_audit.json"
IMPORTANCE, REPORT = "importance_report.md", "report.html"
DEFAULT_ARTIFACTS = Path("training/artifacts")
_GOLDEN = "golden"


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: its folder and the documents it holds."""

    folder: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.manifest["training_run_id"])


@dataclass(frozen=True)
class SplitPlan:
    """How a dataset is divided: the folds, the videos nobody trains on, and `splits.parquet` as bytes."""

    folds: tuple[Fold, ...]
    golden: GoldenSets
    file: bytes


def plan_split(data: TrainingData, config: TrainingConfig) -> SplitPlan:
    """The split of a configuration; its family and loss play no role. Errors as `make_folds`."""
    sets = golden_sets(data.rows.video, config.golden)
    golden = sets.rows(len(data.rows))
    folds = make_folds(data.rows, config.split, golden)
    about = {"dataset_fingerprint": data.fingerprint, "synthetic": data.synthetic}
    return SplitPlan(folds, sets, split_bytes(data.rows, folds, config.split, golden, about))


def train(
    dataset_folder: Path,
    config: TrainingConfig,
    artifacts: Path = DEFAULT_ARTIFACTS,
    *,
    previous: Path | None = None,
    store: ObjectStore | None = None,
    progress: Progress = lambda _: None,
) -> TrainingRun:
    """Train all heads of one family and write `<artifacts>/<training_run_id>/`, complete or not at all.

    `previous` is the run folder of the model to be replaced; it enters the comparison and the quality gate. With a
    `store` the folder is put there too, under `training/<training_run_id>/`.

    Raises `leakage_violation` before anything is fitted when the guard finds something, `config_invalid` for a dataset
    that is not for training, `input_constraint_violated` for one that is too small for the split.
    """
    before = None if previous is None else read_predictions(previous)
    dataset = Dataset.read(dataset_folder)
    data = TrainingData.of(dataset, config.embeddings)
    audit = audit_dataset(dataset)
    require_clean(audit)
    created_at = utc_now()
    run_id = training_run_id(data, config, created_at)
    plan = plan_split(data, config)
    folds = plan.folds
    store_golden_sets(artifacts / _GOLDEN, data.fingerprint, data.rows.video, plan.golden)
    with new_folder(artifacts / run_id) as folder:
        (folder / SPLITS).write_bytes(plan.file)
        proof = verify_split(folder / SPLITS)
        results = [
            fit_fold(data, fold, config, _numbered(progress, number, len(folds))) for number, fold in enumerate(folds)
        ]
        if not results[-1].models:
            raise TrendFlowError("input_constraint_violated", "No head has enough rows with an observed target.")
        progress("evaluation")
        predictions = predictions_table(data.rows, results)
        heads = evaluate(predictions, config.resamples, config.seed, before)
        importance = _importance(data, folds[-1], results[-1], config)
        metrics = {
            "schema_version": METRICS_SCHEMA,
            "training_run_id": run_id,
            "synthetic": data.synthetic,
            "evaluated_on": "test" if len(folds) == 1 else "pooled_folds",
            "not_time_ordered": proof["not_time_ordered"],
            "resamples": config.resamples,
            "heads": heads,
            "gate": quality_gate(heads),
            "importance": {name: ranked for name, (_, ranked) in importance.items()},
            "ablation": ablation(data, folds, config, _named(progress, "ablation")) if config.ablation else {},
        }
        require_valid(metrics)
        files = {
            METRICS: json_bytes(metrics),
            PREDICTIONS: parquet_bytes(
                predictions.replace_schema_metadata({b"synthetic": str(data.synthetic).lower()})
            ),
            SPEC: (dataset_folder / SPEC).read_bytes(),
            METADATA_FILE: (dataset_folder / METADATA_FILE).read_bytes(),
            AUDIT: json_bytes(audit.document()),
            IMPORTANCE: importance_page(
                f"{prefix(data)}Feature importance of {run_id}",
                next(iter(importance.values()))[0],
                {name: ranked for name, (_, ranked) in importance.items()},
            ).encode(),
        }
        for model in results[-1].models.values():
            files |= model_files(model, FAMILIES[config.family].extension)
        for name, content in files.items():
            write_atomically(folder / name, content)
        manifest = build_manifest(
            data,
            config,
            results,
            proof,
            run_id=run_id,
            created_at=created_at,
            dataset_folder=dataset_folder,
            coverage={name: head["coverage"]["overall"]["value"] for name, head in heads.items()},
            digests={
                "metrics": sha256_hex(files[METRICS]),
                "feature_spec": sha256_hex(files[SPEC]),
                "splits": sha256_hex(plan.file),
                "predictions": sha256_hex(files[PREDICTIONS]),
            },
        )
        require_valid(manifest)
        write_atomically(folder / MANIFEST, json_bytes(manifest))
        _check_written_models(folder, data, results[-1])
        progress("report")
        write_atomically(folder / REPORT, _report(folder))
    run = TrainingRun(artifacts / run_id, manifest, metrics)
    if store is not None:
        publish_folder(run.folder, store, f"{STORE_PREFIX}/{run_id}", MANIFEST)
    return run


def _numbered(progress: Progress, number: int, count: int) -> Progress:
    return progress if count == 1 else _named(progress, f"fold {number + 1} of {count}")


def _named(progress: Progress, name: str) -> Progress:
    return lambda step: progress(f"{name}: {step}")


def _importance(
    data: TrainingData, fold: Fold, result: FoldResult, config: TrainingConfig
) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Per head of the stored models: the method and the ranked features, on their labelled test rows."""
    encoding = result.inputs.encoding
    matrix = encoding.matrix(data.table)
    found = {}
    for position, head in enumerate(HEADS):
        if head.name not in result.models:
            continue
        rows = np.flatnonzero((fold.part == TEST) & data.rows.labelled[:, position])
        booster = point_booster(result.models[head.name].point, config)
        method, values = head_importance(booster, matrix[rows], data.rows.y[rows, position], config.seed)
        found[head.name] = (method, ranking(encoding.features, data.family, values))
    return found


def _check_written_models(folder: Path, data: TrainingData, result: FoldResult) -> None:
    """The folder, read as inference reads it, must say what the predictions say."""
    bundle = ModelBundle.read(folder)
    for name, forecast in result.forecasts.items():
        again = bundle.predict(data.table.take(forecast.rows))[name]
        if not np.allclose(again, forecast.served.quantiles, rtol=0, atol=1e-9):
            raise TrendFlowError("artifact_validation_failed", f"The stored model of {name} predicts something else.")


def _report(folder: Path) -> bytes:
    from training.report import render_training_report  # templates load slowly

    return render_training_report(folder)
