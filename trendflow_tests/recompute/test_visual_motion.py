"""Optical flow of a stored run, computed again from frames as catalogue and documentation say."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from trendflow_tests.recompute.compare import assert_scalars
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun
from trendflow_tests.recompute.written_rules import fetched, letterboxed

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

ROWS = (1, 5, 13, 14, 20, 33, 50, 59)
"""Still, slow and fast pairs, and pairs across cuts."""


@pytest.fixture(scope="module")
def fields(finished: StoredRun) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Row → flow forward and back, float32 `[h, w, 2]` in model pixels."""
    positions = finished.arrays("core_optical_flow")["frame_indices"]
    entry, _ = finished.model("optical_flow")
    found = {}
    for row in ROWS:
        before, after = (_grey(frame, entry) for frame in finished.frames(positions[row - 1 : row + 1]))
        found[row] = _flow(before, after, entry["parameters"]), _flow(after, before, entry["parameters"])
    return found


def test_statistics_of_the_field(finished: StoredRun, fields: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
    stored = finished.arrays("core_optical_flow")
    height, width = finished.frames(stored["frame_indices"][:1]).shape[1:3]
    for row, (forward, back) in fields.items():
        dt = stored["times_s"][row] - stored["times_s"][row - 1]
        lengths = (
            forward.astype(np.float64) * [width / forward.shape[1], height / forward.shape[0]] / max(width, height)
        )
        speed, length_px = np.hypot(*lengths.transpose(2, 0, 1)), np.hypot(*forward.transpose(2, 0, 1))
        moving = length_px >= 0.5
        cosine = sine = np.nan
        if moving.mean() >= 0.01:
            cosine, sine = lengths[moving].sum(axis=0) / speed[moving].sum()
        slope = np.gradient(forward[..., 0], axis=1) + np.gradient(forward[..., 1], axis=0)
        expected = {
            "motion_norm_per_sec_mean": speed.mean() / dt,
            "flow_mag_std_per_sec_norm": speed.std() / dt,
            "flow_mag_p95_per_sec_norm": np.percentile(speed, 95) / dt,
            "flow_dx_mean_per_sec_norm": lengths[..., 0].mean() / dt,
            "flow_dy_mean_per_sec_norm": lengths[..., 1].mean() / dt,
            "flow_dir_sin_mean": sine,
            "flow_dir_cos_mean": cosine,
            "flow_dir_dispersion": 1 - np.hypot(sine, cosine),
            "flow_div_abs_mean": np.abs(slope).mean() / dt,
        }
        for name, value in expected.items():
            assert stored[name][row] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), f"{name} of pair {row}"
        assert stored["flow_consistency"][row] == pytest.approx(_consistency(forward, back), abs=1e-4)
        assert stored["pair_reliable_mask"][row] == (_consistency(forward, back) >= 0.5)


