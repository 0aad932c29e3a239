"""Quality measures of one frame against closed forms and independent formulas."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve2d

from trendflow.components.visual._flicker import flicker
from trendflow.components.visual._frame_quality import FACE_MEASURES, FRAME_MEASURES, measure, noise_sigma
from trendflow_tests.components.visual.clips import Clip

NAMES = (*FRAME_MEASURES, *FACE_MEASURES)


def quality(frame: np.ndarray, face: tuple[int, int, int, int] | None = None) -> dict[str, float]:
    return dict(zip(NAMES, measure(frame, face).tolist(), strict=True))


def grey(values: np.ndarray | int, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Grey values as an RGB frame."""
    plane = np.broadcast_to(np.asarray(values), shape).astype(np.uint8)
    return np.repeat(plane[..., None], 3, axis=2)


def coloured(*colours: tuple[int, int, int], height: int = 40, stripe: int = 12) -> np.ndarray:
    """Vertical stripes of equal width."""
    row = np.repeat(np.array(colours, dtype=np.uint8), stripe, axis=0)
    return np.repeat(row[None], height, axis=0)


def test_blur_lowers_both_sharpness_measures(hello: Clip) -> None:
    rng = np.random.default_rng(1)
    texture = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    for frame in (texture, hello.frames[3]):
        blurred = [frame] + [cv2.GaussianBlur(frame, (0, 0), sigma) for sigma in (0.6, 1.0, 2.0, 4.0)]
        for name in ("sharpness_tenengrad_log", "sharpness_laplacian_log"):
            values = [quality(one)[name] for one in blurred]
            assert (np.diff(values) < 0).all(), (name, values)


def test_sharpness_of_a_ramp_is_closed_form() -> None:
    """One grey level per column. Sobel gives 8 slopes inside and, by reflection, 0 in the first and last column.

    The Laplacian is 0 inside and ±2 slopes in these two columns.
    """
    slope, width = 1 / 255, 200
    found = quality(grey(np.arange(width), (50, width)))
    energy = (8 * slope) ** 2 * (width - 2) / width
    assert found["sharpness_tenengrad_log"] == pytest.approx(np.log10(1e-8 + energy), abs=1e-5)
    variance = (2 * slope) ** 2 * 2 / width
    assert found["sharpness_laplacian_log"] == pytest.approx(np.log10(1e-8 + variance), abs=1e-5)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_frame_has_the_floor_of_sharpness_and_no_noise(value: int) -> None:
    found = quality(grey(value))
    assert found["sharpness_tenengrad_log"] == pytest.approx(-8, abs=1e-3)
    assert found["sharpness_laplacian_log"] == pytest.approx(-8, abs=1e-3)
    assert found["noise_sigma"] == pytest.approx(0, abs=1e-4)
    assert found["luma_mean"] == pytest.approx(value / 255, abs=1e-6)
    assert found["luma_contrast"] == pytest.approx(0, abs=1e-5)
    assert found["letterbox_frac"] == (1.0 if value == 0 else 0.0)
    assert np.isnan([found["hue_entropy"], found["face_luma_mean"], found["face_sharpness_log"]]).all()


def test_half_black_half_white() -> None:
    found = quality(grey(np.where(np.arange(160) < 40, 0, 255)))
    assert found["luma_mean"] == pytest.approx(0.75)
    assert found["luma_contrast"] == pytest.approx(np.sqrt(0.25 * 0.75))
    assert (found["underexposure_ratio"], found["overexposure_ratio"]) == (0.25, 0.75)
    assert found["letterbox_frac"] == 0.25


@pytest.mark.parametrize(
    ("value", "under", "over"), [(15, 1, 0), (16, 1, 0), (17, 0, 0), (234, 0, 0), (235, 0, 1), (236, 0, 1)]
)
def test_limits_of_exposure_belong_to_the_extremes(value: int, under: int, over: int) -> None:
    found = quality(grey(value))
    assert (found["underexposure_ratio"], found["overexposure_ratio"]) == (under, over)


def test_contrast_of_a_gradient_is_that_of_a_uniform_distribution() -> None:
    found = quality(grey(np.arange(256), (32, 256)))
    assert found["luma_mean"] == pytest.approx(127.5 / 255)
    assert found["luma_contrast"] == pytest.approx(np.sqrt((256**2 - 1) / 12) / 255, rel=1e-5)
    assert found["underexposure_ratio"] == 17 / 256
    assert found["overexposure_ratio"] == 21 / 256


