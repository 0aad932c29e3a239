"""Display geometry of a source and the size its frames are analysed at.

Method: the shorter side of a stored frame has min(`analysis_short_side`, shorter side of the source) pixels, the other
one keeps the display aspect to the nearest even number, the lower one of two. An odd width is lowered by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from trendflow.contracts.errors import TrendFlowError

DEFAULT_SHORT_SIDE = 320


@dataclass(frozen=True)
class Orientation:
    """How a decoded picture is turned to be upright: mirrored left–right first, then turned clockwise."""

    clockwise_deg: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        return self.clockwise_deg % 180 == 90

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """View of `[H, W, …]` in upright orientation."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, -(self.clockwise_deg // 90)) if self.clockwise_deg else picture


def orientation_from_matrix(matrix: np.ndarray | None) -> Orientation:
    """Orientation of a display matrix (nine int32, 16.16 fixed point, `(x', y') = (x, y)·[[a, b], [c, d]]`, y down).

    Angles that are no multiple of 90° are rounded to one: a video player shows those upright, too.
    """
    if matrix is None:
        return Orientation()
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    angle = math.degrees(math.atan2(b, a))
    return Orientation(round(angle / 90) % 4 * 90, mirrored)


@dataclass(frozen=True)
class Geometry:
    """Sizes in pixels after rotation and with square pixels; `analysis_*` is the size of a stored frame."""

    display_width: int
    display_height: int
    analysis_width: int
    analysis_height: int

    @property
    def aspect_ratio(self) -> float:
        return self.display_width / self.display_height


def display_size(
    coded_width: int, coded_height: int, pixel_aspect: Fraction | None, orientation: Orientation
) -> tuple[int, int]:
    """Upright width and height with square pixels; the coded height is kept and the width stretched."""
    width = coded_width
    if pixel_aspect is not None and pixel_aspect > 0:
        width = max(1, math.floor(coded_width * pixel_aspect + Fraction(1, 2)))
    return (coded_height, width) if orientation.swaps_sides else (width, coded_height)


def analysis_geometry(
    display_width: int,
    display_height: int,
    *,
    short_side: int = DEFAULT_SHORT_SIDE,
    height: int | None = None,
    width: int | None = None,
) -> Geometry:
    """Analysis size: the shorter side is `short_side`, or the height or the width is the given one; never upscaled.

    The other side keeps the display aspect, rounded to the nearest even number (ties down, so nothing is upscaled); the
    width is always even. Raises `config_invalid` when both `height` and `width` are given or a side is below 2.
    """
    if height is not None and width is not None:
        raise TrendFlowError("config_invalid", "Set analysis_height or analysis_width, not both.")
    if min(value for value in (short_side, height, width) if value is not None) < 2:
        raise TrendFlowError("config_invalid", "An analysis side must be at least 2 pixels.")
    by_height = display_height <= display_width
    if height is not None or width is not None:
        by_height = height is not None
    if by_height:
        analysis_height = min(height if height is not None else short_side, display_height)
        return Geometry(
            display_width,
            display_height,
            _nearest_even(Fraction(display_width * analysis_height, display_height)),
            analysis_height,
        )
    wanted = min(width if width is not None else short_side, display_width)
    analysis_width = max(2, wanted - wanted % 2)
    return Geometry(
        display_width,
        display_height,
        analysis_width,
        _nearest_even(Fraction(display_height * analysis_width, display_width)),
    )


def _nearest_even(value: Fraction) -> int:
    return max(2, 2 * math.ceil(value / 2 - Fraction(1, 2)))
