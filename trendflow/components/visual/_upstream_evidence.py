"""What other components know about the moments between two samples: motion, embeddings, boxes.

Their frames are subsets of the sampled ones, so a value is taken from the pair of their frames that encloses the
moment in question.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import Upstream
from trendflow.components.visual._cut_constants import CUTS
from trendflow.components.visual._cut_events import Event, EventType
from trendflow.components.visual._cut_score import DenseSignals

PERSON = "person"


def enclosing_pairs(axis: np.ndarray, start_s: np.ndarray, end_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For intervals [start, end] the rows (a, b) of `axis` with axis[a] ≤ start and end ≤ axis[b], as tight as
    possible; -1 where there is none.
    """
    a = np.searchsorted(axis, start_s, side="right") - 1
    b = np.searchsorted(axis, end_s)
    outside = (a < 0) | (b >= len(axis))
    return np.where(outside, -1, a), np.where(outside, -1, b)


def motion_between(flow: Upstream | None, times_s: np.ndarray) -> np.ndarray:
    """Mean motion of the reliable flow pair that encloses successive samples, frame lengths/s `[N-1]`, else NaN.

    Method: `flow_mag` is motion_norm_per_sec_mean of the one reliable pair of core_optical_flow that encloses both
    samples.
    """
    motion = np.full(max(0, len(times_s) - 1), np.nan, dtype=np.float32)
    if flow is None or len(motion) == 0:
        return motion
    a, b = enclosing_pairs(flow.arrays["times_s"], times_s[:-1], times_s[1:])
    known = (a >= 0) & (b == a + 1)
    known[known] = flow.arrays["pair_reliable_mask"][b[known]]
    motion[known] = flow.arrays["motion_norm_per_sec_mean"][b[known]]
    return motion


def embedding_distance(clip: Upstream | None, start_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
    """1 - cosine of the embeddings that enclose each interval, float32; NaN where they are further apart than
    `evidence_reach_s` or missing.

    Method: `deep_cosine_dist` compares the last embedding at or before the first sample with the first one at or after
    the second, if they are at most `evidence_reach_s` apart.
    """
    distance = np.full(len(start_s), np.nan, dtype=np.float32)
    if clip is None or len(distance) == 0:
        return distance
    axis = clip.arrays["times_s"]
    a, b = enclosing_pairs(axis, start_s, end_s)
    known = (a >= 0) & (axis[b] - axis[a] <= CUTS.evidence_reach_s)
    vectors = clip.arrays["frame_embeddings"].astype(np.float64)
    distance[known] = 1.0 - np.einsum("nd,nd->n", vectors[a[known]], vectors[b[known]])
    return np.clip(distance, 0.0, 2.0)


def shows_motion(flow: Upstream | None) -> bool:
    """Whether there is a reliable flow pair: without one, no camera move means nothing."""
    return flow is not None and bool(flow.arrays["pair_reliable_mask"].any())


def camera_moves(flow: Upstream | None, dense: DenseSignals) -> list[Event]:
    """Whip pans and zooms: successive qualifying flow pairs merged into one event each.

    Method: a whip pan is a run of reliable flow pairs with motion_norm_per_sec_mean ≥ `whip_pan_speed` and
    flow_dir_dispersion ≤ `whip_pan_dispersion`; a zoom one with |cam_zoom_rate_per_sec| ≥ `zoom_rate` and
    bg_ratio ≥ `zoom_background`. Their strength is the largest such motion or rate, at most 1.
    """
    if flow is None:
        return []
    arrays = flow.arrays
    motion, zoom = arrays["motion_norm_per_sec_mean"], np.abs(arrays["cam_zoom_rate_per_sec"])
    reliable = arrays["pair_reliable_mask"]
    # Comparisons with NaN are false: a pair without the measurement never qualifies.
    whip = reliable & (motion >= CUTS.whip_pan_speed) & (arrays["flow_dir_dispersion"] <= CUTS.whip_pan_dispersion)
    zooming = reliable & (zoom >= CUTS.zoom_rate) & (arrays["bg_ratio"] >= CUTS.zoom_background)
    return [
        *_merged(EventType.WHIP_PAN, whip, motion, arrays["times_s"], dense),
        *_merged(EventType.ZOOM, zooming, zoom, arrays["times_s"], dense),
    ]


def _merged(
    kind: EventType, mask: np.ndarray, strength: np.ndarray, times_s: np.ndarray, dense: DenseSignals
) -> list[Event]:
    events = []
    rows = np.flatnonzero(mask)
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        if len(run) == 0:
            continue
        start_s, end_s = float(times_s[run[0] - 1]), float(times_s[run[-1]])
        frame = dense.frame_at((start_s + end_s) / 2)
        peak = min(1.0, float(strength[run].max()))
        events.append(
            Event(
                kind,
                frame,
                float(dense.t[frame]),
                dense.frame_at(start_s),
                dense.frame_at(end_s),
                start_s,
                end_s,
                peak,
            )
        )
    return events


@dataclass(frozen=True)
class LargestBoxes:
    """Largest box of one kind per frame of its component; rows without a box are NaN."""

    times_s: np.ndarray  # float64 [N]
    boxes: np.ndarray  # float64 [N, 4] x1, y1, x2, y2 in norm_xy

    def changes(self, time_s: float) -> bool:
        """True when the box moves or rescales across `time_s`."""
        after = int(np.searchsorted(self.times_s, time_s))
        if not 0 < after < len(self.times_s):
            return False
        before_box, after_box = self.boxes[after - 1], self.boxes[after]
        near = self.times_s[after] - self.times_s[after - 1] <= CUTS.evidence_reach_s
        if not near or np.isnan(before_box).any() or np.isnan(after_box).any():
            return False
        move = np.hypot(*(_centre(after_box) - _centre(before_box)))
        scale = np.sqrt(_area(after_box) / _area(before_box))
        return bool(move >= CUTS.jump_move or max(scale, 1 / scale) >= 1 + CUTS.jump_rescale)


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def subject_boxes(upstream: Mapping[str, Upstream]) -> list[LargestBoxes]:
    """Largest person box and largest face box per frame, from the components that ran."""
    found = []
    objects = upstream.get("core_object_detections")
    if objects is not None:
        names = objects.arrays["class_names"].tolist()
        if PERSON in names:
            person = objects.arrays["class_ids"] == names.index(PERSON)
            found.append(_largest(objects.arrays, "det_row_splits", "boxes_norm", person))
    faces = upstream.get("core_face_landmarks")
    if faces is not None:
        every = np.ones(len(faces.arrays["face_boxes_norm"]), dtype=bool)
        found.append(_largest(faces.arrays, "face_row_splits", "face_boxes_norm", every))
    return found


def _largest(arrays: Mapping[str, np.ndarray], splits_key: str, boxes_key: str, wanted: np.ndarray) -> LargestBoxes:
    splits, boxes = arrays[splits_key], arrays[boxes_key].astype(np.float64)
    areas = np.where(wanted, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), -1.0)
    largest = np.full((len(splits) - 1, 4), np.nan)
    for i, (first, last) in enumerate(itertools.pairwise(splits)):
        if last > first and areas[first:last].max() > 0:
            largest[i] = boxes[first + np.argmax(areas[first:last])]
    return LargestBoxes(arrays["times_s"], largest)


