"""A SYNTHETIC training run: the files a run folder holds, with numbers drawn from a known law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training import evaluation
from training.gate import quality_gate
from trendflow_tests.inference.manifests import HEADS, manifest

COMPARATORS = ("constant", "channel_median", "velocity", "persistence", "loglinear", "loglinear_multivariate")
BUCKETS = ("<24h", "1-30d", ">30d")


def estimate(value: float, width: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def cell(spearman: float, n: int = 300, rmse: float = 1.1, **extra: Any) -> dict[str, Any]:
    numbers = {"spearman": estimate(spearman), "rmse": estimate(rmse), "mae": estimate(0.8 * rmse)}
    return {"n": n, "n_channels": n // 2, "low_n": n < 30, **numbers, **extra}


def predictor(spearman: float, n: int) -> dict[str, Any]:
    sizes = dict(zip(BUCKETS, (12, n // 2, n - n // 2 - 12), strict=True))
    return {"overall": cell(spearman, n), "buckets": {name: cell(spearman, size) for name, size in sizes.items()}}


def difference(value: float, width: float = 0.01) -> dict[str, Any]:
    metrics = {"spearman": estimate(value, width), "rmse": estimate(-value, width), "mae": estimate(-value, width)}
    part = {"n": 300, "n_channels": 150, "low_n": False, **metrics}
    return {"overall": part, "buckets": {name: dict(part) for name in BUCKETS}}


def head_metrics(n: int = 300, against_persistence: float = 0.03) -> dict[str, Any]:
    """The model has a Spearman of 0.85; `against_persistence` is how much more that is than the best formula's."""
    gaps = dict(zip(COMPARATORS, (0.85, 0.4, 0.2, 0.1, against_persistence, 0.05), strict=True))
    held = {"n": n, "n_channels": n // 2, **estimate(0.79, 0.04), "mean_width": 2.5}
    parts = {name: dict(held) for name in ("overall", *BUCKETS)}
    constant = predictor(0.0, n)
    for part in (constant["overall"], *constant["buckets"].values()):
        part["spearman"] = {"value": None, "low": None, "high": None}
    differences = {name: difference(gap) for name, gap in gaps.items()}
    for part in (differences["constant"]["overall"], *differences["constant"]["buckets"].values()):
        part["spearman"] = {"value": None, "low": None, "high": None}
    return {
        "model": predictor(0.85, n),
        "p50": predictor(0.84, n),
        "comparators": {
            name: constant if name == "constant" else predictor(0.85 - gap, n) for name, gap in gaps.items()
        },
        "differences": differences,
        "coverage": {"nominal": 0.8, "overall": parts["overall"], "buckets": {name: parts[name] for name in BUCKETS}},
        "repairs": {"n": n, "crossed": 0.03, "rearranged": 0.17},
        "quantiles_ordered": True,
        "verdicts": {
            name: {metric: evaluation.verdict(metric, found["overall"][metric]) for metric in evaluation.METRICS}
            for name, found in differences.items()
        },
    }


def metrics(synthetic: bool = True, **heads: dict[str, Any]) -> dict[str, Any]:
    made = {head: heads.get(head) or head_metrics() for head in HEADS}
    features = [("views_0", "metadata"), ("cut_detection__cuts_per_minute__value", "visual"), ("likes_0", "metadata")]
    features += [
        ("loudness_extractor__integrated_lufs__value", "audio"),
        ("text_processor__tp_lex_title_len_words__value", "text"),
    ]
    steps = [["metadata"], ["metadata", "visual"], ["metadata", "visual", "audio"]]
    return {
        "schema_version": "training_metrics_v1",
        "training_run_id": manifest(synthetic=synthetic, family="catboost")["training_run_id"],
        "synthetic": synthetic,
        "evaluated_on": "test",
        "not_time_ordered": False,
        "resamples": 1000,
        "heads": made,
        "importance": {
            head: [{"feature": name, "family": family, "value": 2.0**-k} for k, (name, family) in enumerate(features)]
            for head in HEADS
        },
        "ablation": {
            head: [
                {"families": step, "n_features": 20 * len(step), "overall": cell(0.8 + 0.01 * len(step))}
                for step in steps
            ]
            for head in HEADS
        },
        "gate": quality_gate(made),
    }


def dataset_metadata(synthetic: bool = True) -> dict[str, Any]:
    return {
        "n_rows": 3000,
        "n_videos": 3000,
        "n_channels": 1200,
        "n_feature_columns": 3,
        "rows_with_real_targets": 0 if synthetic else 2900,
        "synthetic_targets": synthetic,
        "mask_coverage": {head: 0.9 - 0.1 * k for k, head in enumerate(HEADS)},
        "mask_reasons": {head: {"no_snapshot": 200, "decreased": 12, "bad_counter": 0} for head in HEADS},
        "edge_cases": {"falls": 43, "falls_masked": 31},
        "included_components": ["core_clip", "cut_detection"],
        "channel_enrichment": {"statistics_snapshot": 2990, "statistics_missing": 10},
        "time_range": {"publish_time": {"min": "2025-06-01T00:00:00.000Z", "max": "2026-02-20T00:00:00.000Z"}},
        "age_bucket_counts": {"<24h": 1200, "1-30d": 1300, ">30d": 500},
        "language_counts": {"en": 1800, "ru": 700, "de": 500},
        "excluded": {"channel_id_missing": 12, "tombstoned": 1},
    }


def predictions(n: int = 300, seed: int = 5) -> pa.Table:
    """`y` is normal around p50 with a standard deviation of 1, and p10, p90 are exactly its quantiles."""
    rng = np.random.default_rng(seed)
    z90 = 1.2815515655446004
    parts = []
    for head in HEADS:
        target, _, horizon = head.rpartition("_")
        p50 = rng.uniform(3, 11, n)
        parts.append(
            pa.table(
                {
                    "platform_id": ["youtube"] * n,
                    "video_id": [f"SYNTHETIC_{k:05d}" for k in range(n)],
                    "channel_id": [f"channel_{k // 2}" for k in range(n)],
                    "part": ["test"] * n,
                    "target": [target] * n,
                    "horizon": [horizon] * n,
                    "age_bucket": [BUCKETS[k % 3] for k in range(n)],
                    "y": np.maximum(p50 + rng.normal(0, 1, n), 0.0),
                    "point": p50,
                    "p10": p50 - z90,
                    "p50": p50,
                    "p90": p50 + z90,
                    "loglinear": p50 + rng.normal(0, 1, n),
                }
            )
        )
    return pa.concat_tables(parts)


def write_run(folder: Path, *, synthetic: bool = True, n: int = 300, **heads: dict[str, Any]) -> Path:
    """All files of a run folder that the report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "training_run_manifest.json": manifest(synthetic=synthetic, family="catboost", extension="cbm"),
        "metrics.json": metrics(synthetic, **heads),
        "dataset_metadata.json": dataset_metadata(synthetic),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document), "utf-8")
    pq.write_table(predictions(n), folder / "predictions.parquet")
    return folder
