"""In-process execution of TensorRT plans; torch holds the memory of the device and its stream.

A plan contains compiled kernels: code. It is loaded only where it was built, after the digest in the catalogue was
checked, and the catalogue takes no plan from an address or a package.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import torch_runtime
from trendflow.models.allocation import is_allocation_failure
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import ProbedDevice, probed_device, with_ordinal
from trendflow.models.loaded import LoadedModel
from trendflow.models.plan_identity import PlanIdentity
from trendflow.models.tensor_checks import check_inputs, check_outputs
from trendflow.models.tensors import BATCH, TensorSpec, size_of, smallest_inputs

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class TensorRTHandle(LoadedModel):
    """A plan on its GPU; implements `ModelHandle`. Safe to use from several threads, one after the other."""

    def __init__(self, entry: CatalogueEntry, context: Any, said: EngineLog, memory: CudaMemory) -> None:
        super().__init__(entry, memory.device)
        self._context, self._said, self._memory = context, said, memory
        self._lock = threading.Lock()  # shapes and addresses of a batch are set on the context

    @classmethod
    def load(cls, entry: CatalogueEntry, path: Path, device: str = "cuda") -> TensorRTHandle:
        """Load a verified plan on `cuda[:<n>]`, where it must have been built.

        Raises `device_unavailable`, `dependency_missing`, `model_load_failed` (built elsewhere, or refused),
        `model_spec_invalid` (tensors that are not the entry's) or `out_of_memory`. The first run is part of loading.
        """
        require_plan(entry, device)
        trt = library()
        said, memory = engine_log(trt), CudaMemory(with_ordinal(device))
        with memory.current():
            engine = trt.Runtime(said.logger).deserialize_cuda_engine(path.read_bytes())
            context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise _load_failure(entry, said)
        _check_tensors(entry, engine, trt)
        handle = cls(entry, context, said, memory)
        for _ in range(max(1, entry.warmup)):
            handle.infer(smallest_inputs(entry.inputs))
        return handle

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; see `ModelHandle.infer`."""
        symbols = check_inputs(self._entry, inputs)
        try:
            with self._lock:
                outputs = self._run(inputs, symbols)
        except (RuntimeError, MemoryError) as exc:  # torch.OutOfMemoryError is a RuntimeError
            traceback.clear_frames(exc.__traceback__)  # the tensors of the batch hang on the frame that failed
            raise self._failure(str(exc) or type(exc).__name__, symbols.get(BATCH)) from exc
        check_outputs(self._entry, outputs, symbols)
        return outputs

    def _run(self, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int]) -> dict[str, np.ndarray]:
        context = self._context
        if context is None:
            raise TrendFlowError("model_load_failed", f"{self._entry.name} was closed.", entry=self._entry.name)
        self._said.last_error = ""
        with self._memory.current():
            given = {name: self._memory.put(array) for name, array in inputs.items()}
            made = {spec.name: self._memory.empty(_shape(spec, symbols), spec.dtype) for spec in self._entry.outputs}
            accepted = all(context.set_input_shape(name, tuple(tensor.shape)) for name, tensor in given.items())
            for name, tensor in (given | made).items():
                accepted = accepted and context.set_tensor_address(name, tensor.data_ptr())
            if not (accepted and context.execute_async_v3(self._memory.stream)):
                raise RuntimeError(self._said.last_error)
            self._memory.wait()
            return {name: tensor.cpu().numpy() for name, tensor in made.items()}

    def describe(self) -> dict[str, Any]:
        """What is loaded and where, for logs and `doctor`."""
        return self._description(str(library().__version__))

    def close(self) -> None:
        """Release the memory of the plan. A closed handle refuses to run."""
        self._context = None  # it alone keeps the engine

    def _failure(self, said: str, batch: int | None) -> TrendFlowError:
        if is_allocation_failure(said):
            self._memory.release()
            return self._out_of_memory(batch)
        log.error("inference with %s failed: %s", self._entry.name, said)
        return self._refusal("TensorRT", said)


