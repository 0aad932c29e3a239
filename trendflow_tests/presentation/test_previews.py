"""Previews: valid pictures, small, and showing what they claim."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from trendflow.contracts.artifact import feature_arrays
from trendflow.presentation.contact_sheet import CAPTION, Mark, contact_sheet
from trendflow.presentation.figure import Panel, figure, time_axis
from trendflow.presentation.preview_plots import FRAMES, Preview
from trendflow.presentation.previews import preview_for, summary_rows
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
    "core_optical_flow": ["motion_and_camera"],
    "shot_quality": ["quality"],
    "story_structure": ["story_energy"],
    "uniqueness": ["repetition"],
    "video_pacing": ["pace"],
    "clap_extractor": ["sound_change"],
}


SVG = "{http://www.w3.org/2000/svg}"


def drawing(preview: Preview) -> ElementTree.Element:
    return ElementTree.fromstring(preview.data)


def x_of_dots(preview: Preview, css: str) -> list[float]:
    """Where a picture shows the dots of a class, as shares of its time axis."""
    (chart,) = drawing(preview).findall(f"{SVG}svg")
    width = float(chart.attrib["viewBox"].split()[2])
    dots = [path for path in chart.iter(f"{SVG}path") if css in path.attrib.get("class", "").split()]
    return [float(dot.attrib["d"].lstrip("M").split()[0]) / width for dot in dots]


@pytest.mark.parametrize("component", EXPECTED)
def test_previews_are_small_valid_pictures(component: str) -> None:
    frames = SyntheticFrames(800, height=320, width=568)
    previews = preview_for(component, arrays_of(30.0, (5.0, 20.0))[component], OK, frames)
    assert [preview.name for preview in previews] == EXPECTED[component]
    for preview in previews:
        assert len(preview.data) < 150_000
        if preview.mime == "image/svg+xml":
            assert drawing(preview).tag == f"{SVG}svg"
        else:
            image = Image.open(io.BytesIO(preview.data))
            image.load()
            assert Image.MIME[image.format or ""] == preview.mime


@pytest.mark.parametrize("component", EXPECTED)
def test_plots_ask_for_nothing_and_run_nothing(component: str) -> None:
    for preview in preview_for(component, arrays_of(30.0, (5.0,))[component], OK):
        text = preview.data.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|href|<script|url\(|@import|\son\w+=", text)


def test_names_in_a_plot_are_text_and_never_markup() -> None:
    arrays = arrays_of(30.0, ())["core_object_detections"]
    arrays["class_names"] = np.array([f"<b>{name}&" for name in arrays["class_names"].tolist()])
    (plot,) = preview_for("core_object_detections", arrays, OK)
    shown = [text.text for text in drawing(plot).iter(f"{SVG}text")]
    assert "<b>person&" in shown


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


@pytest.mark.parametrize("cuts", [(6.0,), (3.5, 15.0, 29.0)])
def test_the_cut_time_line_draws_cuts_where_they_are(cuts: tuple[float, ...]) -> None:
    (preview,) = preview_for("cut_detection", arrays_of(30.0, cuts)["cut_detection"], OK)
    assert x_of_dots(preview, "ev-hard_cut") == pytest.approx([cut / 30.0 for cut in cuts], abs=1e-4)
    titles = [text.text for text in drawing(preview).iter(f"{SVG}text")]
    assert "Hard cut" in titles


def test_the_energy_preview_marks_opening_and_peak() -> None:
    (preview,) = preview_for("story_structure", arrays_of(30.0, ())["story_structure"], OK)
    last = arrays_of(30.0, ())["story_structure"]["times_s"][-1]
    assert x_of_dots(preview, "peak") == pytest.approx([15.0 / last], abs=1e-4)
    (band,) = (rect for rect in drawing(preview).iter(f"{SVG}rect") if rect.attrib.get("class") == "opening")
    assert float(band.attrib["width"]) == pytest.approx(150.0, abs=0.01)


def test_the_motion_preview_leaves_gaps_where_frames_do_not_match() -> None:
    (preview,) = preview_for("core_optical_flow", arrays_of(30.0, (5.0, 20.0))["core_optical_flow"], OK)
    motion, *lanes = drawing(preview).findall(f"{SVG}svg")
    assert len(motion.findall(f"{SVG}polyline")) == 3
    assert [lane.attrib["aria-label"] for lane in lanes] == ["Horizontal", "Vertical", "Zoom", "Rotation", "Shake"]


def test_time_and_value_labels_stand_where_the_curve_has_them() -> None:
    axis = time_axis(40.0)
    chart = axis.chart(0.0, 10.0, (0.0, 5.0, 10.0))
    chart.line(np.array([0.0, 10.0, 40.0]), np.array([0.0, 5.0, 10.0]), "curve")
    picture = ElementTree.fromstring(figure(axis, [Panel(chart, "rising", (0.0, 5.0, 10.0), height=200)], "a line"))
    (inner,) = picture.findall(f"{SVG}svg")
    left, top, width, height = (float(inner.attrib[key]) for key in ("x", "y", "width", "height"))
    (line,) = inner.iter(f"{SVG}polyline")
    _, (x, y), _ = ([float(part) for part in pair.split(",")] for pair in line.attrib["points"].split())
    box = [float(part) for part in inner.attrib["viewBox"].split()[2:]]
    labels = {text.text: text.attrib for text in picture.findall(f"{SVG}text")}
    assert float(labels["0:10"]["x"]) == pytest.approx(left + width * x / box[0])
    assert float(labels["5"]["y"]) == pytest.approx(top + height * y / box[1], abs=5)  # centred on its line
    assert "rising" in labels


def test_summary_rows_hold_values_units_and_gaps() -> None:
    arrays = feature_arrays({"lufs_integrated": -20.5, "tempo_bpm": float("nan")})
    rows = summary_rows(arrays, {"lufs_integrated": "LUFS"})
    assert rows == [("lufs_integrated", -20.5, "LUFS"), ("tempo_bpm", None, "")]
    assert summary_rows({}) == []
