"""Which queue a run belongs to."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from dagster import DagsterRun
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.resolve import entry_for_role
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.queue.names import DEFAULT_PRIORITY, PRIORITIES, PRIORITY_TAG, DeviceQueue, Priority
from trendflow.orchestration.runs import run_path_of
from trendflow.state.layout import request_key
from trendflow.storage.object_store import ObjectNotFound


@dataclass(frozen=True)
class Router:
    """Reads the component graph and the catalogue; loads no model and looks at no weights."""

    deployment: Deployment

    def device_queue(self, profile: str, components: Collection[str] | None = None) -> DeviceQueue:
        """`gpu` when a worker itself needs a GPU for these components of a profile (None: for all of them).

        A component that may use one (`resources.gpu`) needs it when a role is mapped to a model whose device policy is
        CUDA and which runs inside the worker; what a model server executes needs none there. Raises `config_invalid`
        for an unknown profile, `model_not_found` for an entry nobody catalogued.
        """
        chosen = self.deployment.graph.profile(profile)
        for node in self.deployment.graph.enabled(profile):
            if not node.resources.get("gpu", False) or (components is not None and node.name not in components):
                continue
            for role in node.roles:
                if role not in chosen.models:
                    continue
                entry = entry_for_role(self.deployment.catalogue, chosen.models, chosen.runtimes, role)
                if entry.runtime == "inprocess" and entry.device_policy == "cuda":
                    return "gpu"
        return "cpu"

    def device_queue_of(self, run: DagsterRun) -> DeviceQueue:
        """The queue of a Dagster run; `cpu` for one that belongs to no single submitted video."""
        key = run.tags.get(PARTITION_NAME_TAG)
        if key is None:
            return "cpu"
        try:
            request = json.loads(self.deployment.store.get(request_key(run_path_of(key))))
        except ObjectNotFound:
            return "cpu"  # the run itself will say that nobody submitted it
        selected = None if run.asset_selection is None else {asset.path[-1] for asset in run.asset_selection}
        return self.device_queue(str(request["profile"]), selected)


def priority_of_run(run: DagsterRun) -> Priority:
    """The class that the run's tag names; `normal` without one. Raises `config_invalid` for any other word."""
    wanted = run.tags.get(PRIORITY_TAG, DEFAULT_PRIORITY)
    for priority in PRIORITIES:
        if priority == wanted:
            return priority
    raise TrendFlowError("config_invalid", f"The tag {PRIORITY_TAG} is one of {', '.join(PRIORITIES)}.", given=wanted)