def test_gain_raises_overexposure(hello: Clip) -> None:
    frame = hello.frames[0].astype(float)
    ratios = [quality(np.clip(frame * gain, 0, 255).astype(np.uint8))["overexposure_ratio"] for gain in (0.5, 1, 2, 4)]
    assert (np.diff(ratios) > 0).all()
    assert ratios[0] == 0
    assert quality(grey(128))["overexposure_ratio"] == 0


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_the_sigma_of_added_noise_is_recovered(sigma: float) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:240, 0:320]
    scene = 120 + 40 * np.sin(x / 40) + 30 * np.cos(y / 25) + 10 * (x > 160)
    noisy = np.clip(np.round(scene + rng.normal(0, sigma, scene.shape)), 0, 255)
    assert quality(grey(noisy, scene.shape))["noise_sigma"] == pytest.approx(sigma, rel=0.15)
    assert quality(grey(np.round(scene), scene.shape))["noise_sigma"] < 0.5


def test_noise_is_that_of_a_decimated_wavelet_transform() -> None:
    """Diagonal details of the Daubechies-2 transform with the published filter coefficients."""
    low = np.array([0.48296291314469025, 0.836516303737469, 0.22414386804185735, -0.12940952255092145])
    high = low[::-1] * [1, -1, 1, -1]
    luma = np.random.default_rng(4).random((37, 52)).astype(np.float32)
    diagonal = convolve2d(luma, np.outer(high, high)[::-1, ::-1], mode="valid")[::2, ::2]
    assert noise_sigma(luma) == pytest.approx(np.median(np.abs(diagonal)) / 0.6745 * 255, rel=1e-4)


def test_noise_needs_the_support_of_the_wavelet() -> None:
    assert np.isnan(noise_sigma(np.zeros((3, 50), np.float32)))


def test_colorfulness_after_hasler_and_suesstrunk(hello: Clip) -> None:
    rng = np.random.default_rng(5)
    for frame in (rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), hello.frames[0]):
        red, green, blue = (frame[..., c].astype(np.float64) for c in range(3))
        rg, yb = red - green, 0.5 * (red + green) - blue
        expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
        assert quality(frame)["colorfulness"] == pytest.approx(expected, rel=1e-4)
    assert quality(grey(90))["colorfulness"] == pytest.approx(0, abs=1e-3)


def test_saturation_and_hue_against_the_standard_library() -> None:
    frame = np.random.default_rng(6).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    hsv = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in frame.reshape(-1, 3)])
    found = quality(frame)
    assert found["saturation_mean"] == pytest.approx(hsv[:, 1].mean(), abs=1e-6)
    weights = np.bincount(np.round(hsv[:, 0] * 12).astype(int) % 12, hsv[:, 1] * hsv[:, 2])
    shares = weights / weights.sum()
    # Hue is taken in whole steps of 2 degrees, so a few pixels at the edges of bins change sides.
    assert found["hue_entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(12), abs=0.005)


def test_hue_entropy_counts_hues_by_their_chroma() -> None:
    pure = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(k / 12, 1, 1)) for k in range(12)]
    assert quality(coloured(*pure))["hue_entropy"] == pytest.approx(1, abs=1e-6)
    assert quality(coloured((200, 0, 0)))["hue_entropy"] == 0
    assert quality(coloured((255, 0, 0), (0, 255, 0)))["hue_entropy"] == pytest.approx(np.log(2) / np.log(12))
    # Bins are centred on the pure colours: reds on both sides of 0 degrees are one hue, 10 and 20 degrees are two.
    reds = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(degrees / 360, 1, 1)) for degrees in (350, 10, 20)]
    assert quality(coloured(*reds[:2]))["hue_entropy"] == 0
    assert quality(coloured(*reds[1:]))["hue_entropy"] == pytest.approx(np.log(2) / np.log(12))
    # Half the chroma counts half: shares 2/3 and 1/3.
    mixed = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(12)
    assert quality(coloured((200, 0, 0), (0, 100, 0)))["hue_entropy"] == pytest.approx(mixed)
    # A trace of colour below 1 % is no hue.
    assert np.isnan(quality(coloured((100, 100, 102)))["hue_entropy"])
    assert quality(coloured((100, 100, 103)))["hue_entropy"] == 0


def test_warm_cool_balance_spans_red_to_blue() -> None:
    balance = [quality(coloured(colour))["warm_cool_balance"] for colour in ((255, 0, 0), (90, 90, 90), (0, 0, 255))]
    assert balance == [1, 0, -1]


def test_letterbox_is_the_share_of_the_frame_behind_the_bars() -> None:
    picture = np.full((100, 160), 120)
    bars = picture.copy()
    bars[:12], bars[-8:] = 0, 16
    assert quality(grey(bars, bars.shape))["letterbox_frac"] == pytest.approx(0.20)
    pillars = picture.copy()
    pillars[:, :40] = 10
    assert quality(grey(pillars, pillars.shape))["letterbox_frac"] == pytest.approx(0.25)
    both = bars.copy()
    both[:, :40] = 0
    assert quality(grey(both, both.shape))["letterbox_frac"] == pytest.approx(1 - 0.80 * 0.75)
    # A black line inside the picture is no bar, and one bright pixel ends a bar.
    inside = picture.copy()
    inside[50] = 0
    assert quality(grey(inside, inside.shape))["letterbox_frac"] == 0
    subtitle = bars.copy()
    subtitle[4, 80] = 255
    assert quality(grey(subtitle, subtitle.shape))["letterbox_frac"] == pytest.approx((4 + 8) / 100)


