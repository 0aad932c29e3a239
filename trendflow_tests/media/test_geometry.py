from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.geometry import Orientation, analysis_geometry, display_size, orientation_from_matrix


@pytest.mark.parametrize(
    ("display", "expected"),
    [
        ((1920, 1080), (568, 320)),
        ((1080, 1920), (320, 568)),
        ((854, 480), (570, 320)),
        ((3840, 2160), (568, 320)),
        ((224, 126), (224, 126)),  # never upscaled
        ((321, 240), (320, 240)),  # an odd width becomes even without growing
        ((201, 400), (200, 398)),
        ((480, 271), (480, 271)),  # an odd height is allowed
        ((50, 50), (50, 50)),
    ],
)
def test_analysis_sizes(display: tuple[int, int], expected: tuple[int, int]) -> None:
    found = analysis_geometry(*display)
    assert (found.analysis_width, found.analysis_height) == expected


@given(st.integers(16, 8000), st.integers(16, 8000), st.integers(16, 400))
def test_the_analysis_size_keeps_the_aspect_and_never_grows(width: int, height: int, side: int) -> None:
    found = analysis_geometry(width, height, short_side=side)
    assert found.analysis_width % 2 == 0
    assert found.analysis_width <= width
    assert found.analysis_height <= height
    assert min(found.analysis_width, found.analysis_height) <= side
    if width <= height:  # the longer side is within one pixel of the exact aspect
        assert abs(found.analysis_height - found.analysis_width * height / width) <= 1
    else:
        assert abs(found.analysis_width - found.analysis_height * width / height) <= 1


def test_a_fixed_side_replaces_the_short_side() -> None:
    by_height = analysis_geometry(1080, 1920, height=240)
    assert (by_height.analysis_width, by_height.analysis_height) == (134, 240)
    by_width = analysis_geometry(1920, 1080, width=640)
    assert (by_width.analysis_width, by_width.analysis_height) == (640, 360)
    with pytest.raises(TrendFlowError, match="config_invalid"):
        analysis_geometry(1920, 1080, height=240, width=320)


def test_pixel_aspect_and_rotation_shape_the_display_size() -> None:
    assert display_size(720, 576, Fraction(64, 45), Orientation()) == (1024, 576)
    assert display_size(720, 576, Fraction(64, 45), Orientation(90)) == (576, 1024)
    assert display_size(200, 112, Fraction(224, 225), Orientation()) == (199, 112)
    assert display_size(640, 480, None, Orientation(180)) == (640, 480)


FIXED = 1 << 16
QUARTER_TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def matrix_of(a: int, b: int, c: int, d: int) -> np.ndarray:
    return np.array([a * FIXED, b * FIXED, 0, c * FIXED, d * FIXED, 0, 0, 0, 1 << 30], dtype=np.int32)


def displayed(picture: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Move every pixel to `(x', y') = (x·a + y·c, x·b + y·d)` and shift the result back to the origin."""
    height, width = picture.shape
    y, x = np.mgrid[0:height, 0:width]
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    out = np.zeros((new_y.max() + 1, new_x.max() + 1), dtype=picture.dtype)
    out[new_y, new_x] = picture
    return out


@pytest.mark.parametrize("clockwise", QUARTER_TURNS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_display_matrix_is_applied_to_every_pixel(clockwise: int, mirrored: bool) -> None:
    a, b, c, d = QUARTER_TURNS[clockwise]
    if mirrored:
        a, b = -a, -b
    orientation = orientation_from_matrix(matrix_of(a, b, c, d))
    assert orientation == Orientation(clockwise, mirrored)
    picture = np.arange(6).reshape(2, 3)
    assert np.array_equal(orientation.apply(picture), displayed(picture, a, b, c, d))


def test_no_matrix_means_upright() -> None:
    assert orientation_from_matrix(None) == Orientation()
