"""The reference encoder in torch: the same numbers as ONNX, and torch's failures under the project's names.

Without a GPU the CUDA path is covered up to the point where torch says that it has none.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.contracts.errors import TrendFlowError
from trendflow.models import torch_runtime
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.onnx_runtime import run_probe
from trendflow.models.pool import ModelPool
from trendflow.models.resolve import resolve_models
from trendflow.models.torch_runtime import TorchHandle
from trendflow_tests.models.builders import catalogue_of, entry_for, entry_values, place

torch = pytest.importorskip("torch")

ONNX, TORCH = "efficientnet_lite0_224", "efficientnet_lite0_224_torch"


@pytest.fixture(scope="module")
def images(catalogue: Catalogue, sample_frames: np.ndarray) -> np.ndarray:
    """float32 [36, 3, 224, 224]: whole frames and three cut-outs of each, prepared as the entry says."""
    views = [sample_frames, sample_frames[:, :480, :640], sample_frames[:, 240:, :640], sample_frames[:, 120:600, 400:]]
    prepare = FramePreprocessing.of(catalogue[TORCH])
    return np.concatenate([prepare(np.ascontiguousarray(view))[0] for view in views])


@pytest.fixture(scope="module")
def encoder(catalogue: Catalogue, pool: ModelPool) -> TorchHandle:
    handle = pool.get(catalogue[TORCH])
    assert isinstance(handle, TorchHandle)
    return handle


def batches(handle: Any, images: np.ndarray, size: int) -> np.ndarray:
    parts = [handle.infer({"images": images[start : start + size]}) for start in range(0, len(images), size)]
    return np.concatenate([part["embeddings"] for part in parts])


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(TrendFlowError) as caught:
        work()
    return caught.value.error_code


def test_both_engines_give_the_same_vectors_on_real_frames(
    catalogue: Catalogue, pool: ModelPool, encoder: TorchHandle, images: np.ndarray
) -> None:
    reference, exported = batches(encoder, images, 12), batches(pool.get(catalogue[ONNX]), images, 12)
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(exported, axis=1)
    cosine = (reference * exported).sum(axis=1) / norms
    assert cosine.min() >= 0.9999
    np.testing.assert_allclose(exported, reference, rtol=1e-4, atol=1e-4)
    # Vectors of different pictures differ, so equality is no accident of constants.
    assert np.abs(reference[0] - reference[-1]).max() > 0.1


def test_the_file_holds_the_tensors_of_the_checkpoint(catalogue: Catalogue, models_dir: Path) -> None:
    from safetensors.torch import load_file

    entry = catalogue[TORCH]
    distribution = importlib.metadata.distribution(entry.source.locator)
    published = torch.load(str(distribution.locate_file(str(entry.source.member))), weights_only=True)
    stored = load_file(models_dir / entry.folder / entry.files[0].path)
    left_out = {name for name in published if name.startswith("_fc.") or name.endswith("num_batches_tracked")}
    assert set(stored) == set(published) - left_out
    assert all(torch.equal(tensor, published[name]) for name, tensor in stored.items())


def test_the_same_batch_gives_the_same_bits(encoder: TorchHandle, images: np.ndarray) -> None:
    np.testing.assert_array_equal(batches(encoder, images[:6], 6), batches(encoder, images[:6], 6))


def test_read_only_and_strided_arrays_are_taken(encoder: TorchHandle, images: np.ndarray) -> None:
    strided = images[::2][:3]
    frozen = strided.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(batches(encoder, frozen, 3), batches(encoder, strided, 3))


def test_the_entry_says_what_it_is(catalogue: Catalogue, encoder: TorchHandle) -> None:
    entry, onnx = catalogue[TORCH], catalogue[ONNX]
    assert entry.derived_from == ONNX
    assert entry.weights_digest != onnx.weights_digest
    assert (entry.inputs, entry.outputs, entry.preprocessing) == (onnx.inputs, onnx.outputs, onnx.preprocessing)
    assert (encoder.used.engine, encoder.used.runtime, encoder.device_used) == ("torch", "inprocess", "cpu")
    assert encoder.describe()["engine_version"] == torch.__version__


def test_the_probe_of_torch_agrees_with_that_of_onnxruntime() -> None:
    expected, found = run_probe("cpu"), torch_runtime.run_probe("cpu")
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-4)


def test_an_allocation_that_torch_refuses_is_out_of_memory(catalogue: Catalogue) -> None:
    def greedy(given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"embeddings": torch.empty(1 << 45, dtype=torch.uint8)}

    handle = TorchHandle(catalogue[TORCH], greedy, "cpu")
    zeros = {"images": np.zeros((2, 3, 224, 224), np.float32)}
    with pytest.raises(TrendFlowError) as caught:
        handle.infer(zeros)
    assert (caught.value.error_code, caught.value.detail["batch"]) == ("out_of_memory", 2)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "model_spec_invalid"),
    ],
)
def test_failures_of_torch_have_the_names_of_the_project(catalogue: Catalogue, failure: Exception, code: str) -> None:
    def failing(given: Mapping[str, Any]) -> Mapping[str, Any]:
        raise failure

    handle = TorchHandle(catalogue[TORCH], failing, "cpu")
    assert code_of(lambda: handle.infer({"images": np.zeros((1, 3, 224, 224), np.float32)})) == code


def test_results_of_layers_that_hang_on_a_failed_run_are_freed_before_memory_is_given_back(
    catalogue: Catalogue,
) -> None:
    layers: list[weakref.ref[Any]] = []
    held: list[bool] = []

    def greedy(given: Mapping[str, Any]) -> Mapping[str, Any]:
        layer = torch.ones(8)
        layers.append(weakref.ref(layer))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = TorchHandle(catalogue[TORCH], greedy, "cpu")
    handle._device = "cuda:0"  # where it claims to be: SIMULATED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
        patch.setattr(torch.cuda, "empty_cache", lambda: held.append(layers[0]() is not None))
        assert code_of(lambda: handle.infer({"images": np.zeros((1, 3, 224, 224), np.float32)})) == "out_of_memory"
    assert held == [False]


def test_a_device_that_is_lost_is_unavailable(catalogue: Catalogue) -> None:
    def failing(given: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    handle = TorchHandle(catalogue[TORCH], failing, "cpu")
    handle._device = "cuda:0"  # SIMULATED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
        assert code_of(lambda: handle.infer({"images": np.zeros((1, 3, 224, 224), np.float32)})) == "device_unavailable"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: invalid device ordinal"), "model_load_failed"),
    ],
)
def test_weights_that_cannot_be_placed_have_a_code(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: str
) -> None:
    import safetensors.torch

    def load_file(path: Path, device: str) -> None:
        raise failure

    monkeypatch.setattr(safetensors.torch, "load_file", load_file)
    entry, path = _placed(tmp_path, b"weights")
    assert code_of(lambda: TorchHandle.load(entry, path)) == code


def test_an_output_that_the_network_does_not_give_is_named(catalogue: Catalogue) -> None:
    handle = TorchHandle(catalogue[TORCH], lambda given: {}, "cpu")
    assert code_of(lambda: handle.infer({"images": np.zeros((1, 3, 224, 224), np.float32)})) == (
        "artifact_validation_failed"
    )


def test_wrong_inputs_and_outputs_are_refused(catalogue: Catalogue, encoder: TorchHandle) -> None:
    assert code_of(lambda: encoder.infer({"images": np.zeros((1, 3, 224, 224))})) == "model_spec_invalid"
    assert code_of(lambda: encoder.infer({"images": np.zeros((33, 3, 224, 224), np.float32)})) == "model_spec_invalid"
    blind = TorchHandle(catalogue[TORCH], lambda given: {"embeddings": torch.full((1, 1280), torch.nan)}, "cpu")
    zeros = {"images": np.zeros((1, 3, 224, 224), np.float32)}
    assert code_of(lambda: blind.infer(zeros)) == "artifact_validation_failed"


def _placed(folder: Path, data: bytes, **overrides: Any) -> tuple[CatalogueEntry, Path]:
    entry = entry_for(data, engine="torch", **{"architecture": "efficientnet_lite0", **overrides})
    return entry, place(folder, entry, data)


def test_files_that_are_no_weights_of_the_network_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    from safetensors.numpy import save

    facts = {"inputs": [spec.model_dump() for spec in catalogue[TORCH].inputs]}
    other = save({"weight": np.zeros((1, 2), np.float32)})
    assert code_of(lambda: TorchHandle.load(*_placed(tmp_path, b"no safetensors", **facts))) == "model_load_failed"
    assert code_of(lambda: TorchHandle.load(*_placed(tmp_path, other, **facts))) == "model_load_failed"
    unknown = _placed(tmp_path, other, architecture="nothing", **facts)
    assert code_of(lambda: TorchHandle.load(*unknown)) == "model_spec_invalid"


def test_a_pickle_is_no_safetensors_file_and_none_of_it_runs(catalogue: Catalogue, tmp_path: Path) -> None:
    import pickle

    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    entry, path = _placed(tmp_path, pickle.dumps(Hostile()))
    assert code_of(lambda: TorchHandle.load(entry, path)) == "model_load_failed"
    assert not mark.exists()


def test_only_torch_entries_name_an_architecture() -> None:
    with pytest.raises(ValueError, match="architecture"):
        CatalogueEntry.model_validate(entry_values(engine="torch"))
    with pytest.raises(ValueError, match="architecture"):
        CatalogueEntry.model_validate(entry_values(architecture="efficientnet_lite0"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a host without CUDA says; this one has it")
def test_cuda_without_cuda_is_device_unavailable_and_never_the_cpu(catalogue: Catalogue, models_dir: Path) -> None:
    entry = catalogue[TORCH].model_copy(update={"device_policy": "cuda"})
    assert code_of(lambda: ModelPool(models_dir).get(entry)) == "device_unavailable"
    mapping = {"image_encoder": TORCH}
    assert code_of(lambda: resolve_models(catalogue_of(entry), mapping, mapping, models_dir)) == "device_unavailable"


def test_without_torch_the_run_does_not_begin(
    catalogue: Catalogue, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real_find(name))
    mapping = {"image_encoder": TORCH}
    with pytest.raises(TrendFlowError, match=r"trendflow\[build\]") as caught:
        resolve_models(catalogue, mapping, mapping, models_dir)
    assert (caught.value.error_code, caught.value.detail["package"]) == ("dependency_missing", "torch")


def test_a_closed_model_refuses_to_run(catalogue: Catalogue, encoder: TorchHandle) -> None:
    handle = TorchHandle(catalogue[TORCH], lambda given: {}, "cpu")
    handle.close()
    assert code_of(lambda: handle.infer({"images": np.zeros((1, 3, 224, 224), np.float32)})) == "model_load_failed"