def test_a_face_is_measured_inside_its_box() -> None:
    rng = np.random.default_rng(7)
    plane = np.full((100, 120), 40)
    plane[20:60, 30:70] = rng.integers(0, 256, (40, 40))
    frame = grey(plane, plane.shape)
    sharp, flat = quality(frame, (30, 20, 70, 60)), quality(frame, (80, 70, 120, 100))
    assert sharp["face_luma_mean"] == pytest.approx(plane[20:60, 30:70].mean() / 255, rel=1e-6)
    assert flat["face_luma_mean"] == pytest.approx(40 / 255)
    assert flat["face_sharpness_log"] == pytest.approx(-8, abs=1e-3)
    assert sharp["face_sharpness_log"] > sharp["sharpness_tenengrad_log"]
    whole = quality(frame, (0, 0, 120, 100))
    assert whole["face_sharpness_log"] == pytest.approx(whole["sharpness_tenengrad_log"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.sampled_from([0, 3, 60, 255]))
def test_any_frame_gives_values_in_range(seed: int, height: int, width: int, spread: int) -> None:
    frame = np.random.default_rng(seed).integers(0, spread + 1, (height, width, 3)).astype(np.uint8)
    found = quality(frame)
    assert not np.isinf(list(found.values())).any()
    for name in ("luma_mean", "underexposure_ratio", "overexposure_ratio", "saturation_mean", "letterbox_frac"):
        assert 0 <= found[name] <= 1, name
    assert found["luma_contrast"] <= 0.5 + 1e-6
    assert -1 <= found["warm_cool_balance"] <= 1
    assert np.isnan(found["hue_entropy"]) or 0 <= found["hue_entropy"] <= 1 + 1e-9


FPS = 60.0


def flicker_at(luma: np.ndarray, moments: list[float], starts: tuple[int, ...] = (0,)) -> np.ndarray:
    time_s = np.arange(len(luma)) / FPS
    shots = np.searchsorted(time_s[list(starts)], moments, side="right") - 1
    usable = np.ones(len(luma), dtype=bool)
    return flicker(time_s, luma, usable, np.array(starts), np.array(moments), shots, mean_s=0.2, reach_s=0.5)


def test_flicker_of_a_sinusoid_is_closed_form() -> None:
    """10 Hz at 60 frames/s: the 13-frame mean keeps 1/13 of it, and ±0.5 s hold ten periods and one frame."""
    amplitude = 0.1
    t = np.arange(600) / FPS
    luma = 0.5 + amplitude * np.sin(2 * np.pi * 10 * t)
    found = flicker_at(luma, [3.0, 5.0])
    residual = amplitude * 12 / 13 * np.sin(2 * np.pi * np.arange(-30, 31) / 6)
    np.testing.assert_allclose(found, residual.std(), rtol=1e-9)
    np.testing.assert_allclose(found, amplitude * 12 / 13 / np.sqrt(2), rtol=0.02)


def test_slow_changes_are_no_flicker() -> None:
    t = np.arange(600) / FPS
    assert flicker_at(np.full(600, 0.3), [0.0, 5.0, 9.98]).max() < 1e-12
    assert flicker_at(0.05 * t, [5.0])[0] < 1e-12
    slow = flicker_at(0.5 + 0.1 * np.sin(2 * np.pi * 0.5 * t), [5.0])[0]
    assert slow < 0.1 * flicker_at(0.5 + 0.1 * np.sin(2 * np.pi * 10 * t), [5.0])[0]


def test_a_cut_is_no_flicker() -> None:
    luma = np.where(np.arange(600) < 300, 0.2, 0.8)
    moments = [4.8, 4.999, 5.0, 5.2]
    assert flicker_at(luma, moments, starts=(0, 300)).max() < 1e-12
    assert flicker_at(luma, moments)[1] > 0.03


def test_flicker_leaves_out_damaged_frames_and_needs_two() -> None:
    time_s, luma = np.arange(120) / FPS, np.full(120, 0.5)
    luma[60] = 0.0
    usable = np.arange(120) != 60
    args = (np.array([0]), np.array([1.0]), np.array([0]))
    assert flicker(time_s, luma, usable, *args, mean_s=0.2, reach_s=0.5)[0] < 1e-12
    alone = np.arange(120) == 60
    assert np.isnan(flicker(time_s, luma, alone, *args, mean_s=0.2, reach_s=0.5)[0])