@dataclass(frozen=True)
class JumpCuts:
    """Judgement of every hard cut: could it be judged, and is it a jump cut. Both bool `[cuts]`."""

    judged: np.ndarray
    is_jump: np.ndarray


def judge_jump_cuts(clip: Upstream, boxes: Sequence[LargestBoxes], cut_times_s: np.ndarray) -> JumpCuts:
    """A jump cut keeps the scene (embedding cosine) but moves or rescales its largest person or face.

    A cut is judged when embeddings within `evidence_reach_s` of each other enclose it and no other cut.

    Method: a hard cut can be judged if the last embedding before it and the first one at or after it are at most
    `evidence_reach_s` apart with no other hard cut between them. It is a jump cut if their cosine is at least
    `jump_cosine` and, between the two frames, the centre of the largest person or of the largest face moves by at least
    `jump_move` (fractions of the frame in x and y), or √area of its box changes by the factor 1 + `jump_rescale`.
    """
    axis = clip.arrays["times_s"]
    # The frame at the time of the cut already belongs to the new shot.
    before = np.searchsorted(axis, cut_times_s) - 1
    after = before + 1
    judged = (before >= 0) & (after < len(axis))
    for k in np.flatnonzero(judged):
        start_s, end_s = axis[before[k]], axis[after[k]]
        alone = np.sum((cut_times_s > start_s) & (cut_times_s <= end_s)) == 1
        judged[k] = alone and end_s - start_s <= CUTS.evidence_reach_s
    is_jump = np.zeros(len(cut_times_s), dtype=bool)
    vectors = clip.arrays["frame_embeddings"]
    for k in np.flatnonzero(judged):
        cosine = float(vectors[before[k]].astype(np.float64) @ vectors[after[k]].astype(np.float64))
        is_jump[k] = cosine >= CUTS.jump_cosine and any(box.changes(float(cut_times_s[k])) for box in boxes)
    return JumpCuts(judged, is_jump)
