"""Manifests of training runs that never happened, complete for their schema. SYNTHETIC unless asked otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trendflow.inference.quantiles import METHOD

SHA = "ab" * 32
HEADS = tuple(f"{target}_{days}d" for target in ("views", "likes") for days in (7, 14, 21))
QUANTILES = ("p10", "p50", "p90")
LINES = ("persistence", "loglinear", "loglinear_multivariate")


def line(columns: Sequence[str] = (), intercept: float = 0.0, coefficients: Sequence[float] = ()) -> dict[str, Any]:
    return {
        "columns": list(columns),
        "intercept": intercept,
        "coefficients": list(coefficients),
        "fill": [0.0] * len(columns),
    }


def manifest(
    *,
    synthetic: bool = True,
    features: Sequence[str] = ("views_0", "likes_0", "language"),
    levels: Mapping[str, Sequence[str]] | None = None,
    digests: Mapping[str, str] | None = None,
    extension: str = "txt",
    family: str = "lightgbm",
    offset: float = 0.0,
    **dataset: Any,
) -> dict[str, Any]:
    """`digests`: path of a model file or name of a document → sha256; `dataset` replaces entries of that block."""
    digests = digests or {}
    label = "SYNTHETIC_" if synthetic else ""
    parts = {"train": 2400, "val": 300, "test": 300}
    channels = {"train": 900, "val": 150, "test": 150}
    ranges = dict.fromkeys(parts)
    cuts = {"T_val": "2026-01-01T00:00:00+00:00", "T_test": "2026-02-01T00:00:00+00:00"}
    dropped = {"channel_in_another_part": 41}
    return {
        "schema_version": "training_run_manifest_v1",
        "training_run_id": f"{label}{family}-20260301T120000000Z-0123abcd",
        "created_at": "2026-03-01T12:00:00.000Z",
        "seed": 7,
        "git_commit": "c0ffee42" * 5,
        "trainer_digest": SHA,
        "model_family": family,
        "model_version": f"{label}baseline_{family}_1.0.0",
        "registry_state": "candidate",
        "library_versions": {family: "4.6.0", "numpy": "2.4.0"},
        "dataset": {
            "path_digest": SHA,
            "dataset_fingerprint": SHA,
            "dataset_version": f"{label}2026.03",
            "feature_schema_version": "feature_vector_npz_v1",
            "feature_spec_version": "feature_spec_v1",
            "feature_spec_hash": SHA,
            "sampling_policy_version": "sampling_v1",
            "dataprocessor_versions": ["0.1.0"],
            "config_hash": SHA,
            "producer_versions": {},
            "schema_versions": {},
            "model_signatures": {},
            **dataset,
        },
        "split": {
            "method": "time",
            "not_time_ordered": False,
            "time_key": "publish_time",
            **cuts,
            "channel_rule": "majority",
            "embargo": False,
            "n": parts,
            "n_channels": channels,
            "dropped": dropped,
            "n_test_pooled": 300,
            "folds": [
                {
                    "fold": 0,
                    **cuts,
                    "T_end": None,
                    "n": parts,
                    "n_channels": channels,
                    "time_range": ranges,
                    "dropped": dropped,
                }
            ],
            "golden": {"holdout": 0, "regression_mini": 0, "max_share": 0.1},
        },
        "channel_col_used": "channel_id",
        "feature_names": list(features),
        "categorical_features": sorted(levels or {}),
        "targets": [f"target_{head}" for head in HEADS],
        "heads_without_model": [],
        "selection": {"method": "none", "limit": None, "kept": [], "dropped_constant": [], "dropped_missing": []},
        "imputation": {"strategy": "native", "values": {}, "fitted_on": "train"},
        "encoding": {
            "levels": {name: list(found) for name, found in (levels or {}).items()},
            "min_category_share": 0.01,
            "fitted_on": "train",
        },
        "hyperparameters": {"num_leaves": 63, "learning_rate": 0.05},
        "config": {},
        "config_digest": SHA,
        "threads": 1,
        "loss": {"name": "rmse", "power": None, "scale": "log1p"},
        "early_stopping": {"rounds": 100, "on": "val"},
        "quantiles": {"levels": [0.1, 0.5, 0.9], "method": METHOD, "calibrated_on": "val", "coverage": {}},
        "bundles": [_bundle(target, label, family, extension, digests, offset) for target in ("views", "likes")],
        "comparators": {
            "names": ["constant", "channel_median", "velocity", *LINES],
            "fitted": {
                head: {
                    "constant": 1.0,
                    "persistence": line(),
                    "loglinear": line(("views_0",), 0.5, (0.25,)),
                    "loglinear_multivariate": line(),
                }
                for head in HEADS
            },
        },
        "synthetic": synthetic,
        "metrics_path": "metrics.json",
        **{f"{name}_sha256": digests.get(name, SHA) for name in ("metrics", "feature_spec", "splits", "predictions")},
        "status": "success",
    }


def model_path(target: str, days: int, quantile: str = "", extension: str = "txt") -> str:
    return f"models/{target}/{days}d{f'.{quantile}' if quantile else ''}.{extension}"


def _bundle(
    target: str, label: str, family: str, extension: str, digests: Mapping[str, str], offset: float
) -> dict[str, Any]:
    horizons = []
    for days in (7, 14, 21):
        point = model_path(target, days, "", extension)
        paths = {name: model_path(target, days, name, extension) for name in QUANTILES}
        horizons.append(
            {
                "name": f"{days}d",
                "horizon_days": days,
                "target_col": f"target_{target}_{days}d",
                "mask_col": f"mask_{target}_{days}d",
                "model_path": point,
                "sha256": digests.get(point, SHA),
                "n_train": 2000,
                "n_val": 260,
                "best_iteration": 310,
                "conformal_offset": offset,
                "quantile_models": {
                    name: {"path": path, "sha256": digests.get(path, SHA), "best_iteration": 300}
                    for name, path in paths.items()
                },
            }
        )
    return {"name": f"{label}baseline_{family}_{target}", "target": target, "horizons": horizons}
