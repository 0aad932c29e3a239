"""The in-process runtime: what goes in and comes out is held against the entry, and every failure has its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
import pytest
from onnx import helper, numpy_helper

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import device as devices
from trendflow.models import onnx_runtime
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow_tests.models.builders import entry_for, onnx_bytes, place

DOUBLE = onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])])
ONES = np.ones((2, 4), np.float32)


def _load(tmp_path: Path, data: bytes, device: str = "cpu", **overrides: Any) -> OnnxHandle:
    entry = entry_for(data, **overrides)
    return OnnxHandle.load(entry, place(tmp_path, entry, data), device, threads=1)


def _code(tmp_path: Path, data: bytes, x: np.ndarray = ONES, **overrides: Any) -> str:
    handle = _load(tmp_path, data, **overrides)
    with pytest.raises(TrendFlowError) as caught:
        handle.infer({"x": x})
    return caught.value.error_code


def test_a_model_runs_and_says_what_ran(tmp_path: Path) -> None:
    handle = _load(tmp_path, DOUBLE, warmup=1)
    np.testing.assert_array_equal(handle.infer({"x": ONES})["y"], 2 * ONES)
    assert handle.device_used == "cpu"
    used = handle.used
    assert (used.model_name, used.model_version, used.runtime, used.engine) == ("tiny", "1.0", "inprocess", "onnx")
    assert (used.precision, used.device, used.weights_digest) == ("fp32", "cpu", handle.entry.weights_digest)


def test_arrays_need_not_be_contiguous(tmp_path: Path) -> None:
    x = np.arange(16, dtype=np.float32).reshape(4, 4).T
    np.testing.assert_array_equal(_load(tmp_path, DOUBLE).infer({"x": x})["y"], 2 * x)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": ONES},
        {"x": ONES, "z": ONES},
        {"x": ONES.astype(np.float64)},
        {"x": np.ones((2, 5), np.float32)},
        {"x": np.ones(4, np.float32)},
        {"x": np.ones((0, 4), np.float32)},
        {"x": np.ones((9, 4), np.float32)},  # one more than max_batch_size
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        _load(tmp_path, DOUBLE).infer(inputs)
    assert caught.value.error_code == "model_spec_invalid"


def test_the_largest_allowed_batch_is_accepted(tmp_path: Path) -> None:
    assert _load(tmp_path, DOUBLE).infer({"x": np.ones((8, 4), np.float32)})["y"].shape == (8, 4)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    logarithm = onnx_bytes([helper.make_node("Log", ["x"], ["y"])])
    assert _code(tmp_path, logarithm, -ONES) == "artifact_validation_failed"
    assert _code(tmp_path, logarithm, 0 * ONES) == "artifact_validation_failed"


def test_an_entry_may_allow_values_that_are_not_finite(tmp_path: Path) -> None:
    logarithm = onnx_bytes([helper.make_node("Log", ["x"], ["y"])])
    outputs = [{"name": "y", "dtype": "float32", "shape": ["B", 4], "layout": "NC", "finite": False}]
    assert np.isneginf(_load(tmp_path, logarithm, outputs=outputs).infer({"x": 0 * ONES})["y"]).all()


def test_an_output_of_another_shape_is_refused(tmp_path: Path) -> None:
    # The file leaves the width open, so only the real output can show that it is 8.
    concat = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    twice = onnx_bytes([concat], x_shape=("B", "C"), y_shape=("B", "D"))
    assert _code(tmp_path, twice) == "artifact_validation_failed"


def test_an_output_with_other_rows_than_the_input_is_refused(tmp_path: Path) -> None:
    stacked = onnx_bytes([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], y_shape=("N", 4))
    assert _code(tmp_path, stacked) == "artifact_validation_failed"


def test_an_allocation_that_fails_is_out_of_memory(tmp_path: Path) -> None:
    rows = 2**42  # 64 TiB: no machine has that, so the engine's own allocator fails
    shape = numpy_helper.from_array(np.array([rows, 4], np.int64), "shape")
    model = onnx_bytes([helper.make_node("Expand", ["x", "shape"], ["y"])], y_shape=(rows, 4), initializers=[shape])
    outputs = [{"name": "y", "dtype": "float32", "shape": [rows, 4], "layout": "NC"}]
    assert _code(tmp_path, model, ONES[:1], outputs=outputs) == "out_of_memory"


class Session:
    """SIMULATED: a real session that fails with `message` above `fits` units; remembers what it was run with."""

    def __init__(self, real: ort.InferenceSession, message: str, fits: int = 0) -> None:
        self.real, self.message, self.fits = real, message, fits
        self.arenas: list[str] = []

    def run(self, names: list[str], feed: dict[str, np.ndarray], options: ort.RunOptions | None = None) -> Any:
        if len(feed["x"]) > self.fits:
            raise RuntimeError(self.message)
        if options is not None:
            self.arenas.append(options.get_run_config_entry("memory.enable_memory_arena_shrinkage"))
        return self.real.run(names, feed, options)


@pytest.mark.parametrize(("device", "arena"), [("cpu", "cpu:0"), ("cuda:1", "gpu:1")])
def test_what_the_engine_keeps_is_given_back_before_a_smaller_batch(tmp_path: Path, device: str, arena: str) -> None:
    entry = entry_for(DOUBLE, device_policy=device.partition(":")[0])
    real = ort.InferenceSession(DOUBLE, providers=["CPUExecutionProvider"])
    session: Any = Session(real, "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 123", fits=1)
    handle = OnnxHandle(entry, session, device)
    with pytest.raises(TrendFlowError, match="out_of_memory"):
        handle.infer({"x": ONES})
    assert session.arenas == [arena]
    np.testing.assert_array_equal(handle.infer({"x": ONES[:1]})["y"], 2 * ONES[:1])
    session.fits = 0  # nor may giving back hide what happened
    with pytest.raises(TrendFlowError, match="out_of_memory"):
        handle.infer({"x": ONES})


def test_giving_back_frees_memory_of_this_process(tmp_path: Path) -> None:
    """Against the kernel's own count: a batch of 64 MB leaves an arena behind, and running out of memory ends that."""
    wide = onnx_bytes(
        [
            helper.make_node("Add", ["x", "x"], ["z"]),
            helper.make_node("Mul", ["z", "z"], ["w"]),
            helper.make_node("ReduceSum", ["w"], ["y"], keepdims=1),
        ],
        ["B", 1_000_000],
        [1, 1],
    )
    inputs = [{"name": "x", "dtype": "float32", "shape": ["B", 1_000_000], "layout": "NC"}]
    outputs = [{"name": "y", "dtype": "float32", "shape": [1, 1], "layout": "NC"}]
    handle = _load(tmp_path, wide, inputs=inputs, outputs=outputs, max_batch_size=16, warmup=1)
    handle.infer({"x": np.ones((16, 1_000_000), np.float32)})
    before = psutil.Process().memory_info().rss
    session: Any = Session(vars(handle)["_session"], "std::bad_alloc", fits=1)
    vars(handle)["_session"] = session
    with pytest.raises(TrendFlowError, match="out_of_memory"):
        handle.infer({"x": np.ones((2, 1_000_000), np.float32)})
    assert before - psutil.Process().memory_info().rss > 40e6


