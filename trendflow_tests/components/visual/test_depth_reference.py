"""Depth with the reference architecture against the library that defines it, on the same random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import BitConfig, DPTConfig, DPTForDepthEstimation, DPTImageProcessorPil

from trendflow.components.visual import core_depth_midas
from trendflow.components.visual._depth_model import DepthModel
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.visual.clips import Bench, Clip
from trendflow_tests.components.visual.small_models import loaded
from trendflow_tests.models.builders import random_entry

torch = pytest.importorskip("torch")
exports = pytest.importorskip("trendflow_tests.models.exports")


@pytest.fixture(scope="module")
def network() -> Any:
    """DPT-hybrid, narrow and with random weights: convolutional backbone, transformer, fusion; no trained model."""
    backbone = BitConfig(
        global_padding="same",
        layer_type="bottleneck",
        depths=[1, 1, 2],
        hidden_sizes=[16, 32, 64],
        embedding_size=16,
        num_groups=4,
        out_features=["stage1", "stage2", "stage3"],
        embedding_dynamic_padding=True,
    )
    config = DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 64, 24, 24],
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 32, 32, 32],
        neck_ignore_stages=[0, 1],
        reassemble_factors=[1, 1, 1, 0.5],
        fusion_hidden_size=16,
        readout_type="project",
    )
    network = DPTForDepthEstimation(config).eval()
    exports.spread(network)
    return network


@pytest.fixture(scope="module")
def handle(network: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    """The network exported to ONNX, behind an entry with the facts the catalogue states for the reference model."""
    data = exports.exported(network, (1, 3, 384, 384), "pixel_values", "predicted_depth")
    return loaded(
        tmp_path_factory.mktemp("random_weights"), data, random_entry(Catalogue.load()["dpt_hybrid_384"], data)
    )


def test_maps_equal_those_of_transformers(network: Any, handle: ModelHandle, hello: Clip) -> None:
    frames = hello.frames[[0, 20]]
    maps = np.concatenate([DepthModel(handle, StageTimer())(frame[None]) for frame in frames])
    # The published configuration of the processor, written out.
    processor = DPTImageProcessorPil(
        size={"height": 384, "width": 384},
        resample=3,
        keep_aspect_ratio=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = network(pixels).predicted_depth.numpy()
    assert expected.std() > 1e-3
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * expected.max()  # the network tells the frames apart
    np.testing.assert_allclose(maps, expected, atol=1e-4 * expected.max())


def test_the_component_runs_on_the_reference_architecture(bench: Bench, handle: ModelHandle, hello: Clip) -> None:
    artifact = bench.run(core_depth_midas, hello.take(slice(0, 3)), models={"depth": handle})
    assert artifact.status == "ok"
    assert artifact.models_used[0].model_name == "dpt_hybrid_384_random"
    assert artifact.arrays["depth_valid_mask"].all()
