"""`training_run_manifest.json`: everything needed to judge a model, to load it and to train it again."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.comparators import COMPARATORS
from training.config import TrainingConfig
from training.data import TrainingData
from training.families import FAMILIES
from training.fold import FoldResult, HeadModel
from training.program import code_version, trainer_digest
from training.rows import HEADS
from trendflow.contracts.canonical import sha256_hex
from trendflow.dataset.table.columns import METADATA
from trendflow.inference.bundle import MANIFEST_SCHEMA, METRICS
from trendflow.inference.quantiles import LEVELS, METHOD, NAMES

SYNTHETIC = "SYNTHETIC_"
_PACKAGES = ("numpy", "pyarrow", "scikit-learn", "catboost", "lightgbm")
_DATASET_KEYS = (
    "dataset_version",
    "feature_schema_version",
    "feature_spec_version",
    "feature_spec_hash",
    "sampling_policy_version",
    "dataprocessor_versions",
    "config_hash",
    "producer_versions",
    "schema_versions",
    "model_signatures",
)
UNKNOWN_COMMIT = "unknown"


def training_run_id(data: TrainingData, config: TrainingConfig, created_at: str) -> str:
    """`<family>-<moment>-<digest of dataset and settings>`; begins with `SYNTHETIC_` for synthetic data."""
    moment = "".join(character for character in created_at if character.isalnum())
    digest = sha256_hex(f"{data.fingerprint}{config.digest}".encode())[:8]
    return f"{prefix(data)}{config.family}-{moment}-{digest}"


def library_versions() -> dict[str, str]:
    """The versions of everything that can alter a fitted value."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def prefix(data: TrainingData) -> str:
    return SYNTHETIC if data.synthetic else ""


def model_files(model: HeadModel, extension: str) -> dict[str, bytes]:
    """Path in the run folder → bytes: the point model `<h>.<ext>` and one per quantile, `<h>.p10.<ext>` …"""
    base = f"models/{model.head.target}/{model.head.horizon}"
    files = {f"{base}.{extension}": model.point.data}
    return files | {
        f"{base}.{name}.{extension}": fitted.data for name, fitted in zip(NAMES, model.quantiles, strict=True)
    }


