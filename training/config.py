"""What a training run is asked to do. Everything here that can change a number enters the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from training.hyperparameters import with_defaults
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.yaml_text import SafeLoader

_SHIPPED = Path(__file__).with_name("configs")

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
            raise PydanticCustomError("moments", "give both t_val and t_test, or neither")
        for moment in (self.t_val, self.t_test):
            if moment is not None and moment.tzinfo is None:
                raise PydanticCustomError("moments", "t_val and t_test need a time zone")
        if self.t_val is not None and self.t_test is not None and self.t_val >= self.t_test:
            raise PydanticCustomError("moments", "t_val must be before t_test")
        if self.val_point >= self.test_point:
            raise PydanticCustomError("points", "val_point must be below test_point")
        return self


class GoldenConfig(_Model):
    """Videos that are never trained on; see `training.golden`."""

    holdout: int = Field(2000, ge=0)
    regression_mini: int = Field(200, ge=0)
    max_share: float = Field(0.1, ge=0, lt=1, description="Of the dataset's rows, for both sets together.")


class TrainingConfig(_Model):
    """One training run: a family, its loss and its settings."""

    family: FamilyName = "catboost"
    seed: int = Field(1337, ge=0, lt=2**31, description="LightGBM takes no larger one.")
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

    @field_validator("hyperparameters")
    @classmethod
    def _known(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "family" in info.data:  # not where the family itself was refused
            with_defaults(info.data["family"], given)
        return given

    @property
    def complete_hyperparameters(self) -> dict[str, Any]:
        """Those of the family with its defaults."""
        return with_defaults(self.family, self.hyperparameters)

    @property
    def digest(self) -> str:
        """sha256 over all settings; a default that is written out changes nothing."""
        return digest_of({**self.model_dump(mode="json"), "hyperparameters": self.complete_hyperparameters})


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Settings from a YAML file (or the defaults) with `overrides` on top; `split` is merged key by key.

    A file of `training/configs` may be named without folder and suffix. Raises `config_invalid` naming the file, where
    there is one, and the first offending field.
    """
    of_file = {} if path is None else _read(_file(path))
    try:
        return TrainingConfig.model_validate({**of_file, **overrides, "split": _merged_split(of_file, overrides)})
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        source = "" if path is None or _is_override(first["loc"], overrides) else f"{_file(path).name}: "
        raise TrendFlowError("config_invalid", f"{source}{where}: {first['msg']}.", field=where) from exc


def _merged_split(*sources: Mapping[str, Any]) -> Any:
    """`split` of all sources in one mapping; the first that is none is given back, to be refused as what it is."""
    parts = [source["split"] for source in sources if source.get("split") is not None]
    wrong = [part for part in parts if not isinstance(part, Mapping)]
    return wrong[0] if wrong else {name: value for part in parts for name, value in part.items()}


def _is_override(where: tuple[int | str, ...], overrides: Mapping[str, Any]) -> bool:
    """Whether the field at `where` was given on top of a file. A rule over several fields of `split` counts as its."""
    if where[0] != "split":
        return where[0] in overrides
    given = overrides.get("split") or {}
    return not isinstance(given, Mapping) or any(part in given for part in where[1:2])


def _read(path: Path) -> dict[str, Any]:
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:
        raise TrendFlowError(
            "config_invalid", f"The training configuration {path.name!r} cannot be read as YAML."
        ) from exc
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise TrendFlowError("config_invalid", f"The training configuration {path.name!r} is no mapping.")
    return given


def _file(path: Path) -> Path:
    shipped = _SHIPPED / f"{path}.yaml"
    bare = path.name == str(path)  # anything else would leave the folder
    return shipped if bare and shipped.is_file() and not path.exists() else path
