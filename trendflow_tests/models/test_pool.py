"""One load per process, after verification, on the device the entry names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.pool import ModelPool
from trendflow_tests.models.builders import entry_for, onnx_bytes, place

DOUBLE = onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])])


def test_a_model_is_loaded_once_even_by_many_threads(tmp_path: Path) -> None:
    entry, pool = entry_for(DOUBLE), ModelPool(tmp_path)
    place(tmp_path, entry, DOUBLE)
    with ThreadPoolExecutor(4) as executor:
        handles = set(executor.map(lambda _: pool.get(entry), range(16)))
    assert len(handles) == 1


def test_a_new_version_is_another_model(tmp_path: Path) -> None:
    pool = ModelPool(tmp_path)
    entries = [entry_for(DOUBLE, version=version) for version in ("1.0", "1.1")]
    for entry in entries:
        place(tmp_path, entry, DOUBLE)
    first, second = (pool.get(entry) for entry in entries)
    assert first is not second
    assert second.used.model_version == "1.1"


def test_unverified_weights_are_never_loaded(tmp_path: Path) -> None:
    triple = onnx_bytes([helper.make_node("Sum", ["x", "x", "x"], ["y"])])
    entry = entry_for(DOUBLE)
    place(tmp_path, entry, triple)  # a fine model, but not the pinned one
    with pytest.raises(TrendFlowError, match="weights_missing"):
        ModelPool(tmp_path).get(entry)


def test_another_device_than_the_policy_is_refused(tmp_path: Path) -> None:
    entry = entry_for(DOUBLE, device_policy="cuda")
    place(tmp_path, entry, DOUBLE)
    with pytest.raises(TrendFlowError, match="device_unavailable"):
        ModelPool(tmp_path).get(entry, device="cpu")


def test_an_engine_that_is_not_there_is_dependency_missing(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        ModelPool(tmp_path).get(entry_for(DOUBLE, engine="tflite"))


def test_a_model_on_a_server_is_another_model_and_needs_a_server(tmp_path: Path) -> None:
    entry, pool = entry_for(DOUBLE), ModelPool(tmp_path)
    place(tmp_path, entry, DOUBLE)
    pool.get(entry)
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        pool.get(entry.on("triton"))


def test_close_releases_every_model(tmp_path: Path) -> None:
    entry, pool = entry_for(DOUBLE), ModelPool(tmp_path)
    place(tmp_path, entry, DOUBLE)
    handle = pool.get(entry)
    pool.close()
    with pytest.raises(TrendFlowError, match="closed"):
        handle.infer({"x": np.ones((1, 4), np.float32)})
    assert pool.get(entry) is not handle
