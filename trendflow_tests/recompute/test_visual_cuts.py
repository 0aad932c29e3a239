"""Events and shots of a stored run, computed again from the dense signals and from what others stored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from trendflow_tests.recompute.compare import assert_scalars, duration_s
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun
from trendflow_tests.recompute.written_rules import LUMA, area

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

CUT, FADE_IN, FADE_OUT, DISSOLVE, WHIP_PAN, ZOOM, FLASH = range(7)


def test_cut_score_and_hard_cuts(finished: StoredRun) -> None:
    stored, dense = finished.arrays("cut_detection"), finished.dense()
    score = np.sqrt(dense["hist_l1"] * np.minimum(1, dense["lowres_mad"].astype(np.float64) / 0.25))
    np.testing.assert_allclose(stored["cut_score"], score, atol=1e-6)
    usable = np.nan_to_num(score)
    for event in _of_type(stored, FLASH):
        start, end = (
            np.searchsorted(dense["pts_sec"], stored[name][event] - 1e-6)
            for name in ("event_start_time_s", "event_end_time_s")
        )
        usable[start : end + 1] = 0
    times = dense["pts_sec"]
    found = []
    for k in range(1, len(times)):
        others = [m for m in range(1, len(times)) if m != k and (abs(times[m] - times[k]) <= 0.25 or abs(m - k) <= 2)]
        largest = usable[np.abs(times - times[k]) <= 0.2].max()
        if usable[k] >= max(0.25, 3 * max(usable[others].mean(), 0.02), largest):
            found.append(k)
    cuts = _of_type(stored, CUT)
    np.testing.assert_array_equal(stored["event_source_frame"][cuts], found)
    np.testing.assert_allclose(stored["event_strength"][cuts], score[found], atol=1e-6)
    expected = {"cut_strength_mean": score[found].mean(), "first_cut_time_s": times[found[0]]}
    assert_scalars(finished, "cut_detection", expected)


def test_flash_and_fade(finished: StoredRun) -> None:
    stored, dense = finished.arrays("cut_detection"), finished.dense()
    luma, times = dense["luma_mean"].astype(np.float64), dense["pts_sec"]
    step = np.diff(luma)
    (up,) = (k + 1 for k in range(len(step) - 1) if step[k] >= 0.15 and step[k : k + 6].min() <= -0.15)
    down = up + 1 + int(np.argmax(step[up:] <= -0.15))
    (flash,) = _of_type(stored, FLASH)
    assert stored["event_time_s"][flash] == stored["event_start_time_s"][flash] == times[up]
    assert stored["event_end_time_s"][flash] == times[down]
    assert stored["event_strength"][flash] == pytest.approx(np.abs(luma[up:down] - luma[up - 1]).max(), abs=1e-6)

    # After the last cut the clip only gets darker.
    first, last = stored["event_source_frame"][_of_type(stored, CUT)[-1]], len(luma) - 1
    assert (np.diff(luma[first:]) <= 0.02).all()
    start = first + np.flatnonzero(luma[first:] >= luma[first] - 0.02)[-1]
    end = first + np.flatnonzero(luma[first:] <= luma[last] + 0.02)[0]
    (fade,) = _of_type(stored, FADE_OUT)
    middle = np.flatnonzero(times >= (times[start] + times[end]) / 2 - 1e-6)[0]
    assert stored["event_start_time_s"][fade] == times[start]
    assert stored["event_end_time_s"][fade] == times[end]
    assert stored["event_source_frame"][fade] == middle
    assert stored["event_time_s"][fade] == times[middle]
    assert stored["event_strength"][fade] == pytest.approx(luma[first] - luma[last], abs=1e-6)


def test_shots(finished: StoredRun) -> None:
    stored, dense = finished.arrays("cut_detection"), finished.dense()
    begins = [CUT, FADE_IN, FADE_OUT, DISSOLVE]
    frames = np.unique([0, *stored["event_source_frame"][np.isin(stored["event_type_id"], begins)]])
    np.testing.assert_array_equal(stored["shot_start_source_frame"], frames)
    np.testing.assert_array_equal(stored["shot_end_source_frame"], [*frames[1:], len(dense["pts_sec"])])
    np.testing.assert_array_equal(stored["shot_start_time_s"], dense["pts_sec"][frames])
    np.testing.assert_array_equal(stored["shot_end_time_s"][:-1], dense["pts_sec"][frames[1:]])
    duration = duration_s(finished)
    assert stored["shot_end_time_s"][-1] == duration
    segmenter = finished.arrays("segmenter")
    shot = [int((frames <= frame).sum()) - 1 for frame in segmenter["union_frame_indices_source"]]
    np.testing.assert_array_equal(stored["union_shot_ids"], shot)

    lengths = stored["shot_end_time_s"] - stored["shot_start_time_s"]
    edges = [0, 0.25, 0.5, 1, 2, 4, 8, 16, np.inf]
    logarithmic = np.exp(np.linspace(np.log(0.1), np.log(1200), 21))
    shares = np.histogram(lengths, logarithmic)[0] / len(lengths)
    shares = shares[shares > 0]
    counts = np.bincount(stored["event_type_id"], minlength=7)
    assert_scalars(
        finished,
        "cut_detection",
        {
            "cuts_per_minute": 60 * counts[CUT] / duration,
            "soft_transition_count": counts[FADE_IN] + counts[FADE_OUT] + counts[DISSOLVE],
            "whip_pan_per_min": 60 * counts[WHIP_PAN] / duration,
            "zoom_per_min": 60 * counts[ZOOM] / duration,
            "shot_duration_mean_s": lengths.mean(),
            "shot_duration_median_s": np.median(lengths),
            "shot_duration_std_s": lengths.std(),
            "shot_duration_cv": lengths.std() / lengths.mean(),
            **{f"shot_duration_p{p}_s": np.percentile(lengths, p) for p in (10, 25, 75, 90)},
            "short_ratio": np.mean(lengths < 1),
            "long_ratio": np.mean(lengths > 4),
            **{f"shot_hist_{k}": share for k, share in enumerate(np.histogram(lengths, edges)[0] / len(lengths))},
            "shot_duration_entropy": -(shares * np.log(shares)).sum() / np.log(20),
        },
    )


def test_evidence_between_samples(finished: StoredRun) -> None:
    stored, flow, clip = (finished.arrays(name) for name in ("cut_detection", "core_optical_flow", "core_clip"))
    starts, ends = stored["times_s"][:-1], stored["times_s"][1:]
    np.testing.assert_allclose(stored["pair_dt_s"], ends - starts, atol=1e-6)
    motion, distance = np.full(len(starts), np.nan), np.full(len(starts), np.nan)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for row in np.flatnonzero(flow["pair_reliable_mask"]):
            if flow["times_s"][row - 1] <= start and end <= flow["times_s"][row]:
                motion[k] = flow["motion_norm_per_sec_mean"][row]
        before, after = np.flatnonzero(clip["times_s"] <= start), np.flatnonzero(clip["times_s"] >= end)
        if len(before) and len(after) and clip["times_s"][after[0]] - clip["times_s"][before[-1]] <= 2:
            pair = clip["frame_embeddings"][[before[-1], after[0]]].astype(np.float64)
            distance[k] = 1 - pair[0] @ pair[1]
    np.testing.assert_allclose(stored["flow_mag"], motion, atol=1e-6)
    np.testing.assert_allclose(stored["deep_cosine_dist"], distance, atol=1e-6)
    for k in (0, 10, 53, 90, 131, 240):
        x, y = (cv2.resize(_luma(frame), (512, 288), interpolation=cv2.INTER_AREA)
                for frame in finished.frames(stored["frame_indices"][k : k + 2]))  # fmt: skip
        assert stored["ssim_drop"][k] == pytest.approx(1 - _ssim(x, y), abs=1e-4)


def test_jump_cuts(finished: StoredRun) -> None:
    stored, clip = finished.arrays("cut_detection"), finished.arrays("core_clip")
    times = stored["event_time_s"][_of_type(stored, CUT)]
    judged, jumps = [], []
    for time in times:
        before, after = np.flatnonzero(clip["times_s"] < time)[-1], np.flatnonzero(clip["times_s"] >= time)[0]
        start, end = clip["times_s"][[before, after]]
        judged.append(end - start <= 2 and np.sum((times > start) & (times <= end)) == 1)
        same_scene = clip["frame_embeddings"][before] @ clip["frame_embeddings"][after] >= 0.85
        jumps.append(bool(judged[-1] and same_scene and _subject_moves(finished, before, after)))
    np.testing.assert_array_equal(stored["event_is_jump_cut"][_of_type(stored, CUT)], jumps)
    assert_scalars(finished, "cut_detection", {"jump_cut_ratio": sum(jumps) / sum(judged)})


def _subject_moves(finished: StoredRun, before: int, after: int) -> bool:
    """Detections, faces and embeddings have the same frames, so rows are shared."""
    objects, faces = finished.arrays("core_object_detections"), finished.arrays("core_face_landmarks")
    person = objects["class_ids"] == objects["class_names"].tolist().index("person")
    for boxes, splits, wanted in (
        (objects["boxes_norm"], objects["det_row_splits"], person),
        (faces["face_boxes_norm"], faces["face_row_splits"], np.ones(len(faces["face_boxes_norm"]), bool)),
    ):
        largest = []
        for row in (before, after):
            here = boxes[splits[row] : splits[row + 1]][wanted[splits[row] : splits[row + 1]]].astype(np.float64)
            largest += [here[np.argmax(area(here))]] if len(here) else []
        if len(largest) == 2:
            a, b = largest
            grown = np.sqrt(area(b) / area(a))
            if np.hypot(*((b[:2] + b[2:]) / 2 - (a[:2] + a[2:]) / 2)) >= 0.1 or max(grown, 1 / grown) >= 1.15:
                return True
    return False


def _of_type(stored: dict[str, np.ndarray], kind: int) -> np.ndarray:
    return np.flatnonzero(stored["event_type_id"] == kind)


def _luma(frame: np.ndarray) -> np.ndarray:
    return np.asarray(frame @ LUMA / 255)


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    def local(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    mean_x, mean_y = local(x), local(y)
    spread = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    shared = local(x * y) - mean_x * mean_y
    product = (2 * mean_x * mean_y + 0.01**2) * (2 * shared + 0.03**2)
    return float((product / ((mean_x**2 + mean_y**2 + 0.01**2) * (spread + 0.03**2))).mean())
