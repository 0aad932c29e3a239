"""Small pictures of a component's result for the asset graph: arrays in, SVG or JPEG bytes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trendflow.presentation.preview_plots import DRAWERS, Preview
from trendflow.presentation.run_view import Arrays, features_of
from trendflow.presentation.thumbnails import FrameReader


def preview_for(
    component: str, arrays: Arrays, meta: Mapping[str, Any], frames: FrameReader | None = None
) -> list[Preview]:
    """Pictures of one artifact. Frames are shown only when a reader is given.

    `component` may also be `dense_signals`, the Segmenter's second artifact. Artifacts that are empty or failed have
    nothing to show, and components without a picture of their own give none.
    """
    if meta["status"] != "ok":
        return []
    draw = DRAWERS.get(component)
    return draw(arrays, frames) if draw is not None else []


def summary_rows(arrays: Arrays, units: Mapping[str, str] | None = None) -> list[tuple[str, float | None, str]]:
    """(feature, value, unit) of every scalar; a value that could not be measured is None."""
    known = units or {}
    return [
        # float32 carries 7 digits; more of them would be noise of the conversion.
        (name, float(f"{value:.7g}") if math.isfinite(value) else None, known.get(name, ""))
        for name, value in features_of(arrays).items()
    ]