@pytest.mark.parametrize(
    ("device", "message", "code"),
    [
        ("cuda:0", "CUDA failure 700: an illegal memory access was encountered ; GPU=0", "device_unavailable"),
        ("cuda:0", "CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED", "device_unavailable"),
        ("cuda:0", "CUDA failure 2: out of memory ; GPU=0", "out_of_memory"),
        ("cuda:0", "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", "out_of_memory"),
        ("cuda:0", "Got invalid dimensions for input: x", "model_spec_invalid"),
        ("cpu", "CUDA failure 700", "model_spec_invalid"),
    ],
)
def test_a_lost_device_is_neither_a_wrong_input_nor_a_lack_of_memory(device: str, message: str, code: str) -> None:
    session: Any = Session(ort.InferenceSession(DOUBLE), message)
    handle = OnnxHandle(entry_for(DOUBLE, device_policy=device.partition(":")[0]), session, device)
    with pytest.raises(TrendFlowError) as caught:
        handle.infer({"x": ONES})
    assert caught.value.error_code == code


def test_libraries_of_cuda_are_looked_for_without_a_word_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """SIMULATED: a build for CUDA, whose libraries pip has put beside it, and a FAKE device."""
    loaded: list[str] = []

    def preload() -> None:
        loaded.append("libraries")
        print("Failed to load libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(devices, "probe", lambda device, engine: loaded.append(device))
    onnx_runtime.require_device("cuda")
    assert loaded == ["libraries", "cuda"]
    assert capsys.readouterr().out == ""
    assert "libcudnn.so.9" in caplog.text


def test_inputs_the_engine_refuses_are_model_spec_invalid(tmp_path: Path) -> None:
    # Open sizes hide from the loader that a 2x4 matrix has no product with itself.
    product = helper.make_node("MatMul", ["x", "x"], ["y"])
    assert _code(tmp_path, onnx_bytes([product], x_shape=("B", "C"), y_shape=("B", "D"))) == "model_spec_invalid"


@pytest.mark.parametrize("data", [b"not a model", DOUBLE[:-20], b""])
def test_a_file_the_engine_refuses_is_model_load_failed(tmp_path: Path, data: bytes) -> None:
    entry = entry_for(data or b"x")
    with pytest.raises(TrendFlowError) as caught:
        OnnxHandle.load(entry, place(tmp_path, entry, data))
    assert caught.value.error_code == "model_load_failed"
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"inputs": [{"name": "images", "dtype": "float32", "shape": ["B", 4], "layout": "NC"}]},
        {"inputs": [{"name": "x", "dtype": "uint8", "shape": ["B", 4], "layout": "NC"}]},
        {"inputs": [{"name": "x", "dtype": "float32", "shape": ["B", 5], "layout": "NC"}]},
        {"outputs": [{"name": "z", "dtype": "float32", "shape": ["B", 4], "layout": "NC"}]},
        {"outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 4, 1], "layout": "NCH"}]},
    ],
)
def test_a_file_with_other_tensors_than_its_entry_is_refused_at_load(tmp_path: Path, overrides: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        _load(tmp_path, DOUBLE, **overrides)
    assert caught.value.error_code == "model_spec_invalid"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this host can run CUDA")
def test_cuda_without_cuda_is_device_unavailable_and_never_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError) as caught:
        _load(tmp_path, DOUBLE, device="cuda:0", device_policy="cuda")
    assert caught.value.error_code == "device_unavailable"


def test_a_closed_model_refuses_to_run(tmp_path: Path) -> None:
    handle = _load(tmp_path, DOUBLE)
    handle.close()
    with pytest.raises(TrendFlowError, match="closed"):
        handle.infer({"x": ONES})
