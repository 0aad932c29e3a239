"""What a training run is asked to do. Everything here that can change a number enters the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError

FamilyName = Literal["catboost", "lightgbm", "hist_gradient_boosting"]
SplitMethod = Literal["time", "rolling_origin", "group_kfold"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitConfig(_Model):
    """How rows are divided; see `training.splits`."""

    method: SplitMethod = "time"
    time_key: Literal["publish_time", "snapshot1_at"] = "publish_time"
    channel_rule: Literal["majority", "latest"] = "majority"
    t_val: datetime | None = Field(None, description="Start of val; default the `val_point` of the time key.")
    t_test: datetime | None = Field(None, description="Start of test; default the `test_point` of the time key.")
    val_point: float = Field(0.8, gt=0, lt=1)
    test_point: float = Field(0.9, gt=0, lt=1)
    embargo: bool = Field(False, description="Drop targets of train and val that were observed after T_test.")
    folds: int = Field(5, ge=2, description="Of rolling_origin and group_kfold.")
    first_origin: float = Field(0.5, gt=0, lt=1, description="Rolling origin: where the first test part begins.")
    val_share: float = Field(0.25, gt=0, lt=1, description="Rolling origin: last share of a fold's past that is val.")
    min_rows: int = Field(50, ge=1, description="Per part; over several folds the test parts count together.")
    min_head_rows: int = Field(30, ge=4, description="With an observed target of a head, in train and in val each.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.t_val is None) != (self.t_test is None):
            raise ValueError("give both t_val and t_test, or neither")
        for moment in (self.t_val, self.t_test):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("t_val and t_test need a time zone")
        if self.t_val is not None and self.t_test is not None and self.t_val >= self.t_test:
            raise ValueError("t_val must be before t_test")
        if self.val_point >= self.test_point:
            raise ValueError("val_point must be below test_point")
        return self


class GoldenConfig(_Model):
    """Videos that are never trained on; see `training.golden`."""

    holdout: int = Field(2000, ge=0)
    regression_mini: int = Field(200, ge=0)
    max_share: float = Field(0.1, ge=0, lt=1, description="Of the dataset's rows, for both sets together.")


class TrainingConfig(_Model):
    """One training run: a family, its loss and its settings."""

    family: FamilyName = "catboost"
    seed: int = 1337
    threads: int = Field(
        1, ge=1, description="Of one fit. On some hundred rows more threads wait for each other longer than they work."
    )
    loss: Literal["rmse", "tweedie"] = "rmse"
    tweedie_power: float = Field(1.5, ge=1.1, le=1.9)
    hyperparameters: dict[str, Any] = Field(default_factory=dict, description="Overrides of the family's defaults.")
    max_content_features: int | None = Field(30, ge=1, description="Lean selection; None keeps all.")
    min_category_share: float = Field(0.01, ge=0, lt=1)
    embeddings: bool = Field(False, description="Offer the elements of embedding columns as content features.")
    resamples: int = Field(1000, ge=100)
    ablation: bool = True
    split: SplitConfig = SplitConfig()
    golden: GoldenConfig = GoldenConfig()

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Settings from a YAML file (or the defaults) with `overrides` on top; `split` is merged key by key.

    Raises `config_invalid` naming the first offending field.
    """
    try:
        given = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as exc:
        raise TrendFlowError("config_invalid", "The training configuration cannot be read as YAML.") from exc
    if not isinstance(given, dict):
        raise TrendFlowError("config_invalid", "The training configuration is not a mapping.")
    try:
        split = {**given.get("split", {}), **overrides.get("split", {})}
        return TrainingConfig.model_validate({**given, **overrides, "split": split})
    except (ValidationError, TypeError) as exc:
        first = exc.errors()[0] if isinstance(exc, ValidationError) else {"loc": ("split",), "msg": "not a mapping"}
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise TrendFlowError("config_invalid", f"{where}: {first['msg']}.", field=where) from exc
