"""In-process execution of ONNX models with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models import device as devices
from trendflow.models.allocation import is_allocation_failure
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import LoadedModel
from trendflow.models.tensor_checks import check_inputs, check_outputs
from trendflow.models.tensors import BATCH, TensorSpec, smallest_inputs

log = logging.getLogger(__name__)

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxHandle(LoadedModel):
    """A loaded ONNX model; implements `ModelHandle`. Safe to use from several threads."""

    def __init__(self, entry: CatalogueEntry, session: ort.InferenceSession, device: str) -> None:
        super().__init__(entry, device)
        self._session: ort.InferenceSession | None = session
        self._output_names = [spec.name for spec in entry.outputs]

    @classmethod
    def load(cls, entry: CatalogueEntry, path: Path, device: str = "cpu", threads: int = 0) -> OnnxHandle:
        """Load verified weights on `cpu` or `cuda[:<n>]`; `threads` per operator, 0 lets the engine choose.

        Raises `device_unavailable`, `model_load_failed`, `out_of_memory`, or `model_spec_invalid` when the file's
        tensors are not those of the entry. Warm-up runs are part of loading.
        """
        session = _open_session(entry, path, device, threads)
        _check_tensors(entry, "input", entry.inputs, session.get_inputs(), exact=True)
        _check_tensors(entry, "output", entry.outputs, session.get_outputs(), exact=False)
        handle = cls(entry, session, device)
        for _ in range(entry.warmup):
            handle.infer(smallest_inputs(entry.inputs))
        return handle

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; see `ModelHandle.infer`."""
        if self._session is None:
            raise TrendFlowError("model_load_failed", f"{self._entry.name} was closed.", entry=self._entry.name)
        symbols = check_inputs(self._entry, inputs)
        feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            values = self._session.run(self._output_names, feed)
        except Exception as exc:  # onnxruntime's exceptions share no base class below Exception
            raise self._failure(exc, symbols.get(BATCH)) from exc
        outputs = dict(zip(self._output_names, values, strict=True))
        check_outputs(self._entry, outputs, symbols)
        return outputs

    def describe(self) -> dict[str, Any]:
        """What is loaded and where, for logs and `doctor`."""
        return self._description(ort.__version__)

    def close(self) -> None:
        """Release the engine's memory. A closed handle refuses to run."""
        self._session = None

    def _failure(self, exc: Exception, batch: int | None) -> TrendFlowError:
        if _is_allocation_failure(exc):
            self._release_arena()
            return self._out_of_memory(batch)
        log.error("inference with %s failed", self._entry.name, exc_info=exc)
        return self._refusal("onnxruntime", str(exc), type=type(exc).__name__)

    def _release_arena(self) -> None:
        """Give back what the engine keeps of earlier batches: it may be what a smaller one needs now.

        onnxruntime does that at the end of a run only, so it runs the smallest one.
        """
        kind, _, ordinal = self._device.partition(":")
        options = ort.RunOptions()
        arena = "cpu:0" if kind == "cpu" else f"gpu:{ordinal}"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
        session = self._session
        # Memory may not suffice for that run either; the next batch will tell. There is no narrower base class.
        with contextlib.suppress(Exception):
            if session is not None:
                session.run(self._output_names, smallest_inputs(self._entry.inputs), options)


def require_device(device: str) -> None:
    """Prove that onnxruntime can run on `cpu` or `cuda[:<n>]`; a CUDA device is probed once per process.

    Raises `device_unavailable`, `config_invalid` for another kind of device, or `dependency_missing` (nvidia-ml-py).
    """
    kind = device.partition(":")[0]
    if kind not in _PROVIDERS:
        raise TrendFlowError("config_invalid", f"The device {device!r} is neither cpu nor cuda.")
    if _PROVIDERS[kind] not in ort.get_available_providers():
        raise TrendFlowError(
            "device_unavailable", f"This installation of onnxruntime cannot run on {kind}.", device=kind
        )
    if kind == "cuda":
        _load_cuda_libraries()
        devices.probe(device, devices.Engine("onnxruntime", ort.cuda_version or None, run_probe))


def _load_cuda_libraries() -> None:
    """Find CUDA and cuDNN where pip puts them: the engine alone looks in the folders of the system."""
    with contextlib.redirect_stdout(io.StringIO()) as said:  # it prints, and our standard output may be JSON
        ort.preload_dlls()
    if said.getvalue():
        log.warning("libraries of CUDA: %s", " ".join(said.getvalue().split()))


def run_probe(device: str) -> dict[str, np.ndarray]:
    """The results of the probe's graph on a device, and on no other: an engine that would fall back raises."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not device.startswith("cpu"):
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(
        str(data_path("models") / "weights" / "device_probe.onnx"), options, providers=[_provider(device)]
    )
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, devices.probe_inputs()), strict=True))


def _provider(device: str) -> tuple[str, dict[str, str]]:
    """The execution provider of a device, with its options."""
    kind, _, ordinal = device.partition(":")
    # TF32 rounds the operands of float32 products to ten bits of mantissa: that would not be the precision fp32.
    settings = {"device_id": ordinal or "0", "use_tf32": "0"} if kind == "cuda" else {}
    return _PROVIDERS[kind], settings


def _open_session(entry: CatalogueEntry, path: Path, device: str, threads: int) -> ort.InferenceSession:
    require_device(device)
    kind = device.partition(":")[0]
    provider, settings = _provider(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # Idle threads that spin would steal the cores of the other workers on the host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
    except Exception as exc:  # onnxruntime's exceptions share no base class below Exception
        if _is_allocation_failure(exc):
            raise TrendFlowError("out_of_memory", f"Loading {entry.name} ran out of memory.", entry=entry.name) from exc
        log.exception("onnxruntime refused the weights of %s", entry.name)
        raise TrendFlowError(
            "model_load_failed",
            f"onnxruntime refuses the weights of {entry.name} {entry.version}.",
            entry=entry.name,
            type=type(exc).__name__,
        ) from exc
    # onnxruntime quietly continues on the CPU when a provider fails to start.
    if provider not in session.get_providers():
        raise TrendFlowError("device_unavailable", f"{entry.name} could not be placed on {kind}.", device=kind)
    return session


def _check_tensors(
    entry: CatalogueEntry, kind: str, specs: tuple[TensorSpec, ...], actual: list[Any], *, exact: bool
) -> None:
    """The file's own declaration must not contradict the entry. A model may have outputs the entry leaves out."""
    found = {node.name: node for node in actual}
    expected = {spec.name for spec in specs}
    if expected - set(found) or (exact and set(found) - expected):
        raise TrendFlowError(
            "model_spec_invalid",
            f"{entry.name} has the {kind}s {sorted(found)}; its entry says {sorted(expected)}.",
            entry=entry.name,
        )
    for spec in specs:
        node = found[spec.name]
        dtype = _ORT_DTYPES.get(node.type, node.type)
        # Names and None stand for sizes the file leaves open.
        fixed = [size if isinstance(size, int) else None for size in node.shape]
        agrees = len(fixed) == len(spec.shape) and all(
            size is None or size == dim for size, dim in zip(fixed, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not agrees:
            raise TrendFlowError(
                "model_spec_invalid",
                f"{entry.name}: {kind} {spec.name!r} is {dtype} {node.shape}; its entry says {spec.dtype} "
                f"{list(spec.shape)}.",
                entry=entry.name,
            )


def _is_allocation_failure(exc: Exception) -> bool:
    return isinstance(exc, MemoryError) or is_allocation_failure(str(exc))
