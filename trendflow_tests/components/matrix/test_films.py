"""That the films of the matrix are what they are called: an extreme input that is none would prove nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from trendflow_tests.components.matrix.films import FILMS, make_film
from trendflow_tests.components.matrix.screening import RandomModels, Screen, Screening, screen

NAMES = [pytest.param(name, marks=pytest.mark.xdist_group(f"matrix-{name}")) for name in FILMS]


class Facts(NamedTuple):
    seconds: float = 5.0
    source_frames: int = 25
    samples: int = 12
    width: int = 148
    height: int = 114
    channels: int = 1


FACTS = dict.fromkeys(FILMS, Facts()) | {
    "ordinary": Facts(8.307, 249, 33, 568, 320, 2),
    "twenty_minutes": Facts(1200.0, 1200, 60, 64, 36),
    "one_frame": Facts(0.04, 1, 1),
    "two_frames": Facts(source_frames=2, samples=2),
    "one_sample": Facts(samples=1),
    "portrait": Facts(width=90, height=160),
    "four_by_two_pixels": Facts(width=4, height=2),
    "neither_sound_nor_text": Facts(channels=0),
}


def _luma(shown: Screening) -> np.ndarray:
    return shown.arrays("segmenter", "dense_signals")["luma_mean"]


def _sound(shown: Screening) -> np.ndarray:
    return shown.inputs("loudness_extractor").need_audio().full


def _share_above(shown: Screening, hertz: float) -> float:
    audio = shown.inputs("loudness_extractor").need_audio()
    power = np.abs(np.fft.rfft(audio.full[:, 0])) ** 2
    return float(power[np.fft.rfftfreq(len(audio.full), 1 / audio.full_rate) > hertz].sum() / power.sum())


EXTREMES: dict[str, Callable[[Screening], bool]] = {
    "black": lambda shown: bool((_luma(shown) == 0).all()),
    "white": lambda shown: bool((_luma(shown) == 1).all()),
    "still": lambda shown: not shown.arrays("segmenter", "dense_signals")["lowres_mad"][1:].any(),
    "variable_rate": lambda shown: shown.feature("segmenter", "is_vfr") == 1,
    "digital_silence": lambda shown: len(_sound(shown)) == 240000 and not _sound(shown).any(),
    "hard_clipping": lambda shown: float(np.mean(np.abs(_sound(shown)) > 0.999)) > 0.9,
    "mono_8_khz": lambda shown: _share_above(shown, 4000.0) < 1e-3,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_film_is_what_it_is_called(screening: Screen, name: str) -> None:
    shown = screening(name)
    dense, union = shown.arrays("segmenter", "dense_signals"), shown.arrays("segmenter")["union_timestamps_sec"]
    width, height = (int(shown.feature("segmenter", f"analysis_{side}")) for side in ("width", "height"))
    seconds = shown.run.manifest()["run"]["source"]["duration_sec"]
    channels = int(shown.feature("segmenter", "audio_channels"))
    facts = Facts(round(seconds, 3), len(dense["pts_sec"]), len(union), width, height, channels)
    assert facts == FACTS[name]
    assert EXTREMES.get(name, lambda shown: True)(shown)


def test_the_product_takes_no_video_of_one_frame(tmp_path: Path, sample_video: Path, models: RandomModels) -> None:
    film = dataclasses.replace(make_film("one_frame", sample_video, tmp_path), min_duration_sec=5.0)
    meta = screen("one_frame", film, tmp_path, models).meta("segmenter")
    assert (meta["status"], meta["error_code"]) == ("error", "input_constraint_violated")
