"""The component obeys its catalogue entry: canvas, padding and units of models other than the shipped one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow_tests.components.motion.bench import run_flow
from trendflow_tests.components.motion.camera import film, texture
from trendflow_tests.components.visual.clips import clip_of
from trendflow_tests.models.builders import entry_for

VECTOR = (3.0, -2.0)


@pytest.fixture
def constant_flow(tmp_path: Path) -> ModelHandle:
    """A synthetic model with RAFT's tensors that answers (3, −2) canvas pixels in one direction and zero in none."""
    facts = Catalogue.load().unpinned["raft_small_256"]
    tensors = [
        helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape))
        for spec in (*facts.inputs, *facts.outputs)
    ]
    vector = numpy_helper.from_array(np.array(VECTOR, np.float32).reshape(1, 2, 1, 1), "vector")
    ends = [numpy_helper.from_array(np.array([k], np.int64), name) for name, k in (("from", 0), ("to", 2), ("axis", 1))]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes = [
        helper.make_node("Sub", ["image1", "image2"], ["difference"]),
        helper.make_node("Slice", ["difference", "from", "to", "axis"], ["two"]),
        helper.make_node("Mul", ["two", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "vector"], ["flow"]),
    ]
    graph = helper.make_graph(nodes, "constant", tensors[:2], tensors[2:], [vector, zero, *ends])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = bytes(model.SerializeToString())
    path = tmp_path / "constant.onnx"
    path.write_bytes(data)
    return OnnxHandle.load(raft_entry(data), path)


def raft_entry(data: bytes) -> CatalogueEntry:
    facts = Catalogue.load().unpinned["raft_small_256"]
    return entry_for(
        data,
        name="constant_flow_test",
        roles=["optical_flow"],
        licence_spdx="NONE",
        commercial_use="forbidden",
        **{name: facts.model_dump()[name] for name in ("inputs", "outputs", "preprocessing", "postprocessing")},
    )


@pytest.mark.parametrize(("width", "height"), [(570, 320), (320, 568), (640, 80), (100, 100)])
def test_canvas_pixels_become_frame_lengths_per_axis(constant_flow: ModelHandle, width: int, height: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    flow = run_flow(constant_flow, clip_of(frames, gap_s=0.5))
    ratio = 256 / max(width, height)
    # Sides are whole pixels on the canvas, so the two axes may be scaled a little differently.
    per_length = [round(side * ratio) / side * max(width, height) for side in (width, height)]
    dx, dy = (value / length / 0.5 for value, length in zip(VECTOR, per_length, strict=True))
    np.testing.assert_allclose(flow.arrays["flow_dx_mean_per_sec_norm"][1:], dx, rtol=1e-5)
    np.testing.assert_allclose(flow.arrays["flow_dy_mean_per_sec_norm"][1:], dy, rtol=1e-5)
    np.testing.assert_allclose(flow.arrays["cam_tx_per_sec_norm"][1:], dx, rtol=1e-4)
    np.testing.assert_allclose(flow.arrays["cam_ty_per_sec_norm"][1:], dy, rtol=1e-4)
    # Both directions say the same instead of the opposite.
    assert not flow.arrays["pair_reliable_mask"].any()


@pytest.mark.parametrize(("width", "height"), [(570, 320), (320, 568), (640, 80), (100, 100)])
def test_raft_canvases_have_the_sides_its_entry_asks_for(width: int, height: int) -> None:
    frames = film(texture(1), 2, width=width, height=height).frames
    canvas, placement = FramePreprocessing.of(raft_entry(b"x"))(frames)
    rows, columns = canvas.shape[2:]
    assert (rows % 8, columns % 8, max(rows, columns)) == (0, 0, 256)
    assert min(rows, columns) >= 128
    assert -1 <= canvas.min() < canvas.max() <= 1
    corners = placement.to_frame(
        np.array([placement.offset, (columns - placement.offset[0], rows - placement.offset[1])])
    )
    np.testing.assert_allclose(corners, [[0, 0], [width, height]], atol=1.0 * max(width, height) / 256)
