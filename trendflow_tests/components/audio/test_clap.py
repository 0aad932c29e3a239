"""Sound embeddings: the shipped model on real sound, the reference model's wiring with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.audio import clap_extractor
from trendflow.components.audio.clap_extractor import FEATURES, mono_signal
from trendflow.components.base import AudioWindows, ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.pool import ModelPool
from trendflow_tests.components.audio.signals import (
    FULL_RATE,
    audio_inputs,
    features,
    no_audio_inputs,
    sine,
    stereo,
)
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.models.builders import random_encoder


@pytest.fixture(scope="module")
def musicnn(pool: ModelPool) -> ModelHandle:
    return pool.get(Catalogue.load()["musicnn_msd"])


@pytest.fixture(scope="module")
def load_random(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelHandle]:
    """Loads a small model with random weights and the facts of the reference model, some of them replaced."""

    def load(**overrides: Any) -> ModelHandle:
        entry, data = random_encoder(Catalogue.load()["clap_htsat_unfused"], **overrides)
        path = tmp_path_factory.mktemp("random_weights") / "model.onnx"
        path.write_bytes(data)
        return OnnxHandle.load(entry, path)

    return load


@pytest.fixture(scope="module")
def random_clap(load_random: Callable[..., ModelHandle]) -> ModelHandle:
    return load_random()


def windows_at(centres_s: Any, window_s: float = 2.0) -> AudioWindows:
    centre = np.asarray(centres_s, dtype=np.float64)
    return AudioWindows(
        "clap", window_s, centre - window_s / 2, centre + window_s / 2, centre, np.ones(len(centre), dtype=bool)
    )


def embed(handle: ModelHandle, full: np.ndarray, windows: AudioWindows, runner: BatchRunner | None = None) -> Artifact:
    inputs = audio_inputs(full, windows=windows)
    artifact = clap_extractor.run(replace(inputs, models={"audio_encoder": handle}, runner=runner or BatchRunner()))
    assert schema_problems(clap_extractor, artifact) == []
    return artifact


def with_model(inputs: ComponentInputs, handle: ModelHandle) -> ComponentInputs:
    return replace(inputs, models={"audio_encoder": handle})


def recording(path: Path, seconds: float) -> np.ndarray:
    signal, rate = soundfile.read(path, always_2d=True)
    return soxr.resample(signal[: round(seconds * rate)], rate, FULL_RATE)


def chord_and_noise(seconds: float = 8.0) -> np.ndarray:
    """A chord that turns into noise half way, `[n, 1]`. Synthetic."""
    half = seconds / 2
    chord = sum(sine(half, -20, hz=hz) for hz in (220.0, 277.2, 329.6))
    hiss = 0.1 * np.random.default_rng(3).standard_normal(len(chord))
    return np.concatenate([chord, hiss])[:, None]


def test_rows_are_unit_vectors_and_the_embedding_is_their_mean(musicnn: ModelHandle) -> None:
    artifact = embed(musicnn, chord_and_noise(), windows_at([1, 2, 3, 5, 6, 7]))
    rows = artifact.arrays["embedding_sequence"].astype(np.float64)
    assert rows.shape == (6, 200)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    mean = rows.mean(axis=0)
    np.testing.assert_allclose(artifact.arrays["embedding"], mean / np.linalg.norm(mean), atol=1e-6)
    found = features(artifact)
    assert found["embedding_concentration"] == pytest.approx(np.linalg.norm(mean), abs=1e-6)
    change = 1 - np.einsum("nd,nd->n", rows[1:], rows[:-1])
    assert found["embedding_change_mean"] == pytest.approx(change.mean(), abs=1e-6)
    assert found["embedding_change_p90"] == pytest.approx(np.percentile(change, 90), abs=1e-6)
    assert change.argmax() == 2  # where the chord turns into noise
    assert found["valid_window_ratio"] == 1.0
    assert artifact.models_used == (musicnn.used,)


def test_a_repeated_window_is_fully_concentrated(musicnn: ModelHandle) -> None:
    # 2 s of noise again and again; every window holds one whole repetition.
    full = np.tile(0.1 * np.random.default_rng(0).standard_normal((2 * FULL_RATE, 1)), (4, 1))
    found = features(embed(musicnn, full, windows_at([3, 5])))
    assert found["embedding_concentration"] == pytest.approx(1.0, abs=1e-4)
    assert found["embedding_change_mean"] == pytest.approx(0.0, abs=1e-4)


def test_two_windows_have_a_closed_form(random_clap: ModelHandle) -> None:
    """Of two unit vectors at angle φ the mean is cos(φ/2) long, and their change is 1 − cos φ."""
    found = features(embed(random_clap, chord_and_noise(), windows_at([2, 6])))
    assert 0 < found["embedding_change_mean"] < 2
    angle = np.arccos(1 - found["embedding_change_mean"])
    assert found["embedding_concentration"] == pytest.approx(np.cos(angle / 2), abs=1e-5)


@pytest.mark.parametrize("gain_db", [-6.0, 6.0])
@pytest.mark.parametrize("name", ["jfk_1961_cityuponahill.flac", "madmom_sample.wav"])
def test_gain_hardly_moves_the_embedding(musicnn: ModelHandle, data_dir: Path, name: str, gain_db: float) -> None:
    full = recording(data_dir / "audio" / name, 6.0)
    windows = windows_at(np.linspace(1.0, len(full) / FULL_RATE - 1.0, 4))
    plain, scaled = (embed(musicnn, full * gain, windows).arrays for gain in (1.0, 10 ** (gain_db / 20)))
    assert float(plain["embedding"] @ scaled["embedding"]) >= 0.95
    assert np.einsum("nd,nd->n", plain["embedding_sequence"], scaled["embedding_sequence"]).min() >= 0.95
    np.testing.assert_allclose(scaled["segment_rms_dbfs"] - plain["segment_rms_dbfs"], gain_db, atol=0.01)


def test_pieces_of_one_recording_are_closer_than_two_recordings(musicnn: ModelHandle, data_dir: Path) -> None:
    def parts(name: str, *centres: float) -> np.ndarray:
        full = recording(data_dir / "audio" / name, max(centres) + 1)
        return embed(musicnn, full, windows_at(centres)).arrays["embedding_sequence"]

    speech, music = parts("jfk_1961_cityuponahill.flac", 2.0, 5.0, 8.0), parts("madmom_sample.wav", 1.0, 1.4, 1.8)
    within = min(np.mean(speech @ speech.T), np.mean(music @ music.T))
    assert within > np.mean(speech @ music.T) + 0.2


def test_silent_windows_are_masked(random_clap: ModelHandle) -> None:
    full = np.concatenate([np.zeros((3 * FULL_RATE, 1)), chord_and_noise(4.0)])
    artifact = embed(random_clap, full, windows_at([1, 2, 5, 6]))
    assert artifact.arrays["segment_mask"].tolist() == [False, False, True, True]
    assert np.isnan(artifact.arrays["embedding_sequence"]).all(axis=1).tolist() == [True, True, False, False]
    assert artifact.arrays["segment_rms_dbfs"][0] == -120
    assert features(artifact)["valid_window_ratio"] == 0.5
    alone = embed(random_clap, full, windows_at([5, 6]))
    np.testing.assert_array_equal(artifact.arrays["embedding"], alone.arrays["embedding"])


def test_windows_outside_the_audio_do_not_count(random_clap: ModelHandle) -> None:
    windows = windows_at([1, 3, 20])
    artifact = embed(random_clap, chord_and_noise(), windows)
    assert artifact.arrays["segment_mask"].tolist() == [True, True, False]
    assert np.isnan(artifact.arrays["segment_rms_dbfs"][2])
    assert features(artifact)["valid_window_ratio"] == 1.0
    beyond = embed(random_clap, chord_and_noise(), windows_at([20, 21]))
    assert (beyond.status, beyond.empty_reason) == ("empty", "audio_too_short")


def test_one_window_has_no_change(random_clap: ModelHandle) -> None:
    artifact = embed(random_clap, chord_and_noise(), windows_at([2]))
    found = features(artifact)
    assert np.isnan([found["embedding_change_mean"], found["embedding_change_p90"]]).all()
    assert set(artifact.meta["absent_features"]) == {"embedding_change_mean", "embedding_change_p90"}
    assert found["embedding_concentration"] == pytest.approx(1.0, abs=1e-6)


def test_no_audio_is_empty(musicnn: ModelHandle) -> None:
    artifact = clap_extractor.run(with_model(no_audio_inputs(), musicnn))
    assert schema_problems(clap_extractor, artifact) == []
    assert (artifact.status, artifact.empty_reason) == ("empty", "audio_missing_or_extract_failed")
    assert artifact.arrays["embedding_sequence"].shape == (0, 200)
    assert np.isnan(artifact.arrays["embedding"]).all()
    assert not artifact.arrays["embedding_present"]
    assert np.isnan(list(features(artifact).values())).all()
    assert artifact.models_used == (musicnn.used,)  # what was planned, so that the result has its key


def test_silence_is_empty_with_its_windows(musicnn: ModelHandle) -> None:
    artifact = embed(musicnn, 1e-4 * np.ones((5 * FULL_RATE, 2)), windows_at([1, 2, 3]))
    assert (artifact.status, artifact.empty_reason) == ("empty", "audio_silent")
    assert artifact.arrays["segment_mask"].tolist() == [False] * 3
    assert artifact.arrays["segment_center_sec"].tolist() == [1, 2, 3]
    assert np.isnan(artifact.arrays["embedding_sequence"]).all()
    found = features(artifact)
    assert found.pop("valid_window_ratio") == 0.0
    assert np.isnan(list(found.values())).all()


def test_clipped_sound_and_opposite_channels_stay_finite(musicnn: ModelHandle) -> None:
    square = np.sign(sine(6.0, 0.0))
    for full in (square[:, None], np.stack([square, -square], axis=1)):
        artifact = embed(musicnn, full, windows_at([1, 3, 5]))
        assert artifact.status == "ok"
        assert np.isfinite(artifact.arrays["embedding_sequence"]).all()


def test_a_window_does_not_know_its_neighbours(random_clap: ModelHandle) -> None:
    together = embed(random_clap, chord_and_noise(), windows_at([2, 4, 6])).arrays["embedding_sequence"]
    alone = embed(random_clap, chord_and_noise(), windows_at([4])).arrays["embedding_sequence"]
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def test_two_runs_are_equal(random_clap: ModelHandle) -> None:
    first, second = (embed(random_clap, chord_and_noise(), windows_at([2, 6])).arrays for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("window_s", [3.0, 10.0])
def test_a_window_as_long_as_the_input_is_taken(
    musicnn: ModelHandle, random_clap: ModelHandle, window_s: float
) -> None:
    handle = musicnn if window_s == 3.0 else random_clap
    full = chord_and_noise(12.0)
    assert embed(handle, full, windows_at([5.0001, 6.0], window_s)).arrays["segment_mask"].all()


@pytest.mark.parametrize("window_s", [3.01, 15.0])
def test_a_longer_window_is_refused(musicnn: ModelHandle, window_s: float) -> None:
    with pytest.raises(TrendFlowError, match="longer than the input") as caught:
        embed(musicnn, chord_and_noise(20.0), windows_at([10.0], window_s))
    assert caught.value.error_code == "model_spec_invalid"


def test_an_embedding_of_another_width_is_refused(musicnn: ModelHandle) -> None:
    class Narrow:
        """The shipped model without its last ten values."""

        entry, used, device_used = musicnn.entry, musicnn.used, musicnn.device_used

        def infer(self, inputs: Any) -> dict[str, np.ndarray]:
            return {name: rows[:, :-10] for name, rows in musicnn.infer(inputs).items()}

    with pytest.raises(TrendFlowError, match="not 200 wide") as caught:
        embed(Narrow(), chord_and_noise(), windows_at([2]))
    assert caught.value.error_code == "model_spec_invalid"


def test_what_is_missing_has_its_code(musicnn: ModelHandle, load_random: Callable[..., ModelHandle]) -> None:
    inputs = with_model(audio_inputs(chord_and_noise(), windows=windows_at([2])), musicnn)
    audio = inputs.need_audio()
    broken = {
        "windows": replace(inputs, audio=replace(audio, windows=None)),
        "signal": replace(inputs, audio=replace(audio, full=audio.full[:0])),
        "audio": replace(inputs, audio=None),
        "model": replace(inputs, models={}),
    }
    for case in broken.values():
        with pytest.raises(TrendFlowError) as caught:
            clap_extractor.run(case)
        assert caught.value.error_code == "dependency_missing"
    with pytest.raises(TrendFlowError) as caught:
        clap_extractor.run(with_model(inputs, load_random(embedding_dim=None)))
    assert caught.value.error_code == "model_spec_invalid"


def test_the_mono_signal_is_the_mean_on_the_same_time_axis() -> None:
    # An impulse at 1.5 s must stay there; the length is that of the source.
    full = np.zeros((3 * FULL_RATE, 2))
    full[round(1.5 * FULL_RATE)] = (1.0, 0.0)
    signal = mono_signal(audio_inputs(full).need_audio(), 16_000)
    assert len(signal) == 48_000
    assert abs(int(np.abs(signal).argmax()) - 24_000) <= 1
    tone = sine(2.0, -6.0)
    same = mono_signal(audio_inputs(stereo(tone)).need_audio(), FULL_RATE)
    np.testing.assert_allclose(same, tone, atol=1e-6)


def test_resampling_in_pieces_equals_resampling_at_once() -> None:
    rng = np.random.default_rng(0)
    full = rng.normal(0, 0.1, (65 * FULL_RATE, 1)).astype(np.float32)  # three pieces
    pieces = mono_signal(audio_inputs(full, mono=np.zeros(1)).need_audio(), 16_000)
    at_once = soxr.resample(full[:, 0], FULL_RATE, 16_000)
    assert len(pieces) == len(at_once)
    np.testing.assert_allclose(pieces, at_once, atol=1e-5)


@settings(max_examples=25)
@given(
    centres=st.lists(st.floats(0.0, 12.0), min_size=1, max_size=5),
    level_db=st.floats(-90.0, 0.0),
)
def test_any_windows_give_a_valid_artifact(random_clap: ModelHandle, centres: list[float], level_db: float) -> None:
    full = (10 ** (level_db / 20) * chord_and_noise()).clip(-1, 1)
    artifact = embed(random_clap, full, windows_at(sorted(centres)))
    mask, rows = artifact.arrays["segment_mask"], artifact.arrays["embedding_sequence"]
    np.testing.assert_array_equal(np.isfinite(rows).all(axis=1), mask)
    found = features(artifact)
    assert tuple(found) == FEATURES
    if mask.any():
        assert 0.0 <= found["embedding_concentration"] <= 1.0
    assert not np.isinf(list(found.values())).any()
