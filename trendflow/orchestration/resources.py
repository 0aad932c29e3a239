"""Dagster resources: the deployment an asset works in."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from trendflow.config import load_settings
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.runs import RunContext, open_run


class TrendFlowResource(ConfigurableResource[Any]):
    """Access to the store, the graph and the models. Unset fields come from `TRENDFLOW_*` variables."""

    home: str | None = Field(default=None, description="Folder of a single-machine deployment.")
    store_url: str | None = Field(default=None, description="file:///…, s3://bucket/prefix or memory://")

    @property
    def deployment(self) -> Deployment:
        settings = load_settings()
        update: dict[str, Any] = {}
        if self.home is not None:
            update["home"] = Path(self.home).absolute()
        if self.store_url is not None:
            update["store_url"] = self.store_url
        return open_deployment(settings.model_copy(update=update))

    def run(self, partition_key: str) -> RunContext:
        """The run behind a partition key; opened once per process."""
        return _run(self.deployment, partition_key)


@lru_cache(maxsize=64)
def _run(deployment: Deployment, partition_key: str) -> RunContext:
    return open_run(deployment, partition_key)
