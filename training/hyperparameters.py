"""The hyperparameters of every family: names, defaults and the values that its library takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError


class _Hyperparameters(BaseModel):
    # Strict, so that `depth: true` is no tree of depth 1.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    iterations: int = Field(2000, ge=1)
    learning_rate: float = Field(0.05, gt=0, le=1)


class _CatBoost(_Hyperparameters):
    depth: int = Field(8, ge=1, le=16)
    l2_leaf_reg: float = Field(3.0, ge=0)


class _LightGBM(_Hyperparameters):
    num_leaves: int = Field(63, ge=2, le=131_072)
    bagging_fraction: float = Field(0.9, gt=0, le=1)
    bagging_freq: int = Field(1, ge=0)
    feature_fraction: float = Field(0.9, gt=0, le=1)
    min_data_in_leaf: int = Field(20, ge=0)


class _HistGradientBoosting(_Hyperparameters):
    iterations: int = Field(500, ge=1)
    max_depth: int = Field(8, ge=1)
    max_leaf_nodes: int = Field(31, ge=2)
    min_samples_leaf: int = Field(20, ge=1)
    l2_regularization: float = Field(0.0, ge=0)


_OF_FAMILY: Mapping[str, type[_Hyperparameters]] = {
    "catboost": _CatBoost,
    "lightgbm": _LightGBM,
    "hist_gradient_boosting": _HistGradientBoosting,
}


def with_defaults(family: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a family with `overrides` on top.

    Raises `PydanticCustomError`, which a validator passes on, naming the first hyperparameter that the family does not
    have or whose value it does not take.
    """
    try:
        return _OF_FAMILY[family].model_validate(dict(overrides)).model_dump()
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(_OF_FAMILY[family].model_fields))
            raise PydanticCustomError("hyperparameter", f"{family} has no {name}; it has {known}") from exc
        raise PydanticCustomError("hyperparameter", f"{name}: {first['msg']}") from exc
