"""The in-process runtime: what goes in and comes out is held against the entry, and every failure has its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from trendflow.contracts.errors import TrendFlowError
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
