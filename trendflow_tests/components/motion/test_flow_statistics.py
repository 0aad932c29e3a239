"""Statistics of flow fields in closed form. All fields are synthetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trendflow.components.visual._dense_flow import PixelScale
from trendflow.components.visual._flow_statistics import consistency, flow_statistics, magnitude_map

HEIGHT, WIDTH = 60, 100
SCALE = PixelScale(0.01, 0.01)


def constant(dx: float, dy: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 2), (dx, dy), dtype=np.float32)


def test_a_constant_field() -> None:
    found = flow_statistics(constant(3.0, -4.0), constant(-3.0, 4.0), PixelScale(0.01, 0.02))
    assert (found.dx_mean, found.dy_mean) == pytest.approx((0.03, -0.08))
    length = np.hypot(0.03, 0.08)
    assert (found.magnitude_mean, found.magnitude_p95) == pytest.approx((length, length))
    assert found.magnitude_std == pytest.approx(0, abs=1e-6)
    assert (found.dir_cos, found.dir_sin) == pytest.approx((0.03 / length, -0.08 / length), abs=1e-5)
    assert found.dir_dispersion == pytest.approx(0, abs=1e-5)
    assert found.divergence_abs_mean == 0
    # Three columns leave on the right, four rows at the top; the rest is undone.
    assert found.consistency == pytest.approx((WIDTH - 3) * (HEIGHT - 4) / (WIDTH * HEIGHT))


def test_direction_is_weighted_by_magnitude() -> None:
    """One half moves right by 6 px, the other down by 2 px."""
    flow = constant(6.0, 0.0)
    flow[30:] = (0.0, 2.0)
    found = flow_statistics(flow, -flow, SCALE)
    assert (found.dir_cos, found.dir_sin) == pytest.approx((0.75, 0.25))
    assert found.dir_dispersion == pytest.approx(1 - np.hypot(0.75, 0.25))


@pytest.mark.parametrize(("moving_rows", "known"), [(0, False), (1, True)])
def test_direction_needs_pixels_that_move(moving_rows: int, known: bool) -> None:
    """Half a pixel counts as motion, anything less does not; one row of sixty is more than 1 %."""
    flow = constant(0.49, 0.0)
    flow[:moving_rows] = (0.0, 0.5)
    found = flow_statistics(flow, -flow, SCALE)
    if known:
        assert (found.dir_cos, found.dir_sin) == (0.0, 1.0)
    else:
        assert np.isnan([found.dir_cos, found.dir_sin, found.dir_dispersion]).all()


def test_divergence_of_an_expansion() -> None:
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    flow = np.stack([0.03 * x, 0.05 * y], axis=-1).astype(np.float32)
    assert flow_statistics(flow, -flow, SCALE).divergence_abs_mean == pytest.approx(0.08, rel=1e-4)
    turning = np.stack([-0.1 * y, 0.1 * x], axis=-1).astype(np.float32)
    assert flow_statistics(turning, -turning, SCALE).divergence_abs_mean == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("length", "error", "consistent"), [(0.0, 0.9, True), (0.0, 1.1, False), (20.0, 1.9, True), (20.0, 2.1, False)]
)
def test_tolerance_is_a_pixel_or_a_tenth(length: float, error: float, consistent: bool) -> None:
    share = consistency(constant(length, 0.0), constant(-length, error))
    assert share == pytest.approx((1 - length / WIDTH) if consistent else 0.0)


def test_the_backward_vector_is_read_where_the_forward_vector_points() -> None:
    """The left half moves 10 px to the right; the backward field knows that only there, where it arrives."""
    forward, backward = constant(0.0, 0.0), constant(0.0, 0.0)
    forward[:, :40] = (10.0, 0.0)
    backward[:, 10:50] = (-10.0, 0.0)
    # Columns 40–49 stand still but are covered by what moved.
    assert consistency(forward, backward) == pytest.approx(0.9)


@given(hnp.arrays(np.float32, (7, 9, 2), elements=st.floats(-50, 50, width=32)))
def test_any_field_has_statistics_in_range(flow: np.ndarray) -> None:
    found = flow_statistics(flow, -flow, SCALE)
    assert 0 <= found.consistency <= 1
    assert found.magnitude_mean >= np.hypot(found.dx_mean, found.dy_mean) - 1e-5
    assert np.isnan(found.dir_dispersion) or 0 <= found.dir_dispersion <= 1
    assert np.isfinite([found.magnitude_std, found.magnitude_p95, found.divergence_abs_mean]).all()


def test_a_single_row_of_pixels_has_no_vertical_divergence() -> None:
    flow = constant(1.0, 1.0)[:1, :1]
    assert flow_statistics(flow, -flow, SCALE).divergence_abs_mean == 0


def test_the_map_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 3, (128, 192, 2)).astype(np.float32)
    found = magnitude_map(flow, SCALE, 64)
    assert found.shape == (64, 64)
    assert found.mean() == pytest.approx(0.01 * np.hypot(flow[..., 0], flow[..., 1]).mean(), rel=1e-4)
