"""Trained models of every family behind one interface. Files are read from verified bytes, never unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    import lightgbm
    import pandas
    from catboost import CatBoost


class Contributions(NamedTuple):
    """Signed share of every feature in a prediction (SHAP): `values` [rows, features] + `base` [rows] = prediction."""

    values: np.ndarray
    base: np.ndarray


class Booster(Protocol):
    """One trained model."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """float64 [rows] for the encoded `matrix` [rows, features]."""
        ...

    def contributions(self, matrix: np.ndarray) -> Contributions | None:
        """None when the family has no exact attribution of its own."""
        ...


def catboost_frame(matrix: np.ndarray, categorical: tuple[int, ...]) -> pandas.DataFrame:
    """CatBoost takes categories as integers, which a float matrix cannot hold."""
    import pandas

    frame = pandas.DataFrame(matrix)
    return frame.astype(dict.fromkeys(categorical, np.int64))


class _CatBoost:
    def __init__(self, model: CatBoost, natural: bool) -> None:
        self._model = model
        self._categorical = tuple(model.get_cat_feature_indices())
        self._natural = natural

    def _pool(self, matrix: np.ndarray) -> Any:
        from catboost import Pool

        return Pool(catboost_frame(matrix, self._categorical), cat_features=list(self._categorical))

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        kind = "Exponent" if self._natural else "RawFormulaVal"
        raw = np.asarray(self._model.predict(self._pool(matrix), prediction_type=kind), dtype=np.float64)
        return np.log1p(raw) if self._natural else raw

    def contributions(self, matrix: np.ndarray) -> Contributions | None:
        if self._natural:
            return None
        shap = np.asarray(self._model.get_feature_importance(self._pool(matrix), type="ShapValues"), dtype=np.float64)
        return Contributions(shap[:, :-1], shap[:, -1])


class _LightGBM:
    def __init__(self, model: lightgbm.Booster, natural: bool) -> None:
        self._model = model
        self._natural = natural

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        raw = self._raw(matrix)
        return np.log1p(raw) if self._natural else raw

    def contributions(self, matrix: np.ndarray) -> Contributions | None:
        if self._natural:
            return None
        shap = self._raw(matrix, pred_contrib=True)
        return Contributions(shap[:, :-1], shap[:, -1])

    def _raw(self, matrix: np.ndarray, **what: bool) -> np.ndarray:
        # Left alone it would take every core of a machine it shares.
        return np.asarray(self._model.predict(matrix, num_threads=1, **what), dtype=np.float64)


class _Trees:
    def __init__(self, ensemble: TreeEnsemble) -> None:
        self._ensemble = ensemble

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return self._ensemble.predict(matrix)

    def contributions(self, matrix: np.ndarray) -> Contributions | None:
        return None


def _catboost(data: bytes, natural: bool) -> Booster:
    from catboost import CatBoost

    model = CatBoost()
    model.load_model(blob=data)
    return _CatBoost(model, natural)


def _lightgbm(data: bytes, natural: bool) -> Booster:
    import lightgbm

    return _LightGBM(lightgbm.Booster(model_str=data.decode("utf-8")), natural)


def _trees(data: bytes, natural: bool) -> Booster:
    return _Trees(TreeEnsemble.from_bytes(data))


_READERS: dict[str, Callable[[bytes, bool], Booster]] = {".cbm": _catboost, ".txt": _lightgbm, ".npz": _trees}
"""By file extension: CatBoost binary, LightGBM text, trees of HistGradientBoosting."""


def load_booster(path: str, data: bytes, natural: bool = False) -> Booster:
    """The model whose file `path` holds `data`. `natural`: it predicts growth in counts, which becomes log1p here.

    Raises `model_load_failed` when the library refuses the bytes.
    """
    suffix = Path(path).suffix
    if suffix not in _READERS:
        raise TrendFlowError("model_load_failed", f"No model family writes {suffix!r} files.", suffix=suffix)
    try:
        return _READERS[suffix](data, natural)
    except TrendFlowError:
        raise
    except Exception as exc:  # each library has its own hierarchy, LightGBM and CatBoost both raise bare ones
        name = type(exc).__name__
        raise TrendFlowError("model_load_failed", f"The model file cannot be read: {name}.", type=name) from exc
