from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.audio_windows import (
    FAMILIES,
    AudioAxis,
    CountCurve,
    build_windows,
    sliding_windows,
    uniform_centres,
)

RATE = 22050


def axis_of(duration: float, audio_end: float | None = None, start: float = 0.0, primary: bool = True) -> AudioAxis:
    end = duration if audio_end is None else audio_end
    union = np.arange(0.0, duration, 0.2)
    total = max(1, round(end * RATE))
    return AudioAxis(duration, start, total / RATE, RATE, total, union[::2] if primary else None, union)


@given(st.floats(1.0, 1300.0), st.floats(-3.0, 3.0), st.floats(0.0, 2.0), st.booleans())
@example(1.0, 0.0, 0.0001, False)  # windows that begin a few samples before the audio are outside
@example(1.0, 0.0, 0.4 / RATE, False)  # nothing can begin between two samples
def test_every_window_is_inside_the_audio_or_masked(duration: float, drift: float, start: float, primary: bool) -> None:
    """A window within the audio is usable, one that leaves it by a whole sample is not.

    Between the two the ends of the audio, which are themselves rounded to samples, leave the answer open.
    """
    axis = axis_of(duration, max(start + 0.1, duration + drift), start, primary)
    for found in build_windows(list(FAMILIES), axis):
        margin = np.minimum(found.start_sec - start, axis.audio_end_sec - found.end_sec)
        assert np.all(found.mask[margin >= 0])
        assert not np.any(found.mask[margin < -1 / RATE])
        assert np.all(found.start_sec < found.end_sec)
        assert np.all(found.start_sample < found.end_sample)
        assert np.all(found.end_sample <= axis.total_samples)
        assert np.all(found.start_sample >= 0)
        for samples, seconds in ((found.start_sample, found.start_sec), (found.end_sample, found.end_sec)):
            # The nearest sample; exactly between two of them either is.
            assert np.all(np.abs(samples - seconds * RATE)[margin >= 0] <= 0.5 + 1e-6)
        assert np.all(np.diff(found.center_sec) >= 0)


@pytest.mark.parametrize("duration", [6.0, 7.5, 12.0, 40.0])
def test_audio_that_begins_late_and_ends_early_loses_no_window(duration: float) -> None:
    """Encoders delay audio by some milliseconds: that must cost neither the first window nor, in short videos, all."""
    axis = axis_of(duration, duration - 0.010, 0.009)
    for found in build_windows(["tempo", "clap", "spectral", "asr", "diarization"], axis):
        assert found.mask.all(), found.family
        assert found.start_sec[0] == pytest.approx(0.009, abs=0.2)  # the union has a time every 0.2 s


@pytest.mark.parametrize(
    ("duration", "expected"), [(1.0, 5), (5.4, 5), (30.0, 30), (60.0, 60), (1200.0, 250), (5000.0, 250)]
)
def test_spectral_window_counts(duration: float, expected: int) -> None:
    (found,) = build_windows(["spectral"], axis_of(duration))
    assert len(found) == (1 if duration < 2.0 else expected)


def test_the_count_curve_between_its_ends() -> None:
    curve = CountCurve(0.75, 5, 250, 60.0, 1200.0)
    x = (630.0 - 60.0) / (1200.0 - 60.0)
    assert curve.count(630.0) == math.floor(60 + 190 * (1 - (1 - x) ** 0.75) + 0.5)
    counts = [curve.count(d) for d in range(1, 1300)]
    assert counts == sorted(counts)


def test_primary_windows_are_centred_on_the_frames() -> None:
    axis = axis_of(20.0)
    (found,) = build_windows(["primary"], axis)
    assert np.array_equal(found.center_sec, axis.primary_times)
    assert np.allclose(found.end_sec - found.start_sec, 2.0)
    assert not found.mask[0]  # the window around the first frame begins before the audio
    assert found.mask[len(found) // 2]


def test_primary_windows_without_a_primary_group_use_at_most_120_union_times() -> None:
    axis = axis_of(100.0, primary=False)
    (found,) = build_windows(["primary"], axis)
    assert len(found) == 120
    assert set(found.center_sec) <= set(axis.union_times)
    assert (found.center_sec[0], found.center_sec[-1]) == (axis.union_times[0], axis.union_times[-1])


def test_clap_windows_are_snapped_to_union_times() -> None:
    axis = axis_of(30.0)
    (found,) = build_windows(["clap"], axis)
    assert len(found) == 30
    assert set(found.center_sec) <= set(axis.union_times)


@pytest.mark.parametrize(
    ("duration", "window", "stride"),
    [(5.0, 5.0, 1.0), (1.0, 2.0, 0.5), (8.0, 8.0, 1.0), (20.0, 12.0, 1.0), (30.0, 15.0, 1.0), (1200.0, 15.0, 2.4)],
)
def test_tempo_windows_follow_the_duration(duration: float, window: float, stride: float) -> None:
    (found,) = build_windows(["tempo"], axis_of(duration))
    assert found.window_sec == pytest.approx(window)
    assert found.stride_sec == pytest.approx(stride)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (10.0, [(0, 4), (2, 6), (4, 8), (6, 10), (8, 10)]),  # the last one covers exactly half
        (9.9, [(0, 4), (2, 6), (4, 8), (6, 9.9)]),
        (3.0, [(0, 3)]),  # audio shorter than the window
        (0.5, [(0, 0.5)]),
    ],
)
def test_sliding_windows_keep_a_last_partial_window_of_half_the_length(
    duration: float, expected: list[tuple[float, float]]
) -> None:
    starts, ends = sliding_windows(duration, 4.0, 2.0)
    assert starts == pytest.approx([start for start, _ in expected])
    assert ends == pytest.approx([end for _, end in expected])


def test_uniform_centres_touch_both_ends() -> None:
    assert uniform_centres(10.0, 2.0, 5) == pytest.approx([1.0, 3.0, 5.0, 7.0, 9.0])
    assert uniform_centres(10.0, 2.0, 1) == pytest.approx([5.0])


def test_speech_windows_depend_on_the_mode() -> None:
    axis = axis_of(100.0)
    (semantic,) = build_windows(["asr"], axis)
    (proxy,) = build_windows(["asr"], axis, asr_mode="proxy", asr_max_windows=7)
    assert (semantic.window_sec, semantic.stride_sec) == (30.0, 25.0)
    assert (proxy.window_sec, proxy.stride_sec, len(proxy)) == (10.0, 5.0, 7)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(TrendFlowError, match="config_invalid"):
        build_windows(["laughter"], axis_of(10.0))


def test_the_document_form_numbers_its_segments() -> None:
    (found,) = build_windows(["diarization"], axis_of(6.0))
    document: dict[str, Any] = found.as_dict()
    assert [row["index"] for row in document["segments"]] == [0, 1, 2]
    assert document["stride_sec"] == 2.0
