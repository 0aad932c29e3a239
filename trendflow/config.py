"""Settings of one deployment: where things live and how hard to work. Nothing here may change a result.

Every field can be set by an environment variable `TRENDFLOW_<FIELD>`. What changes results (parameters, budgets,
versions) belongs to a profile in `component_graph.yaml` and enters `config_hash`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from trendflow.contracts.errors import TrendFlowError


class Settings(BaseSettings):
    """Deployment settings. Paths are made absolute against the working directory."""

    model_config = SettingsConfigDict(env_prefix="TRENDFLOW_", extra="ignore", frozen=True)

    home: Path = Field(Path(".trendflow"), description="State of a single-machine deployment.")
    store_url: str | None = Field(None, description="Object store; default is the folder <home>/store.")
    models: Path | None = Field(None, description="Folder of the model weights; default is <home>/models.")
    store_options: dict[str, str] = Field(default_factory=dict, description="S3 endpoint, region, credentials.")
    graph_file: Path | None = Field(None, description="component_graph.yaml; default is the one shipped.")
    profile: str = Field("starter", description="Profile used when a submission names none.")
    step_granularity: str = Field("stage", pattern="^(stage|component)$", description="Assets per Dagster step.")

    min_duration_sec: float = Field(5.0, gt=0)
    max_duration_sec: float = Field(1200.0, gt=0)
    max_source_bytes: int = Field(4 * 2**30, gt=0)
    frames_ttl_days: float = Field(7.0, gt=0)
    batch_size: int = Field(8, ge=1, description="Upper bound of a micro-batch.")
    onnx_threads: int = Field(0, ge=0, description="Threads per model; 0 lets the runtime decide.")

    @field_validator("home", "models")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @cached_property
    def resolved_store_url(self) -> str:
        return self.store_url or (self.home / "store").as_uri()

    @property
    def scratch_dir(self) -> Path:
        return self.home / "scratch"

    @property
    def models_dir(self) -> Path:
        return self.models or self.home / "models"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


def load_settings() -> Settings:
    """Settings from the environment. Raises `config_invalid` naming the first bad variable."""
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "TRENDFLOW_" + "_".join(str(part) for part in first["loc"]).upper()
        raise TrendFlowError("config_invalid", f"{name} is invalid: {first['msg']}.") from exc
