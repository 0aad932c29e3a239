"""Settings of one deployment: where things live and how hard to work. Nothing here may change a result.

Every field can be set by an environment variable `TRENDFLOW_<FIELD>`. What changes results (parameters, budgets,
versions) belongs to a profile in `component_graph.yaml` and enters `config_hash`.
"""

from __future__ import annotations

import errno
import re
import tempfile
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.logs import LogFormat, LogLevel

_ENV_PREFIX = "TRENDFLOW_"
_CPU_BATCH = 8
AUTO = "auto"


class Settings(BaseSettings):
    """Deployment settings. Paths are made absolute against the working directory."""

    # `TRENDFLOW_X=` is how shells and compose files spell "not set"; an empty path would mean the working directory.
    model_config = SettingsConfigDict(env_prefix=_ENV_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(Path(".trendflow"), description="State of a single-machine deployment.")
    store_url: str | None = Field(None, description="Object store; default is the folder <home>/store.")
    models: Path | None = Field(None, description="Folder of the model weights; default is <home>/models.")
    store_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="S3 endpoint, region, credentials."
    )
    graph_file: Path | None = Field(None, description="component_graph.yaml; default is the one shipped.")
    profile: str = Field("starter", description="Profile used when a submission names none.")
    triton_url: str | None = Field(
        None, description="host:port of a Triton server (gRPC); default is the one `trendflow triton up` started."
    )
    triton_env: Path | None = Field(
        None, description="Virtual environment of the Triton server; default is made in <home>/triton/env."
    )

    min_duration_sec: float = Field(5.0, gt=0)
    max_duration_sec: float = Field(1200.0, gt=0)
    max_source_bytes: int = Field(4 * 2**30, gt=0)
    frames_ttl_days: float = Field(7.0, gt=0)
    production: bool = Field(False, description="Refuse models whose licence forbids commercial use.")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Upper bound of a micro-batch; 'auto' is 8 on a CPU and what the memory of a GPU allows.",
    )
    uploads: Path | None = Field(
        None,
        description="Folder of uploaded videos, each named by its id, at this path for all processes; default none.",
    )
    onnx_threads: int = Field(0, ge=0, description="Threads per model; 0 lets the runtime decide.")
    snapshot_folder: Path | None = Field(
        None, description="Folder of snapshot files that the asset `snapshots` imports; default none."
    )
    forecast_model: str | None = Field(
        None, description="Model of the asset `prediction`: a training run's folder or key, or baseline_catboost."
    )
    youtube_api_key: SecretStr | None = Field(None, description="Key of the YouTube Data API, for the collector.")
    youtube_endpoint: str | None = Field(None, description="Address of the API; default is the public one.")
    youtube_daily_units: int = Field(10_000, ge=1, description="Quota of the key, in units a day.")
    broker_url: SecretStr | None = Field(
        None, description="Redis-compatible broker of the run queue, redis://[user:password@]host:port/0; default none."
    )
    submission_window_sec: float = Field(10.0, gt=0, description="Time in which submitted runs gather to a batch.")
    submission_refuse_above: int = Field(100, ge=0, description="Waiting runs above which a submission is refused.")
    submission_capacity: int = Field(10_000, ge=1, description="Runs that may wait at all.")
    handed_over_runs: int = Field(
        50, ge=1, description="Runs that Dagster has at once; the others wait, in an order that is fair."
    )
    min_free_gb: float = Field(20.0, ge=0, description="Free space below which no run is accepted or begins.")
    cache_ttl_days: float = Field(3.0, ge=0, description="Age up to which an earlier run answers a submission.")
    text_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key under which the text of submitted videos waits in the broker; without it none is taken.",
    )
    tombstone_key: SecretStr | None = Field(None, description="Key under which the ids of deleted videos are hashed.")
    api_host: str = Field("127.0.0.1", description="Address that the HTTP service listens on.")
    api_port: int = Field(8300, ge=0, le=65535, description="Its port; 0 takes any free one.")
    api_users: Path | None = Field(
        None, description="JSON list of {token_sha256, user_id, tier, admin}; without it nobody may ask."
    )
    api_certificate: Path | None = Field(None, description="Certificate of the HTTP service; with it, it speaks TLS.")
    api_certificate_key: Path | None = Field(None, description="Its private key.")
    api_client_authority: Path | None = Field(
        None, description="Authority of the certificates that callers must have; default asks for none."
    )
    webhook_key: SecretStr | None = Field(None, description="Key that webhooks are signed with; without it none go.")
    metrics_host: str = Field("127.0.0.1", description="Address that workers tell their metrics on.")
    log_format: LogFormat | None = Field(
        None, description="'json' or 'text'; default is text, and in processes of Dagster its own format."
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator(
        "home",
        "models",
        "graph_file",
        "snapshot_folder",
        "uploads",
        "triton_env",
        "api_users",
        "api_certificate",
        "api_certificate_key",
        "api_client_authority",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        return None if value == AUTO else value

    @property
    def resolved_store_url(self) -> str:
        return self.store_url or (self.home / "store").as_uri()

    @property
    def cpu_batch(self) -> int:
        """The largest batch on the CPU, where larger ones than eight gain nothing and hold more frames in memory."""
        return self.batch_size or _CPU_BATCH

    @property
    def device_batch(self) -> int | None:
        """The largest batch on an accelerator; None leaves it to its memory and to the models."""
        return self.batch_size

    @property
    def scratch_dir(self) -> Path:
        return self.home / "scratch"

    @property
    def models_dir(self) -> Path:
        return self.models or self.home / "models"

    @property
    def triton_dir(self) -> Path:
        return self.home / "triton"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


def load_settings() -> Settings:
    """Settings from the environment. Raises `config_invalid` naming the first bad variable."""
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        field, *inside = (str(part) for part in first["loc"])
        where = _variable(field) + (f" at {'.'.join(inside)!r}" if inside else "")
        raise TrendFlowError("config_invalid", f"{where} is invalid: {first['msg']}.") from exc
    except SettingsError as exc:
        # Raised for fields that are read as JSON. The exception names the field in its text only.
        found = re.search(r'field "(\w+)"', str(exc))
        name = _variable(found[1]) if found else f"A {_ENV_PREFIX}* variable"
        # Without the cause: it holds the whole value, which may contain credentials.
        raise TrendFlowError("config_invalid", f"{name} is not valid JSON.") from None


def ensure_home(settings: Settings) -> None:
    """Create the home folder when it is missing and prove that it can be written.

    Raises `config_invalid` when it cannot, `storage_unavailable` when only space is missing.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home):
            pass
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise as_typed(exc) from exc
        raise TrendFlowError(
            "config_invalid", "The folder TRENDFLOW_HOME names cannot be created or written.", errno=exc.errno
        ) from exc


def _variable(field: str) -> str:
    return _ENV_PREFIX + field.upper()
