"""scikit-learn's HistGradientBoosting. It has no file format but pickle, so its trees are written as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from training.families.base import FitData, Fitted, Objective
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.tree_ensemble import NUMERIC, TreeEnsemble, one_hot


class HistGradientBoostingFamily:
    extension = "npz"
    early_stopping_rounds = 20

    def fit(self, data: FitData, objective: Objective, params: Mapping[str, Any], seed: int, threads: int) -> Fitted:
        """Raises `config_invalid` for a Tweedie loss, which the library does not offer."""
        if objective.kind == "tweedie":
            raise TrendFlowError("config_invalid", "HistGradientBoosting has no Tweedie loss.")
        settings = dict(params)
        rounds = int(settings.pop("iterations"))
        model = HistGradientBoostingRegressor(
            loss="quantile" if objective.kind == "quantile" else "squared_error",
            quantile=objective.parameter if objective.kind == "quantile" else None,
            max_iter=rounds,
            early_stopping=True,
            scoring="loss",
            n_iter_no_change=self.early_stopping_rounds,
            random_state=seed,
            **settings,
        )
        source, code = _inputs(data)
        with threadpool_limits(threads):
            model.fit(one_hot(data.x, source, code), data.y, X_val=one_hot(data.x_val, source, code), y_val=data.y_val)
        # The first score is that of the baseline alone.
        best = int(np.argmax(model.validation_score_))
        ensemble = to_ensemble(model, best, data.x.shape[1], source, code)
        return Fitted(ensemble.to_bytes(), best)


def _inputs(data: FitData) -> tuple[np.ndarray, np.ndarray]:
    """One input per numeric feature and one per category code seen in train."""
    pairs = []
    for position in range(data.x.shape[1]):
        codes = np.unique(data.x[:, position]).astype(np.int64) if position in data.categorical else [NUMERIC]
        pairs += [(position, int(code)) for code in codes]
    source, code = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return source, code


def to_ensemble(
    model: HistGradientBoostingRegressor, trees: int, n_features: int, source: np.ndarray, code: np.ndarray
) -> TreeEnsemble:
    """The first `trees` trees of a fitted model. scikit-learn has no public access to them; its version is pinned."""
    parts = [predictor.nodes for (predictor,) in model._predictors[:trees]]
    sizes = [len(part) for part in parts]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if parts else np.empty(0, np.int64)
    nodes = np.concatenate(parts) if parts else np.empty(0, model._predictors[0][0].nodes.dtype)
    offset = np.repeat(roots, sizes)
    return TreeEnsemble(
        baseline=float(np.ravel(model._baseline_prediction)[0]),
        n_features=n_features,
        source=source,
        code=code,
        roots=roots,
        nodes={
            "value": nodes["value"].astype(np.float64),
            "feature": nodes["feature_idx"].astype(np.int64),
            "threshold": nodes["num_threshold"].astype(np.float64),
            "missing_left": nodes["missing_go_to_left"].astype(bool),
            "left": nodes["left"].astype(np.int64) + offset,
            "right": nodes["right"].astype(np.int64) + offset,
            "is_leaf": nodes["is_leaf"].astype(bool),
        },
    )
