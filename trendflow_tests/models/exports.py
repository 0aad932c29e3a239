"""Small torch models with random weights, written the way published files are made."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch


class _Single(torch.nn.Module):
    """A model of one input and the named output."""

    def __init__(self, model: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x: Any) -> Any:
        return getattr(self.model(x), self.output)


def exported(
    model: torch.nn.Module, shape: tuple[int, ...], input_name: str, output_name: str, *, open_batch: bool = False
) -> bytes:
    """The ONNX file of a transformers model, fixed to the shape of its input but for the batch where that is open."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, its successor needs another package
        torch.onnx.export(
            _Single(model, output_name).eval(),
            (torch.zeros(*shape),),
            file,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={name: {0: "B"} for name in (input_name, output_name)} if open_batch else None,
            opset_version=17,
            dynamo=False,
        )
    return file.getvalue()


def spread(model: torch.nn.Module, gain: float = 1.0, seed: int = 0) -> None:
    """Random weights that multiply signals by about `gain` per layer, so that outputs depend visibly on inputs."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim > 1:
                torch.nn.init.kaiming_normal_(values, nonlinearity="linear")
                values.mul_(gain)
            elif name.endswith("bias"):
                values.normal_(0, 0.1)
        for name, values in model.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(0, 0.1)
            elif name.endswith("running_var"):
                values.uniform_(0.5, 2)


def published_checkpoint(classes: int) -> tuple[torch.nn.Module, bytes]:
    """A narrow ResNet with random weights, and its checkpoint as the Places365 models are published.

    Names are torchvision's with the prefix of a model trained on several devices, under `state_dict` beside the state
    of the training. Returns the transformers model too, which is the reference.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 2, 1, 1],
        layer_type="bottleneck",
        num_labels=classes,
    )
    model = ResNetForImageClassification(config).eval()
    spread(model, gain=1.5)
    state = {f"module.{_torchvision_name(name)}": values for name, values in model.state_dict().items()}
    file = io.BytesIO()
    torch.save({"epoch": 90, "arch": "resnet50", "state_dict": state, "best_prec1": torch.tensor(54.7)}, file)
    return model, file.getvalue()


def _torchvision_name(name: str) -> str:
    """`resnet.encoder.stages.1.layers.0.layer.2.convolution.weight` → `layer2.0.conv3.weight`."""
    short = {"convolution": "conv", "normalization": "bn"}
    pieces = name.split(".")
    if pieces[0] == "classifier":
        return f"fc.{pieces[-1]}"
    if pieces[1] == "embedder":
        return f"{short[pieces[-2]]}1.{pieces[-1]}"
    block = f"layer{int(pieces[3]) + 1}.{pieces[5]}"
    if pieces[6] == "shortcut":
        return f"{block}.downsample.{list(short).index(pieces[-2])}.{pieces[-1]}"
    return f"{block}.{short[pieces[-2]]}{int(pieces[7]) + 1}.{pieces[-1]}"
