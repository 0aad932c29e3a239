"""Loudness against EBU Tech 3341 and 3342, pyloudnorm, the printed K-weighting coefficients and closed forms."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile
from av.audio.layout import AudioLayout
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.audio import _bs1770 as bs1770
from trendflow.components.audio import loudness_extractor
from trendflow.components.audio._signal_pass import grid_bounds, measure
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.audio.signals import (
    FULL_RATE,
    audio_inputs,
    features,
    no_audio_inputs,
    sine,
    stereo,
    uniform_windows,
)
from trendflow_tests.components.schema_check import schema_problems

SILENT_DB = -400.0


def loudness(signal: np.ndarray, **how: Any) -> dict[str, float]:
    return features(loudness_extractor.run(audio_inputs(signal, **how)))


def tones(*parts: tuple[float, float]) -> np.ndarray:
    """Stereo 1 kHz tone of (seconds, dBFS) parts, as the EBU documents write their test signals."""
    return stereo(np.concatenate([sine(seconds, level) for seconds, level in parts]))


# EBU Tech 3341, table 1: minimum requirements test signals 1 to 5, as (seconds, dBFS) parts.
EBU_3341 = {
    "1": (((20, -23),), -23.0),
    "2": (((20, -33),), -33.0),
    "3": (((10, -36), (60, -23), (10, -36)), -23.0),
    "4": (((10, -72), (10, -36), (60, -23), (10, -36), (10, -72)), -23.0),
    "5": (((20, -26), (20.1, -20), (20, -26)), -23.0),
}


@pytest.mark.parametrize("case", EBU_3341)
def test_ebu_3341_integrated_loudness(case: str) -> None:
    parts, expected = EBU_3341[case]
    assert loudness(tones(*parts))["lufs_integrated"] == pytest.approx(expected, abs=0.1)


def test_ebu_3341_integrated_loudness_of_surround_sound() -> None:
    """Signal 6: six channels, each with a level of its own."""
    signal = np.stack([sine(20, level) for level in (-28, -28, -24, SILENT_DB, -30, -30)], axis=1)
    assert loudness(signal)["lufs_integrated"] == pytest.approx(-23.0, abs=0.1)


# EBU Tech 3342, table 1: test signals 1 to 4, as (seconds, dBFS) parts.
EBU_3342 = {
    "1": (((20, -20), (20, -30)), 10.0),
    "2": (((20, -20), (20, -15)), 5.0),
    "3": (((20, -40), (20, -20)), 20.0),
    "4": (((20, -50), (20, -35), (20, -20), (20, -35), (20, -50)), 15.0),
}


@pytest.mark.parametrize("case", EBU_3342)
def test_ebu_3342_loudness_range(case: str) -> None:
    parts, expected = EBU_3342[case]
    assert loudness(tones(*parts))["loudness_range_lu"] == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.13, 0.19])
def test_ebu_3341_maxima_find_a_burst_of_one_window_wherever_it_starts(delay: float) -> None:
    """Signals 10 and 13: a tone of 3 s and one of 400 ms at -23 dBFS read -23.0 ± 0.1 LUFS."""
    short = tones((delay, SILENT_DB), (3, -23), (1, SILENT_DB))
    momentary = tones((delay, SILENT_DB), (0.4, -23), (1, SILENT_DB))
    assert loudness(short)["lufs_short_term_max"] == pytest.approx(-23.0, abs=0.1)
    assert loudness(momentary)["lufs_momentary_max"] == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "feature", "expected", "above", "below"),
    [
        ("seq-3341-1-16bit.wav", "lufs_integrated", -23.0, 0.1, 0.1),
        ("seq-3341-15-24bit.wav.wav", "true_peak_dbtp", -6.0, 0.2, 0.4),
        ("seq-3341-19-24bit.wav.wav", "true_peak_dbtp", 3.0, 0.2, 0.4),
    ],
)
def test_ebu_conformance_files(
    data_dir: Path, name: str, feature: str, expected: float, above: float, below: float
) -> None:
    signal, rate = soundfile.read(data_dir / "audio" / name, always_2d=True)
    value = loudness(signal, rate=rate)[feature]
    assert expected - below <= value <= expected + above


def test_k_weighting_has_the_printed_coefficients() -> None:
    """ITU-R BS.1770-4, tables 1 and 2, at 48 kHz."""
    shelf, high_pass = bs1770.k_weighting(48_000)
    printed_shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
    np.testing.assert_allclose(shelf, printed_shelf, atol=1e-8)
    np.testing.assert_allclose(high_pass, [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621], atol=1e-8)


@pytest.mark.parametrize("name", ["jfk_1961_cityuponahill.flac", "madmom_sample.wav", "audioeval_es_conteo.wav"])
def test_integrated_loudness_agrees_with_pyloudnorm_on_real_mono(data_dir: Path, name: str) -> None:
    signal, rate = soundfile.read(data_dir / "audio" / name, always_2d=True)
    other = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(signal)
    assert loudness(signal, rate=rate)["lufs_integrated"] == pytest.approx(other, abs=0.02)


def music(seconds: float = 8.0, channels: int = 2) -> np.ndarray:
    """Coloured noise whose level rises and falls, another one in each channel."""
    rng = np.random.default_rng(4)
    noise = np.cumsum(rng.standard_normal((round(seconds * FULL_RATE), channels)), axis=0)
    noise -= np.linspace(noise[0], noise[-1], len(noise))
    swell = 0.55 + 0.45 * np.sin(np.arange(len(noise)) / FULL_RATE * 1.3)[:, None]
    return 0.3 * swell * noise / np.abs(noise).max()


LEVELS = (
    "lufs_integrated",
    "lufs_momentary_max",
    "lufs_short_term_max",
    "true_peak_dbtp",
    "sample_peak_dbfs",
    "rms_dbfs",
    "frame_rms_p10_dbfs",
    "frame_rms_p90_dbfs",
)
DIFFERENCES = ("loudness_range_lu", "crest_factor_db", "hook_loudness_diff_lu", "frame_rms_std_dbfs")


def test_doubling_the_amplitude_adds_six_decibels_to_levels_and_nothing_to_differences() -> None:
    quiet = loudness_extractor.run(audio_inputs(music()))
    loud = loudness_extractor.run(audio_inputs(2 * music()))
    before, after = features(quiet), features(loud)
    step = 20 * math.log10(2)
    for name in LEVELS:
        assert after[name] - before[name] == pytest.approx(step, abs=1e-3), name
    for name in DIFFERENCES:
        assert after[name] == pytest.approx(before[name], abs=1e-3), name
    for key in ("segment_rms_dbfs", "segment_peak_dbfs", "segment_lufs"):
        np.testing.assert_allclose(loud.arrays[key] - quiet.arrays[key], step, atol=1e-3)


def test_equal_stereo_is_three_decibels_above_one_channel() -> None:
    one = music(channels=1)
    single = loudness(np.column_stack([one, np.zeros_like(one)]))["lufs_integrated"]
    both = loudness(np.column_stack([one, one]))["lufs_integrated"]
    assert both - single == pytest.approx(10 * math.log10(2), abs=0.01)


@pytest.mark.parametrize(
    ("layout", "channel", "gain_lu"),
    [
        ("5.1", 0, 0.0),
        ("5.1", 2, 0.0),
        ("5.1", 4, 10 * math.log10(1.41)),
        ("5.1(side)", 5, 10 * math.log10(1.41)),
        ("4.1", 4, 0.0),
        ("5.0", 3, 10 * math.log10(1.41)),
        ("2 channels", 1, 0.0),
        ("6 channels", 5, 10 * math.log10(1.41)),
    ],
)
def test_channel_weights(layout: str, channel: int, gain_lu: float) -> None:
    channels = {"5.1": 6, "5.1(side)": 6, "4.1": 5, "5.0": 5, "2 channels": 2, "6 channels": 6}[layout]
    signal = np.zeros((FULL_RATE * 4, channels))
    signal[:, channel] = sine(4, -20)
    # One channel of a 0 dBFS 1 kHz sine reads -3.01 LUFS.
    assert loudness(signal, layout=layout)["lufs_integrated"] == pytest.approx(-23.01 + gain_lu, abs=0.05)


def test_the_low_frequency_channel_counts_for_level_but_not_for_loudness() -> None:
    front = np.zeros((FULL_RATE * 4, 6))
    front[:, 0] = sine(4, -20)
    with_effects = front.copy()
    with_effects[:, 3] = sine(4, -3, hz=50)
    plain, boosted = loudness(front), loudness(with_effects)
    assert boosted["lufs_integrated"] == pytest.approx(plain["lufs_integrated"], abs=1e-6)
    assert boosted["sample_peak_dbfs"] == pytest.approx(-3.0, abs=0.01)


def test_every_layout_of_up_to_six_channels_has_weights() -> None:
    """FFmpeg's own list: the low-frequency channel weighs nothing, side and back pairs 1.41, everything else 1."""
    names = ["mono", "stereo", "2.1", "3.0", "3.0(back)", "3.1", "4.0", "quad", "quad(side)", "4.1", "5.0", "5.0(side)"]
    names += ["5.1", "5.1(side)", "6.0", "6.0(front)", "hexagonal", "3.1.2", "downmix", "binaural"]
    for name in names:
        speakers = [channel.name for channel in AudioLayout(name).channels]
        expected = [0 if s == "LFE" else 1.41 if s in ("BL", "BR", "SL", "SR") else 1 for s in speakers]
        assert bs1770.channel_weights(name, len(speakers)).tolist() == expected


