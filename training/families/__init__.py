"""The model families: one module each, one function `fit` each. What they return is a file, read back to predict."""

from __future__ import annotations

from training.config import FamilyName
from training.families.base import Family
from training.families.catboost import CatBoostFamily
from training.families.hist_gradient_boosting import HistGradientBoostingFamily
from training.families.lightgbm import LightGBMFamily

FAMILIES: dict[FamilyName, Family] = {
    "catboost": CatBoostFamily(),
    "lightgbm": LightGBMFamily(),
    "hist_gradient_boosting": HistGradientBoostingFamily(),
}
