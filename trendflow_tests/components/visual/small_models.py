"""Small ONNX models with the tensors of reference models whose weights are not shipped.

None of them knows anything: their weights are random or encode a formula, their names and licence say so, and no
profile can map them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from trendflow.components.visual._scene_model import GROUPS
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow_tests.models.builders import UNLICENSED, entry_for, onnx_bytes


def loaded(folder: Path, data: bytes, entry: CatalogueEntry) -> ModelHandle:
    path = folder / f"{entry.name}.onnx"
    path.write_bytes(data)
    return OnnxHandle.load(entry, path)


def _tensor(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def depth_model(
    folder: Path, kernel: np.ndarray, *, name: str, side: int = 48, scale: float = 1.0, shift: float = 0.0, **facts: Any
) -> ModelHandle:
    """[B,3,s,s] → [B,s,s]: one convolution with `kernel` `[3, k, k]`, then scale and shift."""
    weights = np.asarray(kernel, dtype=np.float32)[None] * scale
    pad = [weights.shape[-1] // 2] * 4
    data = onnx_bytes(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["map"], pads=pad),
            helper.make_node("Squeeze", ["map", "axis"], ["y"]),
        ],
        ("B", 3, side, side),
        ("B", side, side),
        [_tensor("w", weights), _tensor("b", [shift]), numpy_helper.from_array(np.array([1]), "axis")],
    )
    preprocessing = {
        "geometry": "stretch",
        "width": side,
        "height": side,
        "interpolation": "bicubic",
        "color_order": "RGB",
        "mean": [0.0, 0.0, 0.0],
        "std": [255.0, 255.0, 255.0],
    }
    entry = entry_for(
        data,
        name=name,
        roles=["depth"],
        inputs=[{"name": "x", "dtype": "float32", "shape": ["B", 3, side, side], "layout": "NCHW"}],
        outputs=[{"name": "y", "dtype": "float32", "shape": ["B", side, side], "layout": "NHW"}],
        preprocessing={**preprocessing, **facts},
        postprocessing={"quantity": "relative_inverse_depth"},
        **UNLICENSED,
    )
    return loaded(folder, data, entry)


def brightness_as_depth(folder: Path, **arguments: Any) -> ModelHandle:
    """The map is the mean of the channels: pictures are written so that their depth is known."""
    return depth_model(folder, np.full((3, 1, 1), 1 / 3), name="brightness_not_depth", **arguments)


def random_depth(folder: Path, **arguments: Any) -> ModelHandle:
    """Random weights; `side` and facts of the processing are free."""
    kernel = np.random.default_rng(0).normal(size=(3, 5, 5))
    return depth_model(folder, kernel, name="random_weights_depth", **arguments)


def random_midas(folder: Path) -> ModelHandle:
    """Random weights behind the tensors and the processing of the catalogue's MiDaS entry, batches of one."""
    entry = Catalogue.load()["midas_v21_small_256"]
    kernel = np.random.default_rng(2).normal(size=(1, 3, 3, 3))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["0", "w"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("Squeeze", ["map", "axis"], ["797"]),
        ],
        "random",
        [helper.make_tensor_value_info("0", TensorProto.FLOAT, [1, 3, 256, 256])],
        [helper.make_tensor_value_info("797", TensorProto.FLOAT, [1, 256, 256])],
        [_tensor("w", kernel), numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return loaded(
        folder, model.SerializeToString(), entry.model_copy(update={"name": "random_weights_midas", **UNLICENSED})
    )


def place_model(folder: Path, weights: np.ndarray, bias: np.ndarray, *, name: str, **changes: Any) -> ModelHandle:
    """[B,3,224,224] → logits [B,365] = mean colour of the crop · weights `[3, 365]` + bias `[365]`."""
    data = onnx_bytes(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["colour"]),
            helper.make_node("Gemm", ["colour", "w", "b"], ["y"]),
        ],
        ("B", 3, 224, 224),
        ("B", 365),
        [_tensor("w", weights), _tensor("b", bias)],
    )
    names = [f"place_{i:03d}" for i in range(365)]
    values: dict[str, Any] = {
        "name": name,
        "roles": ["scene_classifier"],
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", 3, 224, 224], "layout": "NCHW"}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 365], "layout": "NC"}],
        "preprocessing": {
            "geometry": "shorter_side_center_crop",
            "resize_shorter": 256,
            "width": 224,
            "height": 224,
            "interpolation": "bilinear_antialiased",
            "color_order": "RGB",
            "mean": [127.0, 127.0, 127.0],
            "std": [1.0, 1.0, 1.0],
        },
        "postprocessing": {"score_activation": "softmax"},
        "class_names": names,
        "class_groups": {group: names[k :: len(GROUPS)] for k, group in enumerate(GROUPS)},
        "label_vocab_version": "synthetic_places_v1",
        **UNLICENSED,
    }
    return loaded(folder, data, entry_for(data, **{**values, **changes}))


def grey_as_place(folder: Path, sharpness: float = 0.05) -> ModelHandle:
    """A grey picture of level g is place g: logit_k = sharpness · (2 k g − k²) on levels less 127."""
    level = np.arange(365.0) - 127
    weights = np.repeat(2 * sharpness * level[None] / 3, 3, axis=0)
    return place_model(folder, weights, -sharpness * level**2, name="grey_level_not_place")


def random_places(folder: Path, **changes: Any) -> ModelHandle:
    """Random weights with the processing of the Places365 reference and made-up classes and groups."""
    rng = np.random.default_rng(1)
    return place_model(
        folder,
        rng.normal(size=(3, 365)),
        rng.normal(size=365),
        name="random_weights_places",
        **{"preprocessing": dict(Catalogue.load()["places365_resnet50"].preprocessing), **changes},
    )
