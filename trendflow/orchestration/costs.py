"""What the execution of a component cost, as rows of the cost registry."""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trendflow.contracts.canonical import utc_now
from trendflow.contracts.costs import WHOLE
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode
from trendflow.models.device import DeviceFacts, probed_device
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished
from trendflow.storage.cost_registry import CostRegistry

log = logging.getLogger(__name__)

_UNIT_ARRAYS = {
    "frame": "frame_indices",
    "frame_pair": "frame_indices",
    "segment": "segment_start_sec",
    "face": "face_boxes_norm",
}
"""Unit of a component → the array of its artifact with one row per unit; other units come once per execution."""

_RESOURCES = ("unit", "units", "latency_ms_per_unit", "cpu_rss_peak_mb", "gpu_memory_per_task_mb")

_RESET_PEAK = b"5"  # proc(5): sets VmHWM to the current resident size


class PeakRss:
    """The largest resident memory of this process while the block runs, in `peak_mb`.

    None where the kernel does not say (not Linux, or the counter may not be reset): never an estimate. Other work in
    the same process counts too.
    """

    peak_mb: float | None = None

    def __enter__(self) -> PeakRss:
        try:
            Path("/proc/self/clear_refs").write_bytes(_RESET_PEAK)
            self._resettable = True
        except OSError:
            self._resettable = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._resettable:
            self.peak_mb = _status_mb("VmHWM")


def _status_mb(name: str) -> float | None:
    """A memory counter of this process in MB (10⁶ bytes), None where it cannot be read."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # a measurement may fail, the result it is about stands
        return None
    for line in lines:
        if line.startswith(f"{name}:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def note_cost(run: RunContext, finished: Finished, peak_mb: float | None) -> None:
    """Remember what a computed component cost.

    A result from the cache, an error and a result without a single unit cost nothing that could be compared.
    """
    if finished.origin != "computed" or finished.status == "error":
        return
    node = run.deployment.graph.components[finished.component]
    meta = finished.meta
    units = _units(node, finished)
    if units == 0:
        return
    batching = meta.get("batching") or {}
    settings, device = run.deployment.settings, _device_of(meta)
    common: dict[str, Any] = {
        "component": node.name,
        "owner": "run",
        "unit": node.unit,
        "units": units,
        "unit_cost_model": "linear",
        "input_bucket": input_bucket(node, meta.get("analysis_width"), meta.get("analysis_height")),
        "runtime": sorted({model["runtime"] for model in meta["models_used"]}),
        "model_signature": meta["model_signature"],
        "knobs": {
            "batch_size": batching.get("effective_batch_size"),
            "onnx_threads": settings.onnx_threads,
        },
        "gpu_memory_per_task_mb": _per_unit_of_batch(batching),
        "cpu_rss_peak_mb": peak_mb,
        "max_batch_size_component": settings.cpu_batch if device is None else settings.device_batch,
        "cross_video_batching": node.cross_video_batching,
        "dependencies": run.deployment.graph.active_deps(run.profile_name, node.name),
        "device_profile": device_profile(device),
        "producer_version": meta["producer_version"],
        "provenance": {"run_id": run.identity.run_id, "attempt_at": finished.finished_at},
        "valid_from": finished.finished_at,
        "valid_to": None,
    }
    parts = {WHOLE: finished.attempt_ms}  # what failed before says nothing about the cost of a unit
    parts |= {f"substep:{name}": took for name, took in (meta.get("stage_timings_ms") or {}).items()}
    for part, milliseconds in parts.items():
        per_unit = milliseconds / units
        run.costs.append({**common, "component_part": part, "latency_ms_per_unit": round(per_unit, 4)})


def record_costs(run: RunContext) -> None:
    """Store what the components of this execution cost. Costs inform planning only: losing them fails no run."""
    if not run.costs:
        return
    rows, run.costs[:] = list(run.costs), []
    try:
        registry = CostRegistry(run.deployment.store, run.deployment.schemas)
        registry.append(rows, run_id=run.identity.run_id, at=utc_now())
        run.recorder.costs_recorded(len(rows), resources_of(rows))
    except TrendFlowError as error:
        log.warning("costs of run %s were not stored: %s", run.identity.run_id, error.error_code)


def resources_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By component what its row says that is about the whole of it, as the event `cost_recorded` has it."""
    return {
        row["component"]: {
            **{name: row[name] for name in _RESOURCES},
            "batch_size": row["knobs"]["batch_size"],
        }
        for row in rows
        if row["component_part"] == WHOLE
    }


def _units(node: ComponentNode, finished: Finished) -> int:
    array = _UNIT_ARRAYS.get(node.unit)
    return 1 if array is None else len(finished.arrays.get(array, ()))


def _per_unit_of_batch(batching: Mapping[str, Any]) -> float | None:
    """The peak divided by the batch that made it: a plan multiplies it again. Weights count in, which errs safely."""
    peak, size = batching.get("gpu_mem_peak_mb"), batching.get("effective_batch_size")
    return None if peak is None or not size else round(peak / size, 1)


def _device_of(meta: Mapping[str, Any]) -> DeviceFacts | None:
    """The device of this host that executed the models; None for the CPU, and for a server, whose host is unknown."""
    if not any(model["device"] == "cuda" and model["runtime"] == "inprocess" for model in meta["models_used"]):
        return None
    found = probed_device(meta["device_used"])
    return None if found is None else found.facts


def input_bucket(node: ComponentNode, width: int | None, height: int | None) -> str:
    """What decides the cost of a unit besides the code: the size of the pictures, or the family of audio windows."""
    if "frames" in node.reads or node.kind == "segmenter":
        return f"{width}x{height}" if width and height else "frames"
    if node.sampling is not None and node.sampling.family is not None:
        return f"audio_{node.sampling.family}"
    return "any"


@functools.cache
def device_profile(device: DeviceFacts | None = None) -> dict[str, Any]:
    """The machine as far as costs depend on it; `device` is the accelerator that was used, if any."""
    return {
        "gpu": device and device.gpu,
        "vram_mb": device and device.vram_mb,
        "cpu": _cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "ram_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "driver": device and device.driver,
        "cuda": device and device.cuda,
        "os": platform.system().lower(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
