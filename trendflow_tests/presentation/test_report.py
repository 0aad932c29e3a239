"""The report: self-contained, escaped, complete, and honest about what is missing."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from trendflow.contracts.artifact import feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.presentation.pages import MAX_BYTES
from trendflow.presentation.pictures import frame_boxes
from trendflow.presentation.report import render_report
from trendflow.presentation.run_view import ComponentView, RunView
from trendflow.presentation.thumbnails import Thumbnail, make_thumbnails, plan_thumbnails
from trendflow_tests.presentation.page import Page
from trendflow_tests.presentation.synthetic import KINDS, SyntheticFrames, arrays_of, make_view

CUTS = (5.0, 11.875, 20.0)
NAN = float("nan")


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(make_view(30.0, CUTS))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def replace_run(view: RunView, **fields: object) -> RunView:
    return dataclasses.replace(view, manifest={**view.manifest, "run": {**view.run, **fields}})


def test_it_needs_nothing_but_itself(text: str, page: Page) -> None:
    for tag, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attrs)
    assert not page.all("link")
    assert not page.all("base")
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"https?://", text)
    (policy,) = (attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "href"):
            if name in attrs:
                assert (attrs[name] or "").removeprefix("#") in ids


def test_charts_and_pictures_have_names(page: Page) -> None:
    charts = page.all("svg")
    assert len(charts) > 10
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in charts)
    assert all(attrs.get("alt") for attrs in page.all("img"))


def test_the_same_view_gives_the_same_page(text: str) -> None:
    assert render_report(make_view(30.0, CUTS)) == text


def test_cut_marks_stand_at_the_cut_times(page: Page) -> None:
    marks = [float(attrs["x1"] or NAN) for attrs in page.all("line", "ev-hard_cut")]
    np.testing.assert_allclose(marks, [1000 * cut / 30 for cut in CUTS], atol=0.01)


def test_shot_bands_partition_the_axis(page: Page) -> None:
    bands = [(float(a["x"] or NAN), float(a["width"] or NAN)) for a in page.all("rect", "shot")]
    starts, widths = zip(*bands, strict=True)
    np.testing.assert_allclose(starts, [1000 * t / 30 for t in (0.0, *CUTS)], atol=0.01)
    assert sum(widths) == pytest.approx(1000, abs=0.05)


def test_the_spike_of_a_cut_leaves_the_motion_axis_and_says_so(page: Page) -> None:
    motion = next(attrs for attrs in page.all("svg") if (attrs["aria-label"] or "").startswith("Frame difference"))
    assert "data-clipped" in motion
    dense = arrays_of(30.0, CUTS)["dense_signals"]
    quiet = [k for k, t in enumerate(dense["pts_sec"]) if min(abs(t - cut) for cut in CUTS) > 0.1]
    assert float(motion["data-y1"] or NAN) >= np.nanmax(dense["lowres_mad"][quiet])
    assert float(motion["data-y1"] or NAN) < np.nanmax(dense["lowres_mad"])
    assert sum("data-clipped" in attrs for attrs in page.all("svg")) == 1


def test_boxes_lie_where_the_detector_put_them() -> None:
    view = make_view(30.0, CUTS)
    faces = view.arrays("core_face_landmarks")
    sample = int(np.flatnonzero(faces["face_count"] == 1)[0])
    (box,) = (box for box in frame_boxes(view, int(faces["frame_indices"][sample])) if box.kind == "face")
    corners = 100 * faces["face_boxes_norm"][faces["face_row_splits"][sample]]
    np.testing.assert_allclose([box.left, box.top], corners[:2], atol=0.01)
    np.testing.assert_allclose([box.left + box.width, box.top + box.height], corners[2:], atol=0.02)


def test_every_component_model_and_feature_is_listed(page: Page) -> None:
    for name in KINDS:
        assert name in page.visible
    for word in ("efficientnet_lite0_224", "nanodet_m_416", "lufs_integrated", "shot_duration_median_s"):
        assert word in page.visible
    assert "LUFS" in page.visible
    assert "cache (run run_0)" in page.visible
    assert "integrated −20.4\u202fLUFS" in page.visible


def test_a_missing_feature_shows_its_reason_and_no_number() -> None:
    view = make_view(meta={"absent_features": {"dissolve": "no shot_boundary model is mapped"}})
    text = render_report(view)
    row = re.search(r"dissolve_count</th><td class=\"num\">(.*?)</td><td class=\"muted\">(.*?)</td>", text)
    assert row is not None
    assert row.groups() == ("–", "no shot_boundary model is mapped")


def test_empty_components_show_their_reason() -> None:
    tempo = dict(arrays_of(30.0, CUTS)["tempo_extractor"])
    tempo["bpm_by_segment"] = np.full_like(tempo["bpm_by_segment"], NAN)
    tempo["pulse_clarity_by_segment"] = np.full_like(tempo["pulse_clarity_by_segment"], 0.07)
    page = Page(render_report(make_view(empty={"tempo_extractor": ("tempo_all_segments_failed", tempo)})))
    assert "tempo_all_segments_failed" in page.visible
    assert "No window carried enough evidence of a beat." in page.visible
    assert "Tempo evidence" in page.visible  # the evidence was measured and stays visible
    assert "118.2" not in " ".join(page.visible.split("Tempo evidence")[:1])


def test_errors_show_code_sentence_and_what_they_skipped() -> None:
    error = TrendFlowError("model_load_failed", "The engine refuses the weights.")
    view = make_view(
        errors={"core_object_detections": error},
        skipped={"core_face_landmarks": "core_object_detections failed: model_load_failed"},
    )
    assert view.status == "error"
    page = Page(render_report(view))
    assert page.visible.count("The engine refuses the weights.") >= 3  # notice, track and table
    assert "model_load_failed" in page.visible
    assert "Not run: core_face_landmarks" in page.visible
    assert page.all("span", "badge-error")
    assert page.all("span", "badge-skipped")


def test_an_unreadable_video_has_a_page_without_a_time_axis() -> None:
    others = {name: "segmenter failed: video_unreadable" for name in KINDS if name != "segmenter"}
    view = make_view(errors={"segmenter": TrendFlowError("video_unreadable", "This is no video.")}, skipped=others)
    page = Page(render_report(view))
    assert "video_unreadable" in page.visible
    assert "The source was not decoded" in page.visible
    assert not page.all("svg")


def test_a_run_without_audio_or_faces() -> None:
    arrays = arrays_of(30.0, CUTS)
    windows = len(arrays["loudness_extractor"]["segment_mask"])
    silent = {"segment_mask": np.zeros(windows, bool), "segment_lufs": np.full(windows, NAN, np.float32)}
    faces = {**arrays["core_face_landmarks"], "face_count": np.zeros(len(arrays["core_clip"]["times_s"]), np.int32)}
    view = make_view(
        empty={
            "loudness_extractor": ("audio_missing_or_extract_failed", {**arrays["loudness_extractor"], **silent}),
            "tempo_extractor": ("audio_missing_or_extract_failed", {}),
            "core_face_landmarks": ("no_faces_in_video", faces),
        }
    )
    page = Page(render_report(view))
    assert "The source has no audio stream." in page.visible
    assert "found no face" in page.visible
    assert "−20.4\u202fLUFS" not in page.visible.split("Time line")[0]


def test_warnings_are_explained() -> None:
    page = Page(render_report(make_view(warnings=("sampling_shortfall", "hdr_tonemapped"))))
    assert "tone-mapped" in page.visible
    assert "sampling_shortfall" in page.visible


HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script><script>alert(2)</script>"


def test_hostile_strings_stay_text() -> None:
    view = replace_run(
        make_view(meta={"absent_features": {"dissolve": HOSTILE}}),
        video_id=HOSTILE,
        run_id=HOSTILE,
        profile=HOSTILE,
        config_hash=HOSTILE,
        skipped=[{"name": HOSTILE, "because": HOSTILE}],
        warnings=[HOSTILE],
        resolved_models={HOSTILE: {"entry": HOSTILE, "engine": HOSTILE, "precision": HOSTILE, "device": HOSTILE}},
    )
    hostile_rows = [{**row, "notes": HOSTILE, "error_code": HOSTILE} for row in view.manifest["components"]]
    view = dataclasses.replace(view, manifest={**view.manifest, "components": hostile_rows})
    arrays = dict(view.arrays("core_object_detections"))
    arrays["class_names"] = np.array([HOSTILE, *arrays["class_names"][1:]])
    arrays["feature_names"] = np.array([HOSTILE, *arrays["feature_names"][1:]])
    row = view.components["core_object_detections"].row
    view = dataclasses.replace(
        view, components={**view.components, "core_object_detections": ComponentView(row, arrays)}
    )
    page = Page(render_report(view))
    assert len(page.all("script")) == 1
    assert all((attrs["src"] or "").startswith("data:image/jpeg") for attrs in page.all("img"))
    assert HOSTILE in page.visible
    assert "49" not in page.visible.split("TrendFlow run report")[0]


def test_a_long_video_stays_small() -> None:
    cuts = tuple(np.arange(2.0, 1198.0, 2.3).tolist())
    frames = SyntheticFrames(800)
    arrays = arrays_of(1200.0, cuts, fps=60.0)
    times = arrays["segmenter"]["union_timestamps_sec"]
    planned = ("segmenter", "cut_detection", "core_object_detections", "core_face_landmarks")
    wanted = plan_thumbnails(*(arrays[name] for name in planned))
    view = make_view(1200.0, cuts, thumbnails=make_thumbnails(frames, wanted, times[wanted]))
    text = render_report(view)
    assert len(text.encode()) < MAX_BYTES
    assert max(len((a["points"] or "").split()) for a in Page(text).all("polyline")) <= 1000


def test_a_page_above_the_limit_is_refused() -> None:
    huge = [Thumbnail(k, float(k), 320, 180, bytes(300_000)) for k in range(12)]
    with pytest.raises(TrendFlowError, match="3 MB") as caught:
        render_report(make_view(thumbnails=huge))
    assert caught.value.error_code == "artifact_validation_failed"


def headline(page: Page, label: str) -> str:
    """What the page says right of a headline's label."""
    return page.visible.split(f" {label} ", 1)[1]


