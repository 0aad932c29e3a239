"""A SIMULATED TensorRT on a FAKE GPU: the part of the package `tensorrt` that this project calls. Nothing is compiled.

A plan is a line of JSON, which says how it was built, before the ONNX file; a context runs that file with onnxruntime
on the CPU, on the memory whose addresses it was given. Calls answer as the documentation of TensorRT 11 says: None or
False on failure, with the reason in the log alone.
"""

from __future__ import annotations

import ctypes
import json
import sys
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from trendflow.models import device as devices
from trendflow.models import onnx_runtime, tensorrt_runtime, torch_runtime
from trendflow.models.device import ProbedDevice
from trendflow_tests.models.fake_device import FACTS, FakeDevice

VERSION = "11.4.0.106"
TIMED = b"timings of the fake GPU;"

_CPU = ("CPUExecutionProvider", {})


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class BuilderFlag(IntEnum):
    TF32 = 7


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


@dataclass
class Network:
    flags: int
    model: bytes = b""

    @property
    def inputs(self) -> dict[str, list[int]]:
        graph = onnx.load_model_from_string(self.model).graph
        return {
            value.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
            for value in graph.input
        }


@dataclass
class Profile:
    shapes: dict[str, list[list[int]]] = field(default_factory=dict)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = [list(min), list(opt), list(max)]


@dataclass
class TimingCache:
    data: bytes

    def serialize(self) -> memoryview:
        return memoryview(self.data)


@dataclass
class Config:
    tf32: bool = True
    pools: dict[int, int] = field(default_factory=dict)
    profiles: list[Profile] = field(default_factory=list)
    cache: TimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32
        self.tf32 = False

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        return None if serialized_timing_cache.startswith(b"damaged") else TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.data and not (cache.data.startswith(TIMED) or ignore_mismatch):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Library:
    """The module; `refuses` is what its builder says instead of building, `fits` the batch its memory is enough for."""

    __version__ = VERSION
    ILogger = ILogger
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    MemoryPoolType = MemoryPoolType
    BuilderFlag = BuilderFlag
    TensorIOMode = TensorIOMode

    def __init__(self) -> None:
        self.refuses: str | None = None
        self.fails: str | None = None
        self.fits = 1_000
        self.configs: list[Config] = []

    @staticmethod
    def nptype(dtype: str) -> Any:
        return np.dtype(dtype).type

    def Builder(self, logger: ILogger) -> Any:
        return Builder(self, logger)

    def OnnxParser(self, network: Network, logger: ILogger) -> Any:
        return Parser(network)

    def Runtime(self, logger: ILogger) -> Any:
        return Runtime(self, logger)


@dataclass
class Builder:
    library: Library
    logger: ILogger

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        self.library.configs.append(Config())
        return self.library.configs[-1]

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        (profile,) = config.profiles
        if self.library.refuses:
            self.logger.log(Severity.ERROR, self.library.refuses)
            return None
        for name, sizes in network.inputs.items():
            least, _, most = profile.shapes[name]
            assert all(size == -1 or size == low == high for size, low, high in zip(sizes, least, most, strict=True))
        assert config.cache is not None
        config.cache.data = config.cache.data or TIMED
        config.cache.data += b"one build;"
        header = {
            "version": VERSION,
            "strongly_typed": bool(network.flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED),
            "tf32": config.tf32,
            "workspace": config.pools[MemoryPoolType.WORKSPACE],
            "profile": profile.shapes,
        }
        return memoryview(json.dumps(header).encode() + b"\n" + network.model)


@dataclass
class Parser:
    network: Network
    num_errors: int = 0

    def parse(self, model: bytes) -> bool:
        try:
            onnx.checker.check_model(onnx.load_model_from_string(model))
        except Exception:  # whatever the checker raises: the simulated parser reads nothing else either
            self.num_errors = 1
            return False
        self.network.model = model
        return True

    def get_error(self, index: int) -> Any:
        return self

    def desc(self) -> str:
        return "Failed to parse the model.\n(simulated)"


@dataclass
class Runtime:
    library: Library
    logger: ILogger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        header, _, model = plan.partition(b"\n")
        try:
            return Engine(self.library, self.logger, json.loads(header), model)
        except ValueError:
            self.logger.log(Severity.ERROR, "Serialization assertion failed: magic tag does not match")
            return None


@dataclass
class Engine:
    library: Library
    logger: ILogger
    header: dict[str, Any]
    model: bytes

    def __post_init__(self) -> None:
        self.session = ort.InferenceSession(self.model, providers=[_CPU])
        self.tensors = {
            node.name: (mode, node)
            for mode, nodes in (
                (TensorIOMode.INPUT, self.session.get_inputs()),
                (TensorIOMode.OUTPUT, self.session.get_outputs()),
            )
            for node in nodes
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> str:
        return {"tensor(float)": "float32", "tensor(float16)": "float16"}[self.tensors[name][1].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name][1].shape)

    def create_execution_context(self) -> Context:
        return Context(self)


@dataclass
class Context:
    engine: Engine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.header["profile"][name]
        self.shapes[name] = shape
        return all(low <= size <= high for size, low, high in zip(shape, least, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        batch = max(shape[0] for shape in self.shapes.values())
        library, logger = self.engine.library, self.engine.logger
        if batch > library.fits:
            logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 123 bytes.)")
            return False
        if library.fails:
            logger.log(Severity.ERROR, library.fails)
            return False
        given = {name: self._memory(name, shape) for name, shape in self.shapes.items()}
        names = [name for name, (mode, _) in self.engine.tensors.items() if mode is TensorIOMode.OUTPUT]
        for name, value in zip(names, self.engine.session.run(names, given), strict=True):
            self._memory(name, value.shape)[...] = value
        return True

    def _memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(self.engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer((ctypes.c_byte * size).from_address(self.addresses[name]), dtype).reshape(shape)


class HostMemory:
    """Stands in for `CudaMemory`: tensors of torch in the memory of the host.

    `released` tells for every release how many tensors were still held by somebody.
    """

    stream = 7
    released: ClassVar[list[int]] = []

    def __init__(self, device: str) -> None:
        self.device = device
        self.tensors: list[weakref.ref[Any]] = []

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, array: np.ndarray) -> Any:
        tensor = torch_runtime.tensor_of(array).clone()
        self.tensors.append(weakref.ref(tensor))
        return tensor

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        import torch

        tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        self.tensors.append(weakref.ref(tensor))
        return tensor

    def wait(self) -> None:
        pass

    def release(self) -> None:
        self.released.append(sum(tensor() is not None for tensor in self.tensors))


def install(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Let this process believe in a FAKE GPU, `FACTS`, that has TensorRT, torch and onnxruntime."""
    library, device = Library(), FakeDevice()
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(tensorrt_runtime, "CudaMemory", HostMemory)
    monkeypatch.setattr(devices, "_probed", {("cuda:0", "torch"): ProbedDevice(device, FACTS)})
    monkeypatch.setattr(HostMemory, "released", [])
    for runtime in (torch_runtime, onnx_runtime):
        monkeypatch.setattr(runtime, "require_device", lambda device: None)
    monkeypatch.setattr(onnx_runtime, "_provider", lambda device: _CPU)
    return library
