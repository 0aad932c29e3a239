"""What each feature family adds, on data where one of them is known to carry signal."""

from __future__ import annotations

import numpy as np
import pytest

from training.ablation import ablation, variants
from training.config import SplitConfig, TrainingConfig
from training.importance import PERMUTATION, SHAP, head_importance, importance_page, ranking
from training.splits import make_folds
from trendflow.inference.boosters import Contributions
from trendflow_tests.training.synthetic import content_name, training_data, training_table

CONFIG = TrainingConfig(
    family="lightgbm",
    hyperparameters={"iterations": 60, "learning_rate": 0.1},
    resamples=100,
    threads=1,
    split=SplitConfig(method="group_kfold", folds=3, min_rows=20),
)


def test_the_family_with_signal_is_the_one_that_helps() -> None:
    data = training_data(training_table(n=450, content=True))
    assert variants(data) == [
        ("metadata",),
        ("metadata", "visual"),
        ("metadata", "audio"),
        ("metadata", "text"),
        ("metadata", "visual", "audio", "text"),
    ]
    folds = make_folds(data.rows, CONFIG.split, np.zeros(len(data.rows), dtype=bool))
    alone, visual, audio, text, everything = ablation(data, folds, CONFIG, lambda _: None)["views_14d"]
    assert "difference" not in alone
    # The first visual column has weight 1.5 in the rule of the data, the noise 0.4.
    assert visual["difference"]["rmse"]["high"] < -0.3
    assert everything["difference"]["spearman"]["low"] > 0
    for noise in (audio, text):
        assert abs(noise["difference"]["rmse"]["value"]) < 0.1
    assert visual["n_features"] == alone["n_features"] + 3
    assert alone["overall"]["n"] == np.isfinite(data.rows.y[:, 1]).sum()


def test_there_is_nothing_to_take_away_from_metadata_alone() -> None:
    data = training_data(training_table(n=300))
    folds = make_folds(data.rows, CONFIG.split, np.zeros(len(data.rows), dtype=bool))
    assert ablation(data, folds, CONFIG, lambda _: None) == {}


class Line:
    """y = 3 · first − second, with or without exact contributions."""

    def __init__(self, exact: bool) -> None:
        self._exact = exact

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return 3 * matrix[:, 0] - matrix[:, 1]

    def contributions(self, matrix: np.ndarray) -> Contributions | None:
        return Contributions(matrix * [3.0, -1.0, 0.0], np.zeros(len(matrix))) if self._exact else None


@pytest.mark.parametrize(("exact", "method"), [(True, SHAP), (False, PERMUTATION)])
def test_importance_is_ranked_and_a_blind_feature_has_none(exact: bool, method: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(4000, 3))
    booster = Line(exact)
    found, values = head_importance(booster, matrix, booster.predict(matrix), 0)
    assert found == method
    if exact:  # E|3z| and E|z| of a normal z
        assert values == pytest.approx([3 * np.sqrt(2 / np.pi), np.sqrt(2 / np.pi), 0], abs=0.06)
    else:  # shuffling a feature of weight w adds 2 · w² · variance to the squared error
        assert values == pytest.approx([18, 2, 0], rel=0.1, abs=1e-9)
    family = {"a": "metadata", "b": "audio", "c": "text"}
    ranked = ranking(["a", "b", "c"], family, values)
    assert [entry["feature"] for entry in ranked] == ["a", "b", "c"]
    page = importance_page("Title", found, {"views_7d": ranked})
    assert "| `a` | metadata |" in page
    assert content_name("visual", 0) not in page
