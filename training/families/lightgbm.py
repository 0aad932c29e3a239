"""LightGBM. Categories and missing values are taken natively; files are LightGBM's text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightgbm

from training.families.base import FitData, Fitted, Objective


class LightGBMFamily:
    extension = "txt"
    early_stopping_rounds = 100

    def fit(self, data: FitData, objective: Objective, params: Mapping[str, Any], seed: int, threads: int) -> Fitted:
        settings = dict(params)
        rounds = int(settings.pop("iterations"))
        settings |= {
            **_loss(objective),
            "seed": seed,
            "num_threads": threads,
            "deterministic": True,
            "force_row_wise": True,  # the choice between layouts is timed otherwise, and layouts sum in other orders
            "verbosity": -1,
        }
        train = lightgbm.Dataset(data.x, data.y, categorical_feature=list(data.categorical), params=settings)
        model = lightgbm.train(
            settings,
            train,
            num_boost_round=rounds,
            valid_sets=[train.create_valid(data.x_val, data.y_val)],
            callbacks=[lightgbm.early_stopping(self.early_stopping_rounds, verbose=False)],
        )
        best = int(model.best_iteration)
        return Fitted(model.model_to_string(num_iteration=best).encode(), best)


def _loss(objective: Objective) -> dict[str, Any]:
    if objective.kind == "quantile":
        return {"objective": "quantile", "alpha": objective.parameter, "metric": "quantile"}
    if objective.kind == "tweedie":
        return {"objective": "tweedie", "tweedie_variance_power": objective.parameter, "metric": "tweedie"}
    return {"objective": "regression", "metric": "rmse"}
