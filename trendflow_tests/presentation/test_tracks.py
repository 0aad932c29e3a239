"""Tracks of the report: curves where the arrays have them, gaps where nothing was measured, reasons where none is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trendflow.contracts.artifact import feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.presentation.measures import camera_moves, camera_scale, on_reliable_pairs, opening_s, sound_change
from trendflow.presentation.report import render_report
from trendflow.presentation.run_view import RunView
from trendflow_tests.presentation.page import Page
from trendflow_tests.presentation.synthetic import TEXT_FEATURES, arrays_of, make_view
from trendflow_tests.presentation.synthetic_curves import UNRELIABLE_SPEED

DURATION, CUTS = 40.0, (6.0, 15.0, 31.0)
NAN = float("nan")


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(make_view(DURATION, CUTS)))


def with_arrays(component: str, **changed: np.ndarray) -> RunView:
    view = make_view(DURATION, CUTS)
    found = view.components[component]
    replaced = dataclasses.replace(found, arrays={**found.arrays, **changed})
    return dataclasses.replace(view, components={**view.components, component: replaced})


def test_all_groups_share_one_time_axis(page: Page) -> None:
    groups = ["g-cuts", "g-story", "g-motion", "g-picture", "g-content", "g-sound"]
    assert [attrs["id"] for attrs in page.all("h3")] == groups
    assert [attrs for attrs in page.all("details", "group") if "open" not in attrs] == []
    assert len(page.all("div", "tl")) == 1


def test_a_pair_that_does_not_match_is_a_gap_and_no_motion(page: Page) -> None:
    chart = page.chart("Motion")
    pieces = chart.curves()
    assert len(pieces) == len(CUTS) + 1
    assert max(piece[:, 1].max() for piece in pieces) < UNRELIABLE_SPEED / 10
    for before, after, cut in zip(pieces[:-1], pieces[1:], CUTS, strict=True):
        assert before[-1, 0] < after[0, 0]
        assert before[-1, 0] <= cut / DURATION + 0.005
        assert after[0, 0] >= cut / DURATION


def test_a_still_picture_looks_still() -> None:
    times = arrays_of(DURATION, CUTS)["core_optical_flow"]["times_s"]
    quiet = {
        name: np.full(len(times), 1e-5, np.float32) for name in ("motion_norm_per_sec_mean", "cam_tx_per_sec_norm")
    }
    others = ("cam_ty_per_sec_norm", "cam_zoom_rate_per_sec", "cam_rotation_per_sec", "cam_shake_std_norm")
    quiet |= {name: np.zeros(len(times), np.float32) for name in others}
    chart = Page(render_report(with_arrays("core_optical_flow", **quiet))).chart("Motion")
    assert chart.high >= 0.05
    assert camera_scale(camera_moves({**arrays_of(DURATION, CUTS)["core_optical_flow"], **quiet})) >= 0.05


def test_camera_lanes_share_one_scale_around_zero(page: Page) -> None:
    lanes = [page.chart(name) for name in ("Horizontal", "Vertical", "Zoom", "Rotation")]
    assert len({(lane.low, lane.high) for lane in lanes}) == 1
    assert lanes[0].low == -lanes[0].high
    shake = page.chart("Shake")
    assert (shake.low, shake.high) == (0.0, lanes[0].high)
    flow = arrays_of(DURATION, CUTS)["core_optical_flow"]
    first = np.concatenate(lanes[0].curves("curve"))
    expected = on_reliable_pairs(flow, "cam_tx_per_sec_norm")
    known = np.isfinite(expected)
    np.testing.assert_allclose(first[:, 1], expected[known], atol=1e-3)
    np.testing.assert_allclose(first[:, 0], flow["times_s"][known] / DURATION, atol=1e-5)


def test_a_picture_that_moves_up_goes_upwards_in_its_lane() -> None:
    flow = arrays_of(DURATION, CUTS)["core_optical_flow"]
    rising = np.full_like(flow["cam_ty_per_sec_norm"], -0.03)  # image rows count downwards
    lane = Page(render_report(with_arrays("core_optical_flow", cam_ty_per_sec_norm=rising))).chart("Vertical")
    np.testing.assert_allclose(np.concatenate(lane.curves("curve"))[:, 1], 0.03, atol=1e-3)


def test_the_energy_curve_shows_opening_and_peak(page: Page) -> None:
    chart = page.chart("Energy")
    (band,) = chart.all("rect", "opening")
    assert float(band["x"] or NAN) == 0
    assert float(band["width"] or NAN) == pytest.approx(1000 * 5.0 / DURATION)  # 15 % of 40 s would be longer than 5 s
    assert chart.dots("c-cut") == pytest.approx([0.5])
    (curve,) = chart.curves()
    assert curve[np.argmax(curve[:, 1])] == pytest.approx([0.5, 2.0], abs=0.01)
    assert "climax at 0:20" in page.visible


@pytest.mark.parametrize(("duration", "length"), [(10.0, 1.5), (30.0, 4.5), (34.0, 5.0), (1200.0, 5.0)])
def test_the_opening_is_five_seconds_or_a_share_of_a_short_video(duration: float, length: float) -> None:
    assert opening_s(duration) == pytest.approx(length)


def test_cut_density_counts_cuts_in_eighths(page: Page) -> None:
    (steps,) = page.chart("Cuts per minute").curves()
    middles = (np.arange(8) + 0.5) / 8
    shown = [steps[np.flatnonzero(steps[:, 0] <= middle)[-1], 1] for middle in middles]
    # 5 s to an eighth: one cut in it is twelve per minute.
    np.testing.assert_allclose(shown, [0, 12, 0, 12, 0, 0, 12, 0], atol=0.02)


def test_change_rates_begin_with_a_gap(page: Page) -> None:
    arrays = arrays_of(DURATION, CUTS)["video_pacing"]
    for label, name in (("Content change rate", "semantic_change_rate"), ("Colour change rate", "color_change_rate")):
        (piece,) = page.chart(label).curves()
        assert piece[0, 0] == pytest.approx(arrays["times_s"][1] / DURATION, abs=1e-5)
        assert piece[:, 1].max() == pytest.approx(np.nanmax(arrays[f"{name}_per_sec"]), rel=1e-3)


def test_repetition_shows_its_threshold(page: Page) -> None:
    chart = page.chart("Repetition")
    (level,) = chart.all("line", "level")
    shown = chart.high - float(level["y1"] or NAN) / chart.height * (chart.high - chart.low)
    assert shown == pytest.approx(0.95, abs=1e-3)
    assert chart.high == 1.0
    assert "repeated: 31\u202f% of samples" in page.visible


def test_quality_steps_are_the_means_of_the_shots(page: Page) -> None:
    chart = page.chart("Sharpness")
    (steps,) = chart.curves("main")
    assert np.unique(steps[:, 1].round(1)).tolist() == [-3.5, -3.0, -2.5, -2.0]
    borders = steps[np.flatnonzero(np.diff(steps[:, 1].round(1))), 0] * DURATION
    np.testing.assert_allclose(borders, CUTS, atol=0.2)  # half a sample around each cut
    assert chart.curves("faint")
    assert page.chart("Noise").high >= 2.0
    (level,) = chart.all("line", "level")
    shown = chart.high - float(level["y1"] or NAN) / chart.height * (chart.high - chart.low)
    assert shown == pytest.approx(-3.0, abs=1e-3)
    assert "blurred: 50\u202f% of shots" in page.visible
    assert (page.chart("Too dark").low, page.chart("Too dark").high) == (0.0, 1.0)


def test_the_sound_change_has_a_gap_where_the_sound_is_silent(page: Page) -> None:
    pieces = page.chart("Sound change").curves()
    np.testing.assert_allclose(np.concatenate(pieces)[:, 1], 0.5, atol=1e-2)
    centers = arrays_of(DURATION, CUTS)["clap_extractor"]["segment_center_sec"]
    shown = {round(x * DURATION, 2) for piece in pieces for x in piece[:, 0]}
    assert not shown & {float(center) for center in centers[[0, 2, 3]]}
    assert {float(center) for center in centers[4:]} <= shown


def test_the_distance_of_opposite_sounds_is_two() -> None:
    rows = np.array([[1, 0], [-1, 0], [-1, 0], [np.nan, np.nan]], np.float32)
    change = sound_change({"segment_mask": np.array([True, True, True, False]), "embedding_sequence": rows})
    np.testing.assert_array_equal(change, [np.nan, 2.0, 0.0, np.nan])


DRAWN = {
    "core_optical_flow": ("too_few_frames", "fewer sampled frames"),
    "story_structure": ("too_few_frames", "fewer sampled frames"),
    "uniqueness": ("too_few_frames", "fewer sampled frames"),
    "video_pacing": ("too_few_frames", "fewer sampled frames"),
    "clap_extractor": ("audio_silent", "every window is below"),
}


@pytest.mark.parametrize("component", DRAWN)
def test_an_empty_component_says_why_in_place_of_its_curve(component: str) -> None:
    reason, sentence = DRAWN[component]
    arrays = {
        name: np.full_like(value, np.nan) if value.dtype.kind == "f" else value
        for name, value in arrays_of(DURATION, CUTS)[component].items()
    }
    page = Page(render_report(make_view(DURATION, CUTS, empty={component: (reason, arrays)})))
    assert page.all("p", "state-empty")
    assert sentence in page.visible.split("Components")[0]


@pytest.mark.parametrize("component", [*DRAWN, "shot_quality", "optical_flow", "text_processor"])
def test_a_failed_component_costs_only_its_own_tracks(component: str) -> None:
    error = TrendFlowError("model_load_failed", "The engine refuses the weights.")
    page = Page(render_report(make_view(DURATION, CUTS, errors={component: error})))
    assert "The engine refuses the weights." in page.visible
    assert page.chart("Cut score").curves()
    assert page.chart("Loudness").curves()


def test_curves_without_a_value_say_so() -> None:
    blank = np.full(len(arrays_of(DURATION, CUTS)["uniqueness"]["times_s"]), NAN, np.float32)
    text = render_report(with_arrays("uniqueness", max_sim_to_other=blank))
    assert "No value was measured." in Page(text).visible


def test_text_is_counted_and_never_shown(page: Page) -> None:
    shown = page.visible.split("counts only; no text is kept")[1].split("Components")[0]
    assert "7 words" in shown
    assert "41 characters" in shown
    assert "question" in shown
    assert "exclamation" not in shown
    assert "cosine 0.62" in shown
    assert "Transcript" not in shown  # not a number: left out instead of a zero


def test_without_text_there_is_no_card() -> None:
    nothing = feature_arrays(dict.fromkeys(TEXT_FEATURES, NAN))
    page = Page(render_report(make_view(DURATION, CUTS, empty={"text_processor": ("no_text_available", nothing)})))
    assert "counts only" not in page.visible
    assert "The video has no title, description or transcript." in page.visible


def test_headlines_sum_up_the_new_components(page: Page) -> None:
    top = page.visible.split("Time line")[0]
    for words in ("Opening energy −0.25", "Motion 0.012\u202f/s", "still in 25\u202f%", "Repetition 31\u202f%"):
        assert words in top
