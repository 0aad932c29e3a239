"""Previews: valid pictures, small, and showing what they claim."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trendflow.contracts.artifact import feature_arrays
from trendflow.presentation.contact_sheet import CAPTION, Mark, contact_sheet
from trendflow.presentation.preview_plots import FRAMES
from trendflow.presentation.previews import Preview, preview_for, summary_rows
from trendflow_tests.presentation.synthetic import SyntheticFrames, arrays_of

OK = {"status": "ok"}
EXPECTED = {
    "segmenter": ["filmstrip"],
    "dense_signals": ["frame_signals"],
    "core_clip": ["image_change"],
    "core_object_detections": ["objects_over_time", "objects"],
    "core_face_landmarks": ["faces_over_time", "faces"],
    "cut_detection": ["cut_time_line"],
    "loudness_extractor": ["loudness"],
    "tempo_extractor": ["tempo"],
}


def picture(preview: Preview) -> Image.Image:
    image = Image.open(io.BytesIO(preview.data))
    image.load()
    return image


@pytest.mark.parametrize("component", EXPECTED)
def test_previews_are_small_valid_pictures(component: str) -> None:
    frames = SyntheticFrames(800, height=320, width=568)
    previews = preview_for(component, arrays_of(30.0, (5.0, 20.0))[component], OK, frames)
    assert [preview.name for preview in previews] == EXPECTED[component]
    for preview in previews:
        assert len(preview.data) < 150_000
        assert Image.MIME[picture(preview).format or ""] == preview.mime


def test_noisy_frames_still_fit() -> None:
    rng = np.random.default_rng(0)
    sheet = contact_sheet(rng.integers(0, 256, (FRAMES, 320, 568, 3), dtype=np.uint8), list(range(FRAMES)))
    assert len(sheet) < 150_000


def test_without_frames_there_is_no_filmstrip() -> None:
    assert preview_for("segmenter", arrays_of(30.0, ())["segmenter"], OK) == []


@pytest.mark.parametrize("status", ["empty", "error"])
def test_nothing_to_show(status: str) -> None:
    assert preview_for("loudness_extractor", {}, {"status": status}) == []
    assert preview_for("unknown_component", {}, OK) == []


def test_the_sheet_shows_the_frames_in_order_with_their_boxes() -> None:
    levels = [40, 120, 200]
    frames = np.stack([np.full((90, 160, 3), level, np.uint8) for level in levels])
    boxes = [[], [Mark((0.25, 0.25, 0.75, 0.75), "", "#ff0000")], []]
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(frames, [0.0, 1.0, 2.0], boxes))).convert("RGB")).astype(int)
    assert sheet.shape[0] == 90 + CAPTION
    for k, level in enumerate(levels):
        assert abs(sheet[10, k * 164 + 10].mean() - level) < 6
    left_edge = sheet[45, 164 + 38 : 164 + 44]
    assert (left_edge[:, 0] - left_edge[:, 2]).max() > 100  # the red border, a quarter into the second frame
    assert np.ptp(sheet[45, 10:150].mean(axis=-1)) < 8  # none on the first


def test_the_cut_time_line_draws_cuts_where_they_are() -> None:
    def reddish(cuts: tuple[float, ...]) -> np.ndarray:
        (preview,) = preview_for("cut_detection", arrays_of(30.0, cuts)["cut_detection"], OK)
        pixels = np.asarray(picture(preview).convert("RGB")).astype(int)
        mask = np.abs(pixels - np.array([0xC4, 0x4E, 0x00])).max(axis=-1) < 40
        # The upper half holds the marks and the peaks, the right third the legend.
        return np.flatnonzero(mask[: len(mask) // 2, :600].any(axis=0))

    one, other = reddish((6.0,)), reddish((15.0,))
    axes_width = 900 * 0.95
    assert np.median(other) - np.median(one) == pytest.approx(axes_width * 9 / 30, rel=0.05)


def test_summary_rows_hold_values_units_and_gaps() -> None:
    arrays = feature_arrays({"lufs_integrated": -20.5, "tempo_bpm": float("nan")})
    rows = summary_rows(arrays, {"lufs_integrated": "LUFS"})
    assert rows == [("lufs_integrated", -20.5, "LUFS"), ("tempo_bpm", None, "")]
    assert summary_rows({}) == []


def test_declaring_previews_does_not_load_the_plotting_library() -> None:
    check = (
        "import sys, trendflow.presentation.previews, trendflow.presentation.report; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
