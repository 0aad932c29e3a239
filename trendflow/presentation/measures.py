"""Curves that both the previews and the report draw, derived from the arrays of one artifact. Pure numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.presentation.run_view import Arrays
from trendflow.presentation.series import nice_range

# Floors of value axes: a finer axis would magnify noise of coding, of the flow model or of an embedding.
MIN_DIFFERENCE_AXIS = 0.01
MIN_MOTION_AXIS = 0.05
MIN_CHANGE_AXIS = 0.1
MIN_COLOR_AXIS = 1.0  # ΔE per second
NOISE_AXIS = (0.0, 2.0)  # grey levels of 255

TOP_CLASSES = 6

BLURRED_SHARPNESS = THRESHOLDS.sections["shot_quality"]["blurry_tenengrad_log"]
# The limit of blur stands low on the axis of sharpness, and what differs by less than noise looks equal.
SHARPNESS_AXIS = (BLURRED_SHARPNESS - 0.5, BLURRED_SHARPNESS + 2.0)
REPETITION_COSINE = THRESHOLDS.sections["uniqueness"]["repetition_cosine"]


def opening_s(duration: float) -> float:
    """Length of the opening that story_structure compares with the rest, in seconds."""
    story = THRESHOLDS.sections["story_structure"]
    return min(story["hook_max_s"], story["hook_share"] * duration)


def on_reliable_pairs(flow: Arrays, name: str) -> np.ndarray:
    """An array of core_optical_flow `[N]` with NaN where the two frames do not match: there it is no motion."""
    return np.where(flow["pair_reliable_mask"], flow[name].astype(np.float64), np.nan)


_CAMERA_MOVES = {
    "Horizontal": "cam_tx_per_sec_norm",
    "Vertical": "cam_ty_per_sec_norm",
    "Zoom": "cam_zoom_rate_per_sec",
    "Rotation": "cam_rotation_per_sec",
}
CAMERA_SHAKE = "Shake"


def camera_moves(flow: Arrays) -> dict[str, np.ndarray]:
    """What the whole picture does, by title, float64 `[N]` each: up is right, up, growing and clockwise."""
    moves = {title: on_reliable_pairs(flow, name) for title, name in _CAMERA_MOVES.items()}
    moves["Vertical"] = -moves["Vertical"]  # rows of a picture grow downwards
    return {**moves, CAMERA_SHAKE: on_reliable_pairs(flow, "cam_shake_std_norm")}


def camera_scale(moves: Mapping[str, np.ndarray]) -> float:
    """One value axis for all camera moves and shake, so that lanes can be compared by eye."""
    values = np.abs(np.concatenate(list(moves.values())))
    strongest = float(np.max(values, where=np.isfinite(values), initial=MIN_MOTION_AXIS))
    return nice_range(0.0, strongest, 5)[1]


def sound_change(clap: Arrays) -> np.ndarray:
    """Cosine distance of each window's embedding to the one before, float64 `[N]`; NaN where one of them is missing."""
    rows = np.where(clap["segment_mask"][:, None], clap["embedding_sequence"].astype(np.float64), np.nan)
    change = np.full(len(rows), np.nan)
    # Rows have unit length; rounding must not make a distance negative.
    change[1:] = np.maximum(0.0, 1.0 - np.einsum("nd,nd->n", rows[1:], rows[:-1]))
    return change


def quality(shot_quality: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One measure of shot_quality: its value in each frame and the mean of the frame's shot, float64 `[N]` each."""
    column = shot_quality["frame_feature_names"].tolist().index(name)
    frames = shot_quality["frame_features"][:, column].astype(np.float64)
    shots = shot_quality["shot_features_mean"][:, column].astype(np.float64)
    return frames, shots[shot_quality["shot_ids"]]


def class_counts(arrays: Arrays) -> dict[str, np.ndarray]:
    """Objects per sampled frame `[N]` for each class that occurs, the class seen in most frames first."""
    names, ids = arrays["class_names"].tolist(), arrays["class_ids"]
    splits = arrays["det_row_splits"]
    frames = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
    counts = {names[k]: np.bincount(frames[ids == k], minlength=len(splits) - 1) for k in np.unique(ids).tolist()}
    presence = Counter({name: int((count > 0).sum()) for name, count in counts.items()})
    return {name: counts[name] for name, _ in sorted(presence.items(), key=lambda item: (-item[1], item[0]))}