def test_unknown_layouts_are_refused() -> None:
    with pytest.raises(TrendFlowError, match="does not describe 2 channels") as caught:
        loudness_extractor.run(audio_inputs(music(), layout="5.1"))
    assert caught.value.error_code == "artifact_validation_failed"


def test_levels_of_a_sine_in_closed_form() -> None:
    got = loudness(stereo(sine(10, -12)))
    assert got["sample_peak_dbfs"] == pytest.approx(-12.0, abs=0.01)
    assert got["rms_dbfs"] == pytest.approx(-12.0 - 10 * math.log10(2), abs=0.01)
    assert got["crest_factor_db"] == pytest.approx(10 * math.log10(2), abs=0.01)
    assert got["frame_rms_std_dbfs"] == pytest.approx(0.0, abs=0.1)
    assert got["silence_ratio"] == 0.0
    assert got["clipping_ratio"] == 0.0
    assert got["hook_loudness_diff_lu"] == pytest.approx(0.0, abs=0.01)
    assert got["loudness_range_lu"] == pytest.approx(0.0, abs=0.05)


def test_true_peak_between_samples() -> None:
    """A sine of a quarter of the rate at 45 degrees has samples of 0.707 and a peak of 1."""
    n = np.arange(FULL_RATE * 3)
    fade = np.minimum(1.0, np.minimum(n, n[::-1]) / 4800)
    got = loudness(stereo(fade * np.sin(np.pi / 2 * n + np.pi / 4)))
    assert got["sample_peak_dbfs"] == pytest.approx(-3.01, abs=0.02)
    assert got["true_peak_dbtp"] == pytest.approx(0.0, abs=0.1)


