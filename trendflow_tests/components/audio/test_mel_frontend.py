"""The log-mel front end against the libraries whose models it feeds."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from transformers import ClapFeatureExtractor

from trendflow.components.audio._mel_frontend import MelFrontEnd, slaney_hz, slaney_mel
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow_tests.models.builders import random_encoder

CATALOGUE = Catalogue.load()
MUSICNN = CATALOGUE["musicnn_msd"]
CLAP = CATALOGUE["clap_htsat_unfused"]


def clap_entry(**overrides: Any) -> CatalogueEntry:
    return random_encoder(CLAP, **overrides)[0]


def speech(data_dir: Any, rate: int, seconds: float) -> np.ndarray:
    signal, source_rate = soundfile.read(data_dir / "audio" / "jfk_1961_cityuponahill.flac", dtype="float32")
    return librosa.resample(signal[: round(seconds * source_rate)], orig_sr=source_rate, target_sr=rate)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [96_000, 100_000, 479_999, 480_000])
def test_clap_patches_equal_those_of_transformers(samples: int) -> None:
    reference = ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=48_000,
        hop_length=480,
        max_length_s=10,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14_000,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    window = noise(samples)
    expected = reference(window, sampling_rate=48_000, return_tensors="np")["input_features"]
    front_end = MelFrontEnd.of(clap_entry())
    np.testing.assert_allclose(front_end(front_end.fit(window)[None]), expected, atol=1e-4)


def test_musicnn_patches_equal_the_published_recipe(data_dir: Any) -> None:
    front_end = MelFrontEnd.of(MUSICNN)
    window = speech(data_dir, 16_000, 3.0)
    mel = librosa.feature.melspectrogram(y=window, sr=16_000, hop_length=256, n_fft=512, n_mels=96, pad_mode="reflect")
    np.testing.assert_allclose(front_end(window[None])[0], np.log10(10_000 * mel + 1).T[:187], atol=1e-4)


def test_digital_silence_gives_the_floor() -> None:
    clap, musicnn = MelFrontEnd.of(clap_entry()), MelFrontEnd.of(MUSICNN)
    assert np.unique(clap(np.zeros((1, clap.samples)))).tolist() == [-100.0]
    assert np.unique(musicnn(np.zeros((1, musicnn.samples)))).tolist() == [0.0]


def test_the_mel_scale_is_slaneys() -> None:
    hz = np.array([0.0, 100.0, 999.0, 1000.0, 4000.0, 14_000.0])
    np.testing.assert_allclose(slaney_mel(hz), librosa.hz_to_mel(hz))
    np.testing.assert_allclose(slaney_hz(slaney_mel(hz)), hz, atol=1e-9)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("repeat", [1, 2, 3, 1, 2, 3, 1, 2]),
        ("repeat_then_zero", [1, 2, 3, 1, 2, 3, 0, 0]),
        ("zero", [1, 2, 3, 0, 0, 0, 0, 0]),
    ],
)
def test_padding_rules(padding: str, expected: list[int]) -> None:
    # 8 samples are the input of this made-up front end; the spectral numbers play no part in `fit`.
    facts = dict.fromkeys(("rate", "frames", "bands", "fft", "hop", "low_hz", "high_hz"), 1)
    front_end = MelFrontEnd(**facts, samples=8, padding=padding, compress=abs, level_dbfs=None, shape=(1, 1))
    assert front_end.fit(np.array([1, 2, 3], np.float32)).tolist() == expected
    assert front_end.fit(np.arange(8, dtype=np.float32)).tolist() == list(range(8))


@pytest.mark.parametrize("samples", [0, 48_001])
def test_windows_the_model_cannot_take_are_refused(samples: int) -> None:
    with pytest.raises(TrendFlowError) as caught:
        MelFrontEnd.of(MUSICNN).fit(np.zeros(samples, np.float32))
    assert caught.value.error_code == "model_spec_invalid"


@pytest.mark.parametrize(
    "facts",
    [
        {"hop": 441},  # another number of frames than the input has
        {"mel_bands": 32},
        {"padding": "random_crop"},
        {"compression": "mel"},
        {"mel_high_hz": 30_000.0},  # above half the sample rate
        {"sample_rate": None},
        {"n_fft": 2.0e9},
    ],
)
def test_contradicting_facts_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        MelFrontEnd.of(clap_entry(preprocessing={**CLAP.preprocessing, **facts}))
    assert caught.value.error_code == "model_spec_invalid"
