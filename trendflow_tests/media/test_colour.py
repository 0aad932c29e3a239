"""Frames shared by threads: the colour a frame is read with must not depend on who else scales it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation

from trendflow.media.colour import Scaler, colour_of, settle_tags
from trendflow.media.geometry import Orientation

UPRIGHT = Orientation()


def untagged_frame() -> VideoFrame:
    """SYNTHETIC noise that says nothing about its matrix and range, as many real streams do."""
    samples = np.random.default_rng(1).integers(0, 256, (96, 64), dtype=np.uint8)
    return VideoFrame.from_ndarray(samples, format="yuv420p")


def tags(frame: VideoFrame) -> tuple[int, int, int, int]:
    return int(frame.colorspace), int(frame.color_range), int(frame.color_trc), int(frame.color_primaries)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", list(Colorspace))
def test_scaling_leaves_settled_tags_alone_at_every_moment(matrix: Colorspace, full_range: bool) -> None:
    frame = untagged_frame()
    colour = replace(colour_of(frame), matrix=matrix, full_range=full_range)
    before = Scaler(32, 32, UPRIGHT, colour, Interpolation.AREA).planes(untagged_frame())
    settle_tags(frame, colour)
    settled, done = tags(frame), threading.Event()
    seen = {settled}

    def scale() -> None:
        scaler = Scaler(32, 32, UPRIGHT, colour, Interpolation.AREA)
        for _ in range(50):
            np.testing.assert_array_equal(scaler.planes(frame), before)
        done.set()

    thread = threading.Thread(target=scale)
    thread.start()
    while thread.is_alive():
        seen.add(tags(frame))
    thread.join()
    assert done.is_set()
    assert seen == {settled}