class CudaMemory:
    """Arrays in the memory of one CUDA device and the stream that works on them."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self._stream = torch.cuda.Stream(torch.device(device))

    def current(self) -> Any:
        """A context in which the device and its stream are those of this thread."""
        import torch

        return torch.cuda.stream(self._stream)

    @property
    def stream(self) -> int:
        return int(self._stream.cuda_stream)

    def put(self, array: np.ndarray) -> torch.Tensor:
        return torch_runtime.tensor_of(array).to(self.device)

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)

    def wait(self) -> None:
        """Until everything on the stream is done."""
        self._stream.synchronize()

    def release(self) -> None:
        """Give back what torch keeps for later."""
        import torch

        torch.cuda.empty_cache()


class EngineLog:
    """What TensorRT says. Its calls give None or False on failure; the reason is only ever logged."""

    logger: Any
    last_error: str = ""


def engine_log(trt: Any) -> EngineLog:
    """A new log; its `logger` is what TensorRT takes."""
    kept = EngineLog()
    errors = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                kept.last_error = message
                log.error("TensorRT: %s", message)

    kept.logger = Logger()
    return kept


def library() -> Any:
    """The package tensorrt. Raises `dependency_missing`."""
    try:
        import tensorrt
    except ImportError as exc:
        raise TrendFlowError(
            "dependency_missing",
            "TensorRT plans need the package tensorrt; install the extra with 'pip install trendflow[tensorrt]'.",
            kind="python_package",
            package="tensorrt",
        ) from exc
    return tensorrt


def require_device(device: str) -> tuple[ProbedDevice, PlanIdentity]:
    """The probed device `cuda[:<n>]` and what a plan built on it now would carry.

    Raises `device_unavailable`, and `dependency_missing` without torch or TensorRT.
    """
    torch_runtime.require_device(device)
    found = probed_device(device)
    if found is None:
        raise TrendFlowError("device_unavailable", f"{device} is no GPU, and TensorRT runs on nothing else.")
    return found, PlanIdentity.of(found.facts, str(library().__version__))


def require_plan(entry: CatalogueEntry, device: str) -> None:
    """Prove that a plan may run on `cuda[:<n>]`: it never moves to another kind of GPU, driver or TensorRT.

    Raises `model_load_failed` for a plan that was built elsewhere, and what `require_device` raises.
    """
    _, here = require_device(device)
    if entry.plan != here:
        raise TrendFlowError(
            "model_load_failed",
            f"{entry.name} was built for {entry.plan} and this is {here}; build a plan here with "
            f"'trendflow models optimise {entry.derived_from} --to tensorrt'.",
            entry=entry.name,
            device=device,
        )


def _load_failure(entry: CatalogueEntry, said: EngineLog) -> TrendFlowError:
    if is_allocation_failure(said.last_error):
        return TrendFlowError("out_of_memory", f"Loading {entry.name} ran out of memory.", entry=entry.name)
    return TrendFlowError("model_load_failed", f"TensorRT refuses the plan of {entry.name}.", entry=entry.name)


def _check_tensors(entry: CatalogueEntry, engine: Any, trt: Any) -> None:
    """The plan's own declaration must not contradict the entry: names, directions, dtypes and fixed sizes."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {
        name: (
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
            [None if size == -1 else size for size in engine.get_tensor_shape(name)],
        )
        for name in names
    }
    wanted = {spec.name: (True, spec) for spec in entry.inputs} | {spec.name: (False, spec) for spec in entry.outputs}
    if set(found) != set(wanted):
        raise _spec_invalid(entry, f"has the tensors {sorted(found)}; its entry says {sorted(wanted)}")
    for name, (is_input, spec) in wanted.items():
        there, dtype, shape = found[name]
        agrees = len(shape) == len(spec.shape) and all(
            size is None or size == dim for size, dim in zip(shape, spec.shape, strict=True)
        )
        if (there, dtype) != (is_input, spec.dtype) or not agrees:
            raise _spec_invalid(entry, f"has {name!r} as {dtype} {shape}; its entry says {spec.dtype} {[*spec.shape]}")


def _spec_invalid(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("model_spec_invalid", f"{entry.name} {problem}.", entry=entry.name)


def _shape(spec: TensorSpec, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """Raises `model_spec_invalid` when the inputs do not decide the size of an output."""
    sizes = [size_of(dim, symbols) for dim in spec.shape]
    if None in sizes:
        raise TrendFlowError("model_spec_invalid", f"The size of {spec.name!r} does not follow from the inputs.")
    return tuple(size for size in sizes if size is not None)
