"""What each feature family adds: the same rows, folds and settings with fewer columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from training.config import TrainingConfig
from training.data import TrainingData
from training.evaluation import difference
from training.fold import Progress, fit_inputs, fit_point, point_booster, usable_parts
from training.metrics import ChannelBootstrap
from training.predictions import HeadRows
from training.rows import HEADS
from training.splits import Fold
from trendflow.dataset.table.columns import FAMILIES, METADATA
from trendflow.inference.quantiles import FLOOR


def variants(data: TrainingData) -> list[tuple[str, ...]]:
    """Metadata alone, metadata with each other family the dataset has, and all of them."""
    present = [family for family in FAMILIES if family in set(data.family.values())]
    content = [family for family in present if family != METADATA]
    alone = [(METADATA,)] if METADATA in present else []
    single = [(*alone[0], family) if alone else (family,) for family in content]
    return [*alone, *single, *([tuple(present)] if len(content) > 1 else [])]


def ablation(
    data: TrainingData, folds: Sequence[Fold], config: TrainingConfig, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Per head one entry per variant; `difference` is to the first, metadata alone, with paired intervals.

    Empty for a dataset of one family, where there is nothing to take away.
    """
    compared = variants(data)
    result: dict[str, list[dict[str, Any]]] = {}
    first: dict[str, HeadRows] = {}
    for families in compared if len(compared) > 1 else ():
        progress(" + ".join(families))
        features = data.of_families(_within(families))
        forecasts, used = _forecasts(data, folds, config, features)
        for name, rows in forecasts.items():
            bootstrap = ChannelBootstrap(rows.channel, config.resamples, config.seed)
            entry: dict[str, Any] = {
                "families": list(families),
                "n_features": used,
                "overall": bootstrap.cell(bootstrap.scores(rows.y, rows.forecasts["point"])),
            }
            if name in first:
                entry["difference"] = difference(rows, first[name], config.resamples, config.seed)
            first.setdefault(name, rows)
            result.setdefault(name, []).append(entry)
    return result


def _within(families: Sequence[str]) -> Callable[[str], bool]:
    return lambda family: family in families


def _forecasts(
    data: TrainingData, folds: Sequence[Fold], config: TrainingConfig, features: Sequence[str]
) -> tuple[dict[str, HeadRows], int]:
    """Pooled point forecasts of every head, and the features of the last fold's models."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    used = 0
    for fold in folds:
        inputs = fit_inputs(data, fold, config, features)
        used = len(inputs.encoding.features)
        matrix = inputs.encoding.matrix(data.table)
        for position in range(len(HEADS)):
            usable = usable_parts(data, fold, position, config)
            if usable is None:
                continue
            *learning, test = usable
            fitted = fit_point(matrix, inputs.encoding.categorical, data.rows.y[:, position], learning, config)
            predicted = np.maximum(point_booster(fitted, config).predict(matrix[test]), FLOOR)
            found.setdefault(position, []).append((test, predicted))
    result = {}
    for position, parts in found.items():
        at = np.concatenate([rows for rows, _ in parts])
        keys = tuple(zip(data.rows.platform[at].tolist(), data.rows.video[at].tolist(), strict=True))
        point = np.concatenate([values for _, values in parts])
        y = data.rows.y[at, position]
        rows = HeadRows(HEADS[position], keys, data.rows.channel[at], data.rows.bucket[at], y, {"point": point})
        result[rows.head.name] = rows
    return result, used
