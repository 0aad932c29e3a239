"""Which GPUs of a host a server executes its models on: decided, and refused, before the server is started.

A server keeps all of its models in memory at once, so it is their sum that has to fit. What counts is the whole memory
of a device and one unit for each model: memory that others use now may be free when it is needed, and a batch that
does not fit is made smaller by the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import CudaDevice, DeviceMemory, Engine

# The server brings its engines; here only memory is asked for, and no kernel is run.
_NO_ENGINE = Engine("triton", None, lambda device: {})

Placement = Mapping[str, tuple[int, ...]]
"""Entry → the ordinals of the GPUs that get one instance of it each; entries for the CPU are not in it."""


def place(entries: Iterable[CatalogueEntry], devices: Mapping[int, DeviceMemory]) -> Placement:
    """Every model on every device where all of them fit together; else each on one, the largest first.

    Raises `insufficient_gpu_memory` when neither is possible, `device_unavailable` when there is no device at all.
    """
    needs = {entry.name: entry.gpu_memory_per_task_mb for entry in entries if entry.device_policy == "cuda"}
    if not needs:
        return {}
    if not devices:
        raise TrendFlowError("device_unavailable", f"The host has no GPU for {', '.join(sorted(needs))}.")
    together = sum(needs.values())
    if all(together <= memory.total_mb for memory in devices.values()):
        return dict.fromkeys(needs, tuple(sorted(devices)))
    left = {ordinal: memory.total_mb for ordinal, memory in devices.items()}
    placed: dict[str, tuple[int, ...]] = {}
    for name, need in sorted(needs.items(), key=lambda item: (-item[1], item[0])):
        roomiest = max(sorted(left), key=lambda ordinal: left[ordinal])
        if need > left[roomiest]:
            raise TrendFlowError(
                "insufficient_gpu_memory",
                f"The models need {together} MB for one unit each, {name} alone {need} MB; the GPUs of this host "
                f"have {sum(memory.total_mb for memory in devices.values()):.0f} MB in all.",
                entry=name,
                needed_mb=together,
                total_mb=[memory.total_mb for memory in devices.values()],
            )
        left[roomiest] -= need
        placed[name] = (roomiest,)
    return placed


def visible_gpus(nvml: Any = None) -> dict[int, DeviceMemory]:
    """The memory of every GPU that CUDA shows to this process and its children, by ordinal. `nvml` is pynvml.

    Raises `device_unavailable` without any, `dependency_missing` without the driver's library.
    """
    found: dict[int, DeviceMemory] = {}
    while True:
        try:
            found[len(found)] = CudaDevice(f"cuda:{len(found)}", _NO_ENGINE, nvml).memory()
        except TrendFlowError as error:
            if error.error_code != "device_unavailable" or not found:
                raise
            return found
