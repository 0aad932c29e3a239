"""The families: files read back predict the same, training repeats, hostile files are refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from training.families import FAMILIES
from training.families.base import FitData, Objective
from training.families.hist_gradient_boosting import to_ensemble
from training.hyperparameters import with_defaults
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.boosters import load_booster
from trendflow.inference.tree_ensemble import NUMERIC, TreeEnsemble
from trendflow.storage.npz import decode, encode

SMALL = {"iterations": 40}


def fit_data(seed: int = 0, n: int = 300) -> FitData:
    """y = x₀ + 2 · [category = 2] of few categories, which LightGBM splits one by one; gaps and a noise column."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), rng.integers(0, 3, n), rng.normal(size=n)])
    y = 3 + x[:, 0] + 2.0 * (x[:, 1] == 2) + rng.normal(0, 0.1, n)
    x[rng.random(n) < 0.1, 2] = np.nan
    half = n // 2
    return FitData(x[:half], y[:half], x[half:], y[half:], (1,))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_learns_numbers_and_categories_and_repeats_itself(name: str) -> None:
    family, data = FAMILIES[name], fit_data()  # type: ignore[index]
    params = with_defaults(name, {**SMALL, "learning_rate": 0.3})
    one, two = (family.fit(data, Objective("rmse"), params, 7, 1) for _ in range(2))
    predicted = load_booster(f"m.{family.extension}", one.data).predict(data.x_val)
    assert np.corrcoef(predicted, data.y_val)[0, 1] > 0.9
    again = load_booster(f"m.{family.extension}", two.data).predict(data.x_val)
    np.testing.assert_allclose(again, predicted, rtol=0, atol=1e-9)
    assert one.data == two.data, "equal models have one digest, whenever they were trained"
    assert 0 < one.best_iteration <= SMALL["iterations"]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_quantile_models_split_the_outcomes_as_asked(name: str) -> None:
    family, data = FAMILIES[name], fit_data(n=2000)  # type: ignore[index]
    params = with_defaults(name, {"iterations": 150, "learning_rate": 0.1})
    for level in (0.1, 0.9):
        fitted = family.fit(data, Objective("quantile", level), params, 7, 1)
        predicted = load_booster(f"m.{family.extension}", fitted.data).predict(data.x_val)
        assert np.mean(data.y_val <= predicted) == pytest.approx(
            level, abs=0.12
        )  # in-sample leaves; the interval is calibrated later


@pytest.mark.parametrize("name", ["catboost", "lightgbm"])
def test_contributions_add_up_to_the_prediction(name: str) -> None:
    family, data = FAMILIES[name], fit_data()  # type: ignore[index]
    fitted = family.fit(data, Objective("rmse"), with_defaults(name, SMALL), 7, 1)
    booster = load_booster(f"m.{family.extension}", fitted.data)
    found = booster.contributions(data.x_val)
    assert found is not None
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, booster.predict(data.x_val), atol=1e-6)


@pytest.mark.parametrize("name", ["catboost", "lightgbm"])
def test_a_tweedie_model_predicts_counts_and_is_read_on_the_log_scale(name: str) -> None:
    family, data = FAMILIES[name], fit_data()  # type: ignore[index]
    counts = FitData(data.x, np.expm1(data.y), data.x_val, np.expm1(data.y_val), data.categorical)
    params = with_defaults(name, {"iterations": 200, "learning_rate": 0.1})
    fitted = family.fit(counts, Objective("tweedie", 1.5), params, 7, 1)
    predicted = load_booster(f"m.{family.extension}", fitted.data, natural=True).predict(data.x_val)
    assert np.mean(np.abs(predicted - data.y_val)) < 0.6


def test_tweedie_is_refused_where_the_library_has_none() -> None:
    family, params = FAMILIES["hist_gradient_boosting"], with_defaults("hist_gradient_boosting", SMALL)
    with pytest.raises(TrendFlowError) as caught:
        family.fit(fit_data(), Objective("tweedie", 1.5), params, 7, 1)
    assert caught.value.error_code == "config_invalid"


@pytest.mark.parametrize("loss", ["squared_error", "quantile"])
def test_trees_as_arrays_predict_what_sklearn_predicts(loss: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4))
    x[rng.random(x.shape) < 0.2] = np.nan
    y = np.nan_to_num(x[:, 0]) * 2 + np.isnan(x[:, 1])
    model = HistGradientBoostingRegressor(
        loss=loss, quantile=0.7 if loss == "quantile" else None, max_iter=60, early_stopping=False
    )
    with threadpool_limits(1):
        model.fit(x, y)
    ensemble = to_ensemble(model, 60, 4, np.arange(4), np.full(4, NUMERIC))
    unseen = rng.normal(size=(300, 4)) * 3
    unseen[rng.random(unseen.shape) < 0.3] = np.nan
    read = TreeEnsemble.from_bytes(ensemble.to_bytes())
    with threadpool_limits(1):
        expected = model.predict(unseen)
    np.testing.assert_allclose(read.predict(unseen), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("array", "value"), [("left", 10**6), ("right", 0), ("feature", 99), ("roots", -1), ("source", 77)]
)
def test_trees_that_point_elsewhere_are_refused(array: str, value: int) -> None:
    data = fit_data()
    fitted = FAMILIES["hist_gradient_boosting"].fit(
        data, Objective("rmse"), with_defaults("hist_gradient_boosting", SMALL), 7, 1
    )
    arrays, meta = decode(fitted.data)
    broken = {name: np.array(values) for name, values in arrays.items()}
    broken[array][0] = value
    with pytest.raises(TrendFlowError) as caught:
        TreeEnsemble.from_bytes(encode(broken, {key: meta[key] for key in ("format", "baseline", "n_features")}))
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("path", ["m.cbm", "m.txt", "m.pkl"])
def test_bytes_that_are_no_model_are_refused(path: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        load_booster(path, b"\x80\x04K*.").predict(np.zeros((1, 1)))
    assert caught.value.error_code == "model_load_failed"
