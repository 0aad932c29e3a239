"""Lean selection: the few content features that help on channels the model has not seen, judged inside train.

With more features than rows a booster fits noise. Permutation importance on the rows of the fit would reward that, so
train is divided once more by channel and each feature is shuffled in the part that was not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm
import numpy as np

from training.splits import channel_groups

_INNER_FOLDS = 3
_REPEATS = 2
_ROUNDS = 100
_MIN_ROWS = 30
_PARAMS = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 10,
    "feature_fraction": 0.5,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def permutation_importance(
    matrix: np.ndarray,
    categorical: Sequence[int],
    y: np.ndarray,
    channel: np.ndarray,
    seed: int,
    threads: int,
) -> np.ndarray:
    """float64 [features]: mean rise of the squared error, in variances of y, when one feature is shuffled.

    `matrix` [rows, features] and `y` [rows, heads] (NaN where masked) are train rows. Averaged over heads, inner folds
    and repeats; zeros when no head has enough rows.
    """
    rng = np.random.default_rng(seed)
    params = {**_PARAMS, "seed": seed, "num_threads": threads}
    groups = channel_groups(channel, np.ones(len(channel), dtype=bool), _INNER_FOLDS)
    total = np.zeros(matrix.shape[1])
    rounds = 0
    for head in range(y.shape[1]):
        known = ~np.isnan(y[:, head])
        for fold in range(_INNER_FOLDS):
            fit, held = known & (groups != fold), known & (groups == fold)
            variance = float(np.var(y[held, head])) if held.any() else 0.0
            if min(fit.sum(), held.sum()) < _MIN_ROWS or variance == 0.0:
                continue
            data = lightgbm.Dataset(matrix[fit], y[fit, head], categorical_feature=list(categorical), params=params)
            model = lightgbm.train(params, data, num_boost_round=_ROUNDS)
            total += _rise(model, matrix[held], y[held, head], rng, threads) / variance
            rounds += 1
    return total / max(rounds, 1)


def _rise(
    model: lightgbm.Booster, matrix: np.ndarray, y: np.ndarray, rng: np.random.Generator, threads: int
) -> np.ndarray:
    def error(rows: np.ndarray) -> float:
        return float(np.mean((np.asarray(model.predict(rows, num_threads=threads)) - y) ** 2))

    base = error(matrix)
    rise = np.zeros(matrix.shape[1])
    for feature in np.flatnonzero(model.feature_importance("split")):
        for _ in range(_REPEATS):
            shuffled = matrix.copy()
            shuffled[:, feature] = rng.permutation(shuffled[:, feature])
            rise[feature] += (error(shuffled) - base) / _REPEATS
    return rise


def select(names: Sequence[str], content: Sequence[bool], importance: np.ndarray, limit: int) -> tuple[str, ...]:
    """All metadata features and the best content features, at most `limit` of positive importance; order of `names`."""
    ranked = sorted(
        (position for position in range(len(names)) if content[position] and importance[position] > 0),
        key=lambda position: (-importance[position], names[position]),
    )
    chosen = set(ranked[:limit])
    return tuple(name for position, name in enumerate(names) if not content[position] or position in chosen)
