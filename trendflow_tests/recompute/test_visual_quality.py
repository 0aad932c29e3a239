"""Quality of the frames and shots of a stored run, computed again from pixels, boxes and dense signals."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve

from trendflow_tests.recompute.compare import assert_scalars
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun
from trendflow_tests.recompute.written_rules import LUMA, area

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

STEP = 4
"""Of so many frames one is measured again."""
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
DB2 = np.array([1 - 3**0.5, 3**0.5 - 3, 3 + 3**0.5, -1 - 3**0.5]) / (4 * 2**0.5)


def test_frame_features_from_pixels(finished: StoredRun) -> None:
    stored = finished.arrays("shot_quality")
    frames = finished.frames(stored["frame_indices"][::STEP])
    for i, frame in zip(range(0, len(stored["frame_indices"]), STEP), frames, strict=True):
        luma = frame @ LUMA / 255
        energy = _filtered(luma, SOBEL) ** 2 + _filtered(luma, SOBEL.T) ** 2
        expected = {
            "sharpness_tenengrad_log": math.log10(1e-8 + energy.mean()),
            "sharpness_laplacian_log": math.log10(1e-8 + _filtered(luma, LAPLACIAN).var()),
            "noise_sigma": np.median(np.abs(_diagonal(luma))) / 0.6745 * 255,
            "luma_mean": luma.mean(),
            "luma_contrast": luma.std(),
            "underexposure_ratio": np.mean(luma <= 16 / 255 + 1e-9),
            "overexposure_ratio": np.mean(luma >= 235 / 255 - 1e-9),
            "letterbox_frac": _letterbox(luma <= 16 / 255 + 1e-9),
            "warm_cool_balance": (frame[..., 0].astype(float) - frame[..., 2]).mean() / 255,
            **_colour(frame),
        }
        for name, value in expected.items():
            assert _column(stored, name)[i] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), f"{name} of {i}"


def test_frame_features_of_the_subject(finished: StoredRun) -> None:
    """Every frame of the clip with a subject shows a face; without one, the largest person would stand in."""
    stored, faces = finished.arrays("shot_quality"), finished.arrays("core_face_landmarks")
    splits, seen = faces["face_row_splits"], 0
    for i, frame in enumerate(finished.frames(stored["frame_indices"])):
        boxes = faces["face_boxes_norm"][splits[i] : splits[i + 1]].astype(np.float64)
        names = ("face_sharpness_log", "face_luma_mean", "face_area_frac", "subject_offset")
        values = [_column(stored, name)[i] for name in names]
        if not len(boxes):
            assert np.isnan(values[:2]).all()
            assert values[2] == 0
            continue
        height, width = frame.shape[:2]
        box = boxes[np.argmax(area(boxes))]
        low, high = box[:2] * [width, height], box[2:] * [width, height]
        x1, y1, x2, y2 = *np.floor(low).astype(int), *np.ceil(high).astype(int)
        luma = frame @ LUMA / 255
        energy = _filtered(luma, SOBEL) ** 2 + _filtered(luma, SOBEL.T) ** 2
        offset = np.hypot(*((low + high) / 2 - [width / 2, height / 2])) / (np.hypot(width, height) / 2)
        wanted = [math.log10(1e-8 + energy[y1:y2, x1:x2].mean()), luma[y1:y2, x1:x2].mean(), area(box), offset]
        np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)
        seen += 1
    assert seen > 20


def test_flicker(finished: StoredRun) -> None:
    stored, dense, cuts = finished.arrays("shot_quality"), finished.dense(), finished.arrays("cut_detection")
    expected = []
    for shot, time in zip(stored["shot_ids"], stored["times_s"], strict=True):
        frames = slice(cuts["shot_start_source_frame"][shot], cuts["shot_end_source_frame"][shot])
        times, luma = dense["pts_sec"][frames], dense["luma_mean"][frames].astype(np.float64)
        rest = np.array([y - luma[np.abs(times - t) <= 0.1 + 1e-6].mean() for t, y in zip(times, luma, strict=True)])
        expected.append(rest[np.abs(times - time) <= 0.5 + 1e-6].std())
    np.testing.assert_allclose(_column(stored, "flicker_std_1s"), expected, atol=1e-6)


def test_shots_and_scalars(finished: StoredRun) -> None:
    stored, cuts = finished.arrays("shot_quality"), finished.arrays("cut_detection")
    np.testing.assert_array_equal(stored["shot_ids"], cuts["union_shot_ids"][stored["frame_indices"]])
    seconds = cuts["shot_end_time_s"] - cuts["shot_start_time_s"]
    shots = range(len(seconds))
    scalars = {}
    for column, name in enumerate(stored["frame_feature_names"].tolist()):
        values = stored["frame_features"][:, column].astype(np.float64)
        groups = [values[(stored["shot_ids"] == shot) & np.isfinite(values)] for shot in shots]
        means = np.array([group.mean() if len(group) else np.nan for group in groups])
        spread = [group.std() if len(group) >= 2 else np.nan for group in groups]
        np.testing.assert_allclose(stored["shot_features_mean"][:, column], means, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stored["shot_features_std"][:, column], spread, rtol=1e-4, atol=1e-6)
        if f"{name}_mean" in stored["feature_names"]:
            known = np.isfinite(means)
            weights, kept = seconds[known] / seconds[known].sum(), means[known]
            scalars[f"{name}_mean"] = mean = (weights * kept).sum()
            scalars[f"{name}_std"] = np.sqrt((weights * (kept - mean) ** 2).sum()) if known.sum() >= 2 else np.nan
        if name == "luma_mean":
            scalars["dark_shot_ratio"] = np.mean(means <= 0.15)
        if name == "sharpness_tenengrad_log":
            scalars["blurry_shot_ratio"] = np.mean(means <= -3)
        if name == "overexposure_ratio":
            scalars["clipped_shot_ratio"] = np.mean(means >= 0.25)
    prompts = {name for name in stored["feature_names"].tolist() if name.startswith("prob_mean__")}
    assert set(scalars) == set(stored["feature_names"].tolist()) - prompts
    assert all(np.isnan(finished.scalar("shot_quality", name)) for name in prompts)  # no prompt encoder in the profile
    assert_scalars(finished, "shot_quality", scalars, rtol=1e-4)


def _column(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    return stored["frame_features"][:, stored["frame_feature_names"].tolist().index(name)]


def _filtered(luma: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.asarray(convolve(luma, kernel.astype(np.float64), mode="mirror"))


def _diagonal(luma: np.ndarray) -> np.ndarray:
    """Coefficients of the rows and columns 0, 2, 4, … whose four taps lie inside."""
    rows, columns = ((side - 4) // 2 + 1 for side in luma.shape)
    down = sum(weight * luma[k : k + 2 * rows : 2] for k, weight in enumerate(DB2))
    return np.asarray(sum(weight * down[:, k : k + 2 * columns : 2] for k, weight in enumerate(DB2)))


def _letterbox(black: np.ndarray) -> float:
    rows, columns = np.flatnonzero(~black.all(axis=1)), np.flatnonzero(~black.all(axis=0))
    if not len(rows):
        return 1.0
    return float(1 - (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / black.size)


def _colour(frame: np.ndarray) -> dict[str, float]:
    pixels = frame.astype(np.float64)
    value, chroma = pixels.max(axis=2), np.ptp(pixels, axis=2)
    saturation = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    entropy = math.nan
    if chroma.mean() / 255 >= 0.01:
        degrees = 2.0 * cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 0]
        weights = np.bincount((np.floor(degrees / 30 + 0.5) % 12).astype(int).ravel(), chroma.ravel(), minlength=12)
        shares = weights[weights > 0] / weights.sum()
        entropy = -(shares * np.log(shares)).sum() / math.log(12)
    return {
        "saturation_mean": saturation.mean(),
        "colorfulness": np.hypot(red_green.std(), yellow_blue.std())
        + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()),
        "hue_entropy": entropy,
    }
