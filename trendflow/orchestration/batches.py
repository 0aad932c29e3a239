"""The batches of a component: on the CPU the knob alone decides, on a device its memory does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

from trendflow.contracts.costs import WHOLE
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode
from trendflow.models.batch_plan import planned_batch
from trendflow.models.batching import BatchRunner
from trendflow.models.device import ProbedDevice, probed_device
from trendflow.models.interface import ModelHandle
from trendflow.orchestration.costs import device_profile, input_bucket
from trendflow.orchestration.runs import RunContext

log = logging.getLogger(__name__)


def batch_runner(
    run: RunContext,
    node: ComponentNode,
    models: Iterable[ModelHandle],
    size: tuple[int, int],
    sleep: Callable[[float], None] = time.sleep,
) -> BatchRunner:
    """The runner for one execution of a component on frames of `size` (width, height).

    The limits of each model and of the component join when the runner is used, because one component may use models
    of different limits. What a Triton server executes is batched by its limits alone: its memory is not ours to see.
    Raises `insufficient_gpu_memory`.
    """
    reduced = partial(run.recorder.oom_reduced, node.name)
    local = [model for model in models if model.device_used != "cpu" and model.entry.runtime == "inprocess"]
    settings = run.deployment.settings
    if not local:
        return BatchRunner(settings.cpu_batch, sleep=sleep, on_reduced=reduced)
    device = probed_device(local[0].device_used)
    if device is None:
        raise TrendFlowError("device_unavailable", f"The device {local[0].device_used} was never probed.")
    per_task_mb = _measured_mb(run, node, device, size) or _declared_mb(node, local)
    largest = settings.device_batch or max(model.entry.max_batch_size for model in local)
    batch = planned_batch(device.device.memory(), per_task_mb, largest)
    return BatchRunner(batch, sleep=sleep, gpu_memory_mb=lambda: _held_mb(device), on_reduced=reduced)


def _held_mb(device: ProbedDevice) -> float | None:
    """What this process holds of the device, None when it cannot be read: a measurement may fail, the work goes on."""
    try:
        return device.device.memory().process_mb
    except TrendFlowError:
        return None


def _declared_mb(node: ComponentNode, models: Iterable[ModelHandle]) -> float:
    """What the entries state, which are all resident at once; where they state nothing, the graph's resource block."""
    return sum(model.entry.gpu_memory_per_task_mb for model in models) or float(
        node.resources.get("gpu_memory_per_task_mb", 0)
    )


def _measured_mb(run: RunContext, node: ComponentNode, device: ProbedDevice, size: tuple[int, int]) -> float | None:
    """The median of what earlier executions with these models took on this kind of device, None without any."""
    try:
        known = run.cost_estimates
    except TrendFlowError as error:  # costs inform planning only; what the entry declares is as safe
        log.warning("measured costs cannot be read: %s", error.error_code)
        return None
    profile, bucket, signature = (
        device_profile(device.facts),
        input_bucket(node, *size),
        run.planned_signature(node.name),
    )
    found = [
        estimate
        for estimate in known
        if (estimate.component, estimate.part, estimate.bucket) == (node.name, WHOLE, bucket)
        and estimate.model_signature == signature
        and estimate.device_profile == profile
        and estimate.gpu_memory_per_task_mb is not None
    ]
    return max(found, key=lambda estimate: estimate.measured_until).gpu_memory_per_task_mb if found else None