def test_camera_from_the_field(finished: StoredRun, fields: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """The fit starts from other pairs of points here, so it may end in a slightly different set of inliers."""
    stored = finished.arrays("core_optical_flow")
    height, width = finished.frames(stored["frame_indices"][:1]).shape[1:3]
    fitted = 0
    for row, (forward, _) in fields.items():
        dt = stored["times_s"][row] - stored["times_s"][row - 1]
        a, b, share = _similarity(forward)
        if not stored["pair_reliable_mask"][row]:
            continue
        assert stored["bg_ratio"][row] == pytest.approx(share, abs=0.01)
        to_lengths = [width / forward.shape[1] / max(width, height), height / forward.shape[0] / max(width, height)]
        expected = {
            "cam_affine_scale": abs(a),
            "cam_zoom_rate_per_sec": np.log(abs(a)) / dt,
            "cam_rotation_per_sec": np.angle(a) / dt,
            "cam_tx_per_sec_norm": b.real * to_lengths[0] / dt,
            "cam_ty_per_sec_norm": b.imag * to_lengths[1] / dt,
        }
        for name, value in expected.items():
            assert stored[name][row] == pytest.approx(value, abs=2e-3), f"{name} of pair {row}"
        fitted += 1
    assert fitted >= 4


def test_values_that_follow_from_other_arrays(finished: StoredRun) -> None:
    stored = finished.arrays("core_optical_flow")
    reliable, dt = stored["pair_reliable_mask"], np.diff(stored["times_s"])
    np.testing.assert_allclose(
        stored["cam_zoom_rate_per_sec"][1:], np.log(stored["cam_affine_scale"][1:]) / dt, atol=1e-5
    )
    shift = np.stack([stored["cam_tx_per_sec_norm"], stored["cam_ty_per_sec_norm"]], axis=1).astype(np.float64)
    shift[~reliable] = np.nan
    shake = np.full(len(shift), np.nan)
    for row in np.flatnonzero(np.isfinite(shift[:, 0])):
        around = shift[max(0, row - 2) : row + 3]
        around = around[np.isfinite(around[:, 0])]
        if len(around) >= 3:
            shake[row] = np.hypot(*(shift[row] - np.median(around, axis=0)))
    np.testing.assert_allclose(stored["cam_shake_std_norm"], shake, atol=1e-6)
    expected = {"reliable_pair_ratio": reliable[1:].mean(), "pair_dt_median_s": np.median(dt)}
    assert_scalars(finished, "core_optical_flow", expected)


def _grey(frame: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    canvas, margins = letterboxed(frame, entry["preprocessing"])
    assert margins[:2] == (0, 0)
    return np.rint(canvas @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def _flow(before: np.ndarray, after: np.ndarray, rules: dict[str, Any]) -> np.ndarray:
    flow = _dis(before, after, (0.0, 0.0))
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    shift, response = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)
    if response >= rules["shift_response"] and np.hypot(*shift) >= rules["shift_px"]:
        shifted = _dis(before, after, shift)
        errors = [cv2.absdiff(before, fetched(after, field)).mean() for field in (shifted, flow)]
        if errors[0] < rules["shift_gain"] * errors[1]:
            return shifted
    return flow


def _dis(before: np.ndarray, after: np.ndarray, start: tuple[float, float]) -> np.ndarray:
    field = np.tile(np.float32(start), (*before.shape, 1))
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, field)


def _consistency(forward: np.ndarray, back: np.ndarray) -> float:
    height, width = forward.shape[:2]
    to_x, to_y = forward[..., 0] + np.arange(width), forward[..., 1] + np.arange(height)[:, None]
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    gap = np.hypot(*(forward + fetched(back, forward)).transpose(2, 0, 1))
    return float(np.mean(inside & (gap <= np.maximum(1, 0.1 * np.hypot(*forward.transpose(2, 0, 1))))))


def _similarity(forward: np.ndarray) -> tuple[complex, complex, float]:
    """w = a·z + b that most of the flow follows, and the share of points within a model pixel of it."""
    height, width = forward.shape[:2]
    x, y = np.meshgrid(*((np.arange(32) + 0.5) * side / 32 - 0.5 for side in (width, height)))
    flow = cv2.remap(forward, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    start = (x - (width - 1) / 2 + 1j * (y - (height - 1) / 2)).ravel()
    end = start + (flow[..., 0] + 1j * flow[..., 1]).ravel()
    first, second = np.random.default_rng(0).integers(0, 1024, (2, 2000))
    first, second = first[first != second], second[first != second]
    a = (end[second] - end[first]) / (start[second] - start[first])
    first, a = first[(abs(a) >= 0.5) & (abs(a) <= 2)], a[(abs(a) >= 0.5) & (abs(a) <= 2)]
    b = end[first] - a * start[first]
    best = int(np.argmin([np.minimum(abs(p * start + q - end) ** 2, 1).sum() for p, q in zip(a, b, strict=True)]))
    fit = complex(a[best]), complex(b[best])
    for _ in range(5):
        near = abs(fit[0] * start + fit[1] - end) <= 1
        columns = np.stack([start[near], np.ones(near.sum())], axis=1)
        refined = np.linalg.lstsq(columns, end[near], rcond=None)[0]
        costs = [np.minimum(abs(p * start + q - end) ** 2, 1).sum() for p, q in (refined, fit)]
        if costs[0] >= costs[1]:
            break
        fit = complex(refined[0]), complex(refined[1])
    return *fit, float(np.mean(abs(fit[0] * start + fit[1] - end) <= 1))