def test_segments_measure_their_own_window() -> None:
    signal = tones((4, -20), (4, SILENT_DB), (4, -30))
    windows = uniform_windows(12.0, 2.0, 2.0)
    artifact = loudness_extractor.run(audio_inputs(signal, windows=windows))
    lufs = artifact.arrays["segment_lufs"]
    np.testing.assert_allclose(lufs[[0, 1, 4, 5]], [-20, -20, -30, -30], atol=0.1)
    assert math.isnan(lufs[3])
    np.testing.assert_allclose(artifact.arrays["segment_peak_dbfs"][[0, 2, 4]], [-20, -120, -30], atol=0.01)
    np.testing.assert_allclose(artifact.arrays["segment_rms_dbfs"][[0, 3]], [-23.01, -120], atol=0.01)
    assert features(artifact)["silence_ratio"] == pytest.approx(2 / 6)
    assert features(artifact)["hook_loudness_diff_lu"] > 2


def test_clipped_samples_are_counted() -> None:
    signal = np.clip(stereo(sine(6, 3.0, hz=997)), -1.0, 1.0)
    got = loudness(signal)
    # A sine of amplitude a exceeds c for 1 - 2·asin(c/a)/π of the time.
    expected = 1 - 2 * math.asin(0.999 / 10 ** (3 / 20)) / math.pi
    assert got["clipping_ratio"] == pytest.approx(expected, abs=2e-3)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    seconds=st.floats(0.05, 12.0),
    channels=st.sampled_from([1, 2, 6]),
    exponent=st.floats(-4.0, 0.0),
)
def test_values_are_finite_or_nan_and_true_peak_bounds_sample_peak(
    seed: int, seconds: float, channels: int, exponent: float
) -> None:
    rng = np.random.default_rng(seed)
    signal = 10**exponent * rng.uniform(-1, 1, (max(1, round(seconds * FULL_RATE)), channels))
    artifact = loudness_extractor.run(audio_inputs(signal))
    got = features(artifact)
    assert schema_problems(loudness_extractor, artifact) == []
    assert not any(math.isinf(value) for value in got.values())
    if artifact.status == "ok":
        assert got["true_peak_dbtp"] >= got["sample_peak_dbfs"]
        assert got["crest_factor_db"] >= 0
        missing = {name for name, value in got.items() if math.isnan(value)}
        assert missing == set(artifact.meta["absent_features"])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), extra=st.lists(st.integers(0, 600_000), max_size=8))
