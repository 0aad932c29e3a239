"""Outputs of classifiers and flow models as parity sees them, on small SYNTHETIC models and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from trendflow.models.interface import ModelHandle
from trendflow.optimisation.clips import Part
from trendflow.optimisation.parity import LIMITS
from trendflow.optimisation.roles import Seen, judged_by, see
from trendflow_tests.components.visual.small_models import loaded, place_model
from trendflow_tests.models.builders import UNLICENSED, entry_for
from trendflow_tests.optimisation.tiny import clips

FRAMES = 6
SIDE = 40


def _parts() -> list[Part]:
    return [Part(clip, clip.samples(0, FRAMES)) for clip in clips(videos=2)]


def _places(folder: Path, name: str, extra: float = 0.0) -> ModelHandle:
    """SYNTHETIC: class k has k thousandths of the mean red as its logit, and class 7 `extra` more."""
    weights, bias = np.zeros((3, 365), dtype=np.float32), np.zeros(365, dtype=np.float32)
    weights[0] = np.arange(365) / 1000
    bias[7] = extra
    return place_model(folder, weights, bias, name=name)


def _logits(red: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """The same in numpy, of the mean red of every frame."""
    logits = red[:, None] * np.arange(365) / 1000
    logits[:, 7] += extra
    return logits


def _flow(folder: Path, name: str, shift: tuple[float, float]) -> ModelHandle:
    """SYNTHETIC: the vectors are the first two channels of the difference of the pictures, plus `shift`."""
    weights = np.zeros((2, 3, 1, 1), dtype=np.float32)
    weights[0, 0], weights[1, 1] = 0.01, 0.01
    pictures = ["B", 3, SIDE, SIDE]
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["second", "first"], ["difference"]),
            helper.make_node("Conv", ["difference", "w", "b"], ["flow"]),
        ],
        "synthetic",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, pictures) for name in ("first", "second")],
        [helper.make_tensor_value_info("flow", TensorProto.FLOAT, ["B", 2, SIDE, SIDE])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array(shift, dtype=np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    entry = entry_for(
        data,
        name=name,
        roles=["optical_flow"],
        inputs=[
            {"name": name, "dtype": "float32", "shape": pictures, "layout": "NCHW"} for name in ("first", "second")
        ],
        outputs=[{"name": "flow", "dtype": "float32", "shape": ["B", 2, SIDE, SIDE], "layout": "NCHW"}],
        preprocessing={
            "geometry": "stretch",
            "width": SIDE,
            "height": SIDE,
            "interpolation": "bilinear",
            "color_order": "RGB",
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
        },
        postprocessing={"output_units": "canvas_px", "channel_order": ["x", "y"]},
        unit="frame_pair",
        **UNLICENSED,
    )
    return loaded(folder, data, entry)


def _seen(model: ModelHandle) -> Seen:
    return see(judged_by(model.entry), model, _parts())


def test_a_classifier_is_compared_by_the_probabilities_of_all_its_classes(tmp_path: Path) -> None:
    reference = _places(tmp_path, "synthetic_places")
    judged = judged_by(reference.entry)
    assert (judged.kind, judged.spec.name) == ("classifier", "scene_classification")
    assert ("classifier", "fp16") in LIMITS
    assert ("classifier", "int8") in LIMITS
    expected, found = _seen(reference), _seen(_places(tmp_path, "synthetic_places_moved", extra=0.25))
    assert [len(outputs) for outputs in (expected.outputs, found.outputs)] == [2 * FRAMES] * 2
    # Class k is k thousandths of the mean red, so the first and the last class tell the red of every frame.
    probabilities = np.stack(expected.outputs)
    red = np.log(probabilities[:, 364] / probabilities[:, 0]) / 0.364
    before, after = softmax(_logits(red), axis=1), softmax(_logits(red, 0.25), axis=1)
    np.testing.assert_allclose(probabilities, before, rtol=1e-3, atol=1e-7)
    metrics = judged.measure(expected.outputs, found.outputs)
    assert metrics["probability_error_max"] == pytest.approx(np.abs(after - before).max(), rel=1e-2)
    assert metrics["top1_agreement"] == (after.argmax(axis=1) == before.argmax(axis=1)).mean()
    assert judged.measure(expected.outputs, expected.outputs) == {"top1_agreement": 1.0, "probability_error_max": 0.0}
    assert len(expected.scalars) == 2
    assert expected.scalars[0]["entropy_mean"] != found.scalars[0]["entropy_mean"]


def test_flow_is_compared_by_its_vectors_in_both_directions(tmp_path: Path) -> None:
    reference = _flow(tmp_path, "synthetic_flow", (0.0, 0.0))
    judged = judged_by(reference.entry)
    assert (judged.kind, judged.spec.name) == ("flow", "core_optical_flow")
    expected, found = _seen(reference), _seen(_flow(tmp_path, "synthetic_flow_moved", (0.3, -0.4)))
    assert len(expected.outputs) == 2 * 2 * (FRAMES - 1)  # two videos, two directions
    assert judged.measure(expected.outputs, found.outputs)["endpoint_error_mean_px"] == pytest.approx(0.5, rel=1e-5)
    # Frame 1 less frame 0 of the first video, as the model is defined.
    first, second = clips(videos=1)[0].frames.read(np.array([0, 1])).astype(np.float64)
    np.testing.assert_allclose(expected.outputs[0], (0.01 * (second - first)).transpose(2, 0, 1)[:2], atol=1e-5)
    assert set(expected.scalars[0]) == {"reliable_pair_ratio", "pair_dt_median_s"}
