"""The component with the reference architecture against the library that defines it, on the same random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

from trendflow.components.audio import clap_extractor
from trendflow.components.base import AudioWindows
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow_tests.components.audio.signals import FULL_RATE, audio_inputs, sine
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.models.builders import random_entry

torch = pytest.importorskip("torch")
exports = pytest.importorskip("trendflow_tests.models.exports")


@pytest.fixture(scope="module")
def tower() -> Any:
    """The audio tower without feature fusion, narrow and with random weights; no trained model."""
    torch.manual_seed(0)
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        hidden_size=64,
        projection_dim=512,
        enable_fusion=False,
    )
    return ClapAudioModelWithProjection(config).eval()


@pytest.fixture(scope="module")
def handle(tower: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    """The tower exported to ONNX, behind an entry with the facts the catalogue states for the reference model."""

    data = exports.exported(tower, (2, 1, 1001, 64), "input_features", "audio_embeds", open_batch=True)
    path: Path = tmp_path_factory.mktemp("random_weights") / "model.onnx"
    path.write_bytes(data)
    return OnnxHandle.load(random_entry(Catalogue.load()["clap_htsat_unfused"], data), path)


@pytest.mark.parametrize("window_s", [2.0, 10.0])
def test_embeddings_equal_those_of_transformers(tower: Any, handle: ModelHandle, window_s: float) -> None:
    seconds = 2 * window_s
    rng = np.random.default_rng(0)
    full = sine(seconds, -12.0, hz=440.0) * np.linspace(0, 1, round(seconds * FULL_RATE))
    full = (full + 0.01 * rng.standard_normal(len(full))).astype(np.float32)
    starts = np.array([0.0, window_s])
    windows = AudioWindows("clap", window_s, starts, starts + window_s, starts + window_s / 2, np.ones(2, dtype=bool))
    inputs = audio_inputs(full[:, None], windows=windows, mono=np.zeros(1))
    artifact = clap_extractor.run(replace(inputs, models={"audio_encoder": handle}))
    assert schema_problems(clap_extractor, artifact) == []

    # The published configuration of the extractor, written out where it differs from its defaults.
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad", frequency_min=50)
    pieces = list(full.reshape(2, -1))
    features = extractor(pieces, sampling_rate=FULL_RATE, return_tensors="pt")["input_features"]
    with torch.no_grad():
        expected = tower(features).audio_embeds.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = artifact.arrays["embedding_sequence"]
    assert np.einsum("nd,nd->n", rows, expected).min() >= 0.9999
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert rows[0] @ rows[1] < 0.9999  # the tower tells the two windows apart
