"""CatBoost. Categories and missing values are taken natively; files are CatBoost's binary format."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catboost import CatBoost, Pool

from training.families.base import FitData, Fitted, Objective
from trendflow.inference.boosters import catboost_frame

_OF_THE_FIT = ("train_finish_time", "model_guid")
"""What CatBoost notes of when it ran. Without it, equal models are equal files and have one digest."""


class CatBoostFamily:
    extension = "cbm"
    early_stopping_rounds = 100

    def fit(self, data: FitData, objective: Objective, params: Mapping[str, Any], seed: int, threads: int) -> Fitted:
        model = CatBoost(
            {
                **params,
                "loss_function": _loss(objective),
                "od_type": "Iter",
                "od_wait": self.early_stopping_rounds,
                "use_best_model": True,
                "random_seed": seed,
                "thread_count": threads,
                "allow_writing_files": False,
                "logging_level": "Silent",
            }
        )
        categories = list(data.categorical)
        train = Pool(catboost_frame(data.x, data.categorical), data.y, cat_features=categories)
        model.fit(
            train, eval_set=Pool(catboost_frame(data.x_val, data.categorical), data.y_val, cat_features=categories)
        )
        told = model.get_metadata()
        for name in _OF_THE_FIT:
            del told[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.cbm"
            model.save_model(str(path), format="cbm")
            return Fitted(path.read_bytes(), int(model.tree_count_))


def _loss(objective: Objective) -> str:
    if objective.kind == "quantile":
        return f"Quantile:alpha={objective.parameter}"
    if objective.kind == "tweedie":
        return f"Tweedie:variance_power={objective.parameter}"
    return "RMSE"
