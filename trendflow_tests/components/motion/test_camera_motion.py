"""The similarity fit and the shake, on synthetic fields in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trendflow.components.visual._camera_motion import GRID, CameraFit, camera_shake, fit_similarity
from trendflow.components.visual._dense_flow import PixelScale

WIDTH, HEIGHT = 320, 180
SCALE = PixelScale(1 / WIDTH, 1 / WIDTH)


def field(zoom: float = 1.0, rotation: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """float32 `[h, w, 2]` of a picture that is enlarged and turned about its centre, then shifted."""
    x, y = np.meshgrid(np.arange(WIDTH) - (WIDTH - 1) / 2, np.arange(HEIGHT) - (HEIGHT - 1) / 2)
    to_x = zoom * (np.cos(rotation) * x - np.sin(rotation) * y) + shift[0]
    to_y = zoom * (np.sin(rotation) * x + np.cos(rotation) * y) + shift[1]
    return np.stack([to_x - x, to_y - y], axis=-1).astype(np.float32)


@given(
    st.floats(0.75, 1.33),
    st.floats(-0.5, 0.5),
    st.tuples(st.floats(-80, 80), st.floats(-80, 80)),
)
def test_a_similarity_is_recovered(zoom: float, rotation: float, shift: tuple[float, float]) -> None:
    found = CameraFit(WIDTH, HEIGHT)(field(zoom, rotation, shift), SCALE)
    assert found.inlier_share == 1
    assert found.scale == pytest.approx(zoom, abs=1e-4)
    assert found.rotation == pytest.approx(rotation, abs=1e-4)
    assert (found.tx * WIDTH, found.ty * WIDTH) == pytest.approx(shift, abs=1e-2)


@pytest.mark.parametrize("outliers", [0.3, 0.5, 0.7])
def test_outliers_and_noise_change_little(outliers: float) -> None:
    """Of the pixels, that share moves at random; the others obey a zoom and a pan up to noise of 0.2 px."""
    rng = np.random.default_rng(7)
    flow = field(1.05, 0.02, (6.0, -3.0)) + rng.normal(0, 0.2, (HEIGHT, WIDTH, 2)).astype(np.float32)
    block = np.repeat(np.repeat(rng.random((18, 32)) < outliers, 10, axis=0), 10, axis=1)
    flow[block] = rng.uniform(-60, 60, (int(block.sum()), 2))
    found = CameraFit(WIDTH, HEIGHT)(flow, SCALE)
    assert found.inlier_share == pytest.approx(1 - outliers, abs=0.06)
    assert np.log(found.scale) == pytest.approx(np.log(1.05), rel=0.03)
    assert found.rotation == pytest.approx(0.02, rel=0.05)
    assert (found.tx * WIDTH, found.ty * WIDTH) == pytest.approx((6.0, -3.0), abs=0.1)


def test_scales_of_the_axes_turn_pixels_into_lengths() -> None:
    found = CameraFit(WIDTH, HEIGHT)(field(shift=(8.0, 5.0)), PixelScale(0.002, 0.003))
    assert (found.tx, found.ty) == pytest.approx((0.016, 0.015))


def test_noise_has_no_camera() -> None:
    flow = np.random.default_rng(3).uniform(-30, 30, (HEIGHT, WIDTH, 2)).astype(np.float32)
    found = CameraFit(WIDTH, HEIGHT)(flow, SCALE)
    assert found.inlier_share < 0.25
    assert np.isnan([found.scale, found.rotation, found.tx, found.ty]).all()


def test_a_collapse_to_one_point_is_no_similarity() -> None:
    """Every vector points to the centre: the scale would be 0 and its logarithm −∞."""
    found = CameraFit(WIDTH, HEIGHT)(field(zoom=0.0), SCALE)
    assert found.inlier_share == 0
    assert np.isnan(found.scale)


def test_the_larger_of_two_motions_wins() -> None:
    flow = field(shift=(10.0, 0.0))
    flow[:, :200] = field(shift=(-4.0, 2.0))[:, :200]
    found = CameraFit(WIDTH, HEIGHT)(flow, SCALE)
    assert (found.tx * WIDTH, found.ty * WIDTH) == pytest.approx((-4.0, 2.0), abs=1e-2)
    assert found.inlier_share == pytest.approx(200 / 320, abs=1 / GRID)


@given(hnp.arrays(np.float64, (GRID * GRID, 2), elements=st.floats(-1e3, 1e3)))
def test_any_field_gives_a_share_and_a_finite_similarity(vectors: np.ndarray) -> None:
    x, y = np.meshgrid(np.arange(GRID) * 10.0, np.arange(GRID) * 5.0)
    start = (x + 1j * y).ravel()
    a, b, share = fit_similarity(start, start + vectors[:, 0] + 1j * vectors[:, 1], 1.0)
    assert 0 <= share <= 1
    assert np.isfinite([a, b]).all()


def test_shake_in_closed_form() -> None:
    """A steady pan with one jolt; unknown rows neither have a value nor count."""
    nan = np.nan
    tx = np.array([nan, 0.2, 0.2, 0.5, 0.2, 0.2, nan, nan, nan, 0.1, 0.1])
    shake = camera_shake(np.stack([tx, np.where(np.isnan(tx), nan, 0.0)], axis=1))
    expected = [nan, 0.0, 0.0, 0.3, 0.0, 0.0, nan, nan, nan, nan, nan]
    np.testing.assert_allclose(shake, expected, atol=1e-12)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-5, 5)))
def test_shake_ignores_a_common_motion(translation: np.ndarray) -> None:
    steady = camera_shake(translation)
    np.testing.assert_allclose(camera_shake(translation + np.array([3.0, -2.0])), steady, atol=1e-9)
    assert np.isnan(steady).all() == (len(translation) < 3)