def with_tempo(valid_ratio: float, warnings: list[str]) -> RunView:
    view = make_view(30.0, CUTS)
    tempo = view.components["tempo_extractor"]
    arrays = {
        **tempo.arrays,
        "tempo_warnings": np.array(warnings, dtype=np.str_),
        **feature_arrays({"tempo_bpm": 220.7, "tempo_valid_ratio": valid_ratio, "tempo_agreement": 0.9}),
    }
    components = {**view.components, "tempo_extractor": dataclasses.replace(tempo, arrays=arrays)}
    return dataclasses.replace(view, components=components)


@pytest.mark.parametrize(
    ("valid_ratio", "warnings", "steady"),
    [
        (0.06, [], False),
        (0.06, ["few_valid_windows"], False),
        (0.9, ["windows_disagree"], False),
        (0.9, [], True),
        (1.0, ["few_valid_windows"], True),  # a clip too short for three windows
    ],
)
def test_a_tempo_is_claimed_only_on_evidence(valid_ratio: float, warnings: list[str], steady: bool) -> None:
    page = Page(render_report(with_tempo(valid_ratio, warnings)))
    assert ("220.7" in headline(page, "Tempo")[:20]) == steady
    assert headline(page, "Tempo").startswith("No steady tempo") != steady
    assert ("median 220.7" in page.visible) == steady


def test_a_sampling_shortfall_names_who_got_how_many_of_how_many() -> None:
    view = make_view(30.0, CUTS, warnings=("sampling_shortfall",))
    segmenter = view.components["segmenter"]
    arrays = {
        **segmenter.arrays,
        "component_names": np.array(["core_clip", "cut_detection", "shot_quality"]),
        "component_budget": np.array([[200, 400, 800], [400, 800, 1500], [100, 100, 100]], np.int32),
        "component_indices_row_splits": np.cumsum([0, 250, 249, 99]).astype(np.int64),
    }
    components = {**view.components, "segmenter": dataclasses.replace(segmenter, arrays=arrays)}
    page = Page(render_report(dataclasses.replace(view, components=components)))
    assert "cut_detection got 249 of at least 400 frames" in page.visible
    assert "shot_quality got 99 of at least 100 frames" in page.visible
    assert "core_clip got" not in page.visible
