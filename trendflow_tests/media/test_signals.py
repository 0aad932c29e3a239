from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trendflow.media.hsv_histogram import HISTOGRAM_BINS, hsv_histogram
from trendflow.media.signals import DenseSignals, thumbnail

SHAPE = (3, 54, 96)
small_rasters = arrays(np.uint8, (3, 4, 5))
colours = st.tuples(*[st.integers(0, 255)] * 3)


def textbook_histogram(planes: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel, with the standard library's HSV."""
    nodes = np.zeros((4, 4, 16))
    for red, green, blue in planes.reshape(3, -1).T / 255.0:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        for axis_v in (0, 1):
            for axis_s in (0, 1):
                for axis_h in (0, 1):
                    share, index = 1.0, []
                    for position, upper, top in (
                        (value * 3, axis_v, 3),
                        (saturation * 3, axis_s, 3),
                        (hue * 16, axis_h, 16),
                    ):
                        low = min(int(position), top - 1)
                        share *= position - low if upper else 1 - (position - low)
                        index.append(low + upper)
                    nodes[index[0], index[1], index[2] % 16] += share
    bins = [nodes[0].sum(), *(nodes[v, 0].sum() for v in (1, 2, 3)), *nodes[1:, 1:].ravel()]
    return np.array(bins) / planes[0].size


@settings(max_examples=100)
@given(small_rasters)
def test_a_histogram_equals_the_definition(planes: np.ndarray) -> None:
    found = hsv_histogram(planes)
    assert found.shape == (HISTOGRAM_BINS,)
    assert found == pytest.approx(textbook_histogram(planes), abs=1e-12)


def uniform(colour: tuple[float, ...]) -> np.ndarray:
    return np.broadcast_to(np.round(np.array(colour)).astype(np.uint8)[:, None, None], SHAPE).copy()


def measure(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    dense = DenseSignals()
    for frame in frames:
        dense.add(frame)
    return dense.finish()


@given(st.lists(colours, min_size=2, max_size=12))
def test_signals_are_symmetric_bounded_and_zero_for_repetition(sequence: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(len(sequence))
    frames = [np.clip(uniform(c).astype(int) + rng.integers(-20, 20, SHAPE), 0, 255).astype(np.uint8) for c in sequence]
    forward, backward = measure(frames), measure(frames[::-1])
    for name in ("hist_l1", "lowres_mad"):
        assert np.isnan(forward[name][0])
        assert np.all((forward[name][1:] >= 0) & (forward[name][1:] <= 1))
        assert forward[name][1:] == pytest.approx(backward[name][:0:-1], abs=1e-7)
        repeated = measure([frame for frame in frames for _ in range(2)])[name]
        assert np.all(repeated[1::2] == 0)
    assert np.all((forward["luma_mean"] >= 0) & (forward["luma_mean"] <= 1))


def test_luma_and_difference_in_closed_form() -> None:
    found = measure([uniform((255, 0, 0)), uniform((0, 255, 0)), uniform((0, 0, 255)), uniform((255, 255, 255))])
    assert found["luma_mean"] == pytest.approx([0.2126, 0.7152, 0.0722, 1.0], abs=1e-6)
    assert found["lowres_mad"][1:] == pytest.approx([2 / 3, 2 / 3, 2 / 3])


BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)
PURE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0)]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (BLACK, WHITE), (BLACK, GREY), (GREY, WHITE), *((BLACK, c) for c in PURE), *((WHITE, c) for c in PURE),
        (BLACK, (224, 172, 140)), ((20, 30, 80), (135, 190, 235)),
    ],
)  # fmt: skip
def test_a_slow_fade_never_looks_like_a_cut(start: tuple[int, int, int], end: tuple[int, int, int]) -> None:
    """40 frames between two uniform colours: no step above 0.15."""
    fade = [uniform(tuple(a + (b - a) * k / 39 for a, b in zip(start, end, strict=True))) for k in range(40)]
    assert np.nanmax(measure(fade)["hist_l1"]) <= 0.15


def test_a_change_of_colour_is_a_full_step() -> None:
    assert measure([uniform((255, 0, 0)), uniform((0, 255, 255))])["hist_l1"][1] == pytest.approx(1.0)


def test_noise_on_grey_has_no_hue() -> None:
    rng = np.random.default_rng(7)
    frames = [np.clip(128 + rng.normal(0, 2, SHAPE), 0, 255).astype(np.uint8) for _ in range(10)]
    assert np.nanmax(measure(frames)["hist_l1"]) < 0.02


def test_a_thumbnail_averages_quads() -> None:
    rng = np.random.default_rng(5)
    raster = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    found = thumbnail(raster)
    assert found.shape == (27, 48, 3)
    exact = raster.astype(float).reshape(3, 27, 2, 48, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(found - exact).max() <= 0.5