def build_manifest(
    data: TrainingData,
    config: TrainingConfig,
    results: Sequence[FoldResult],
    proof: Mapping[str, Any],
    *,
    run_id: str,
    created_at: str,
    dataset_folder: Path,
    coverage: Mapping[str, float | None],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """The manifest of a finished run. The stored models are those of the last fold.

    `coverage`: measured share of [p10, p90] on test per head; `digests`: sha256 of the other files of the folder.
    """
    last = results[-1]
    inputs, family = last.inputs, FAMILIES[config.family]
    metadata = data.metadata
    return {
        "schema_version": MANIFEST_SCHEMA,
        "training_run_id": run_id,
        "created_at": created_at,
        "seed": config.seed,
        "git_commit": git_commit(),
        "trainer_digest": trainer_digest(),
        "model_family": config.family,
        "model_version": f"{prefix(data)}baseline_{config.family}_{code_version()}",
        "registry_state": "candidate",
        "library_versions": library_versions(),
        "dataset": {
            "path_digest": sha256_hex(str(dataset_folder.resolve()).encode()),
            "dataset_fingerprint": data.fingerprint,
            **{key: metadata.get(key) for key in _DATASET_KEYS},
        },
        "split": _split(config, proof),
        "channel_col_used": "channel_id",
        "feature_names": list(inputs.encoding.features),
        "categorical_features": sorted(inputs.encoding.levels),
        "targets": [head.target_column for head in HEADS if head.name in last.models],
        "heads_without_model": [head.name for head in HEADS if head.name not in last.models],
        "selection": {
            "method": "permutation_importance_inner_channel_folds" if inputs.importance else "none",
            "limit": config.max_content_features,
            "kept": [name for name in inputs.encoding.features if data.family[name] != METADATA],
            "dropped_constant": list(inputs.preprocessing.constant),
            "dropped_missing": list(inputs.preprocessing.missing),
        },
        "imputation": {
            "strategy": "native for trees, median of log1p for the linear comparators",
            "values": {
                name: dict(zip(line.columns, line.fill, strict=True))
                for name, model in last.models.items()
                for line in [model.comparators.lines["loglinear_multivariate"]]
            },
            "fitted_on": "train",
        },
        "encoding": {
            "levels": {name: list(levels) for name, levels in inputs.encoding.levels.items()},
            "min_category_share": config.min_category_share,
            "fitted_on": "train",
        },
        "hyperparameters": config.complete_hyperparameters,
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest,
        "threads": config.threads,
        "loss": {
            "name": config.loss,
            "power": config.tweedie_power if config.loss == "tweedie" else None,
            "scale": "natural" if config.loss == "tweedie" else "log1p",
        },
        "early_stopping": {"rounds": family.early_stopping_rounds, "on": "val"},
        "quantiles": {
            "levels": list(LEVELS),
            "method": METHOD,
            "calibrated_on": "val",
            "coverage": dict(coverage),
        },
        "bundles": _bundles(data, last, family.extension),
        "comparators": {
            "names": list(COMPARATORS),
            "fitted": {name: model.comparators.as_dict() for name, model in last.models.items()},
        },
        "synthetic": data.synthetic,
        "metrics_path": METRICS,
        "metrics_sha256": digests["metrics"],
        "feature_spec_sha256": digests["feature_spec"],
        "splits_sha256": digests["splits"],
        "predictions_sha256": digests["predictions"],
        "status": "success",
    }


def _split(config: TrainingConfig, proof: Mapping[str, Any]) -> dict[str, Any]:
    """What the proof found in the written file; sizes and cuts are those of the last fold."""
    last = proof["folds"][-1]
    dropped: Counter[str] = Counter()
    for fold in proof["folds"]:
        dropped.update(fold["dropped"])
    return {
        "method": config.split.method,
        "not_time_ordered": proof["not_time_ordered"],
        "time_key": config.split.time_key,
        "T_val": last["T_val"],
        "T_test": last["T_test"],
        "channel_rule": config.split.channel_rule,
        "embargo": config.split.embargo,
        "n": last["n"],
        "n_channels": last["n_channels"],
        "dropped": dict(sorted(dropped.items())),
        "n_test_pooled": proof["n_test"],
        "folds": proof["folds"],
        "golden": config.golden.model_dump(),
    }


def _bundles(data: TrainingData, last: FoldResult, extension: str) -> list[dict[str, Any]]:
    bundles = []
    for target in dict.fromkeys(head.target for head in HEADS):
        models = [model for model in last.models.values() if model.head.target == target]
        if models:
            entries = [_horizon(model, extension) for model in models]
            bundles.append({"name": f"{prefix(data)}{target}", "target": target, "horizons": entries})
    return bundles


def _horizon(model: HeadModel, extension: str) -> dict[str, Any]:
    (point_path, point), *quantiles = model_files(model, extension).items()
    return {
        "name": model.head.horizon,
        "horizon_days": model.head.horizon_days,
        "target_col": model.head.target_column,
        "mask_col": model.head.mask_column,
        "model_path": point_path,
        "sha256": sha256_hex(point),
        "n_train": model.n_train,
        "n_val": model.n_val,
        "best_iteration": model.point.best_iteration,
        "conformal_offset": model.offset,
        "quantile_models": {
            name: {"path": path, "sha256": sha256_hex(content), "best_iteration": fitted.best_iteration}
            for name, (path, content), fitted in zip(NAMES, quantiles, model.quantiles, strict=True)
        },
    }


def git_commit() -> str:
    """The commit of the checkout this code runs from; `unknown` in an installation without one."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN_COMMIT
    return found.stdout.strip() if found.returncode == 0 else UNKNOWN_COMMIT