def test_cell_sums_equal_direct_sums_across_block_borders(seed: int, extra: list[int]) -> None:
    """The signal is read in blocks; cells that straddle a block border must not lose samples."""
    rng = np.random.default_rng(seed)
    rate = 8000
    signal = rng.uniform(-1, 1, (98_765, 2)).astype(np.float32)
    cuts = np.unique([position % len(signal) for position in extra]).astype(np.int64)
    got = measure(signal, rate, np.ones(2), np.concatenate([grid_bounds(len(signal), rate), cuts]), 0.999, _ignore)
    for start, stop in zip([0, *cuts], [*cuts, len(signal)], strict=True):
        piece = signal[start:stop].astype(np.float64)
        total = got.totals(got.squares, np.array([start]), np.array([stop]))[0]
        assert total == pytest.approx((piece**2).sum(), abs=1e-6)
        if len(piece):
            assert got.maxima(np.array([start]), np.array([stop]))[0] == np.abs(piece).max()


def _ignore(done: int, total: int) -> None:
    return None


def test_loudness_does_not_depend_on_how_a_long_signal_is_cut_into_blocks() -> None:
    """17 s span several blocks; pyloudnorm reads the signal at once."""
    signal = music(17.0)
    other = pyloudnorm.Meter(FULL_RATE, filter_class="DeMan").integrated_loudness(signal)
    assert loudness(signal)["lufs_integrated"] == pytest.approx(other, abs=0.01)


def test_without_audio() -> None:
    artifact = loudness_extractor.run(no_audio_inputs())
    assert (artifact.status, artifact.empty_reason) == ("empty", "audio_missing_or_extract_failed")
    assert len(artifact.arrays["segment_mask"]) == 0
    assert not artifact.arrays["lufs_present"]
    assert schema_problems(loudness_extractor, artifact) == []
    assert all(math.isnan(value) for value in features(artifact).values())


@pytest.mark.parametrize("level", [0.0, 9e-4])
def test_silence_is_empty_but_measured(level: float) -> None:
    signal = np.full((FULL_RATE * 6, 2), level)
    artifact = loudness_extractor.run(audio_inputs(signal))
    assert (artifact.status, artifact.empty_reason) == ("empty", "audio_silent")
    assert schema_problems(loudness_extractor, artifact) == []
    assert len(artifact.arrays["segment_mask"]) == len(uniform_windows(6.0, 2.0, 1.0).mask)
    assert not artifact.arrays["segment_mask"].any()
    assert np.isnan(artifact.arrays["segment_rms_dbfs"]).all()
    got = features(artifact)
    assert (got.pop("silence_ratio"), got.pop("clipping_ratio")) == (1.0, 0.0)
    assert all(math.isnan(value) for value in got.values())


def test_short_audio_measures_what_it_can() -> None:
    artifact = loudness_extractor.run(audio_inputs(tones((1.0, -20))))
    got = features(artifact)
    assert got["lufs_integrated"] == pytest.approx(-20.0, abs=0.1)
    assert math.isnan(got["lufs_short_term_max"])
    assert set(artifact.meta["absent_features"]) == {"lufs_short_term_max", "loudness_range_lu"}


@pytest.mark.parametrize(
    ("change", "kind"), [({"windows": None}, "audio_family"), ({"full": np.zeros((0, 2), np.float32)}, "wav")]
)
def test_missing_inputs_are_typed(change: dict[str, Any], kind: str) -> None:
    inputs = audio_inputs(music(5.0))
    broken = replace(inputs, audio=replace(inputs.need_audio(), **change))
    with pytest.raises(TrendFlowError) as caught:
        loudness_extractor.run(broken)
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("dependency_missing", kind)


def test_a_missing_loudness_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_pyloudnorm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyloudnorm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyloudnorm)
    with pytest.raises(TrendFlowError) as caught:
        loudness_extractor.run(audio_inputs(music(5.0)))
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("dependency_missing", "package")


def test_non_finite_samples_are_refused() -> None:
    signal = music(5.0)
    signal[1000, 0] = np.nan
    with pytest.raises(TrendFlowError, match="not finite") as caught:
        loudness_extractor.run(audio_inputs(signal, mono=np.zeros(22_050 * 5)))
    assert caught.value.error_code == "artifact_validation_failed"
