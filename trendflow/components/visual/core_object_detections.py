"""Object boxes, classes and person statistics per primary-group frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.visual import _summary
from trendflow.components.visual._boxes import areas, as_norm
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.components.visual._object_detector import PERSON, Detections, ObjectDetector
from trendflow.contracts.artifact import Artifact, feature_arrays, row_splits

SPEC = ComponentSpec(
    name="core_object_detections",
    producer_version="1.0.0",
    schema_version="core_object_detections_npz_v3",
    hard=("segmenter",),
    reads=("frames",),
    roles=("object_detector",),
)

# Classes with per-frame counts of their own, written only when the detector knows them.
REGION_CLASSES = ("text", "logo")


def run(inputs: ComponentInputs) -> Artifact:
    """Ragged boxes (`boxes` px, `boxes_norm` norm_xy, `scores`, `class_ids`) with `det_row_splits`, and counts.

    `empty` with `no_detections_above_threshold` when no frame has a detection. Raises `model_spec_invalid` when the
    class list or the outputs of the model are not those of its entry.
    """
    samples, model, timer = inputs.need_samples(), need_model(inputs, "object_detector"), StageTimer()
    detector = ObjectDetector(model, timer)
    batches = over_frames(inputs, samples, detector, model.entry.max_batch_size, timer)
    frames = [detections for batch in batches for detections in batch]
    width, height = inputs.video.analysis_width, inputs.video.analysis_height
    boxes = np.concatenate([frame.boxes for frame in frames])
    class_ids = np.concatenate([frame.class_ids for frame in frames])
    splits = row_splits([len(frame.boxes) for frame in frames])
    names = model.entry.class_names
    people = _ClassInFrames(frames, names.index(PERSON), width, height)
    arrays: dict[str, np.ndarray] = {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "det_row_splits": splits,
        "boxes": boxes,
        "boxes_norm": as_norm(boxes, width, height),
        "scores": np.concatenate([frame.scores for frame in frames]),
        "class_ids": class_ids,
        "class_names": np.array(names, dtype=np.str_),
        "det_count": np.diff(splits).astype(np.int32),
        "person_count": people.count,
        "sum_person_area_frac": people.area_sum,
        "max_person_area_frac": people.area_max,
    }
    for name in REGION_CLASSES:
        if name in names:
            region = _ClassInFrames(frames, names.index(name), width, height)
            arrays[f"{name}_region_count"] = region.count
            arrays[f"sum_{name}_area_frac"] = region.area_sum
            arrays[f"max_{name}_area_frac"] = region.area_max
    features = {
        **_features(arrays["det_count"], people),
        **_group_ratios(class_ids, splits, names, model.entry.class_groups),
    }
    found = len(boxes) > 0
    return Artifact(
        arrays={**arrays, **feature_arrays(features)},
        status="ok" if found else "empty",
        empty_reason=None if found else "no_detections_above_threshold",
        models_used=(model.used,),
        device_used=model.device_used,
        meta={"coord_space": {"boxes": "px", "boxes_norm": "norm_xy"}, "absent_features": _absent(features, found)},
        stage_timings_ms=timer.timings_ms(),
    )


class _ClassInFrames:
    """Count and area of one class per frame, and the centre of its largest box (norm_xy, NaN without one)."""

    def __init__(self, frames: Sequence[Detections], class_id: int, width: int, height: int) -> None:
        n = len(frames)
        self.count = np.zeros(n, dtype=np.int32)
        self.area_sum, self.area_max = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
        self.largest_center = np.full((n, 2), np.nan)
        for i, frame in enumerate(frames):
            boxes = frame.boxes[frame.class_ids == class_id].astype(np.float64)
            self.count[i] = len(boxes)
            if len(boxes):
                share = areas(boxes) / (width * height)
                self.area_sum[i], self.area_max[i] = share.sum(), share.max()
                largest = boxes[np.argmax(share)]
                self.largest_center[i] = (largest[:2] + largest[2:]) / 2 / (width, height)


def _features(det_count: np.ndarray, people: _ClassInFrames) -> dict[str, float]:
    seen = people.count > 0
    return {
        "det_count_mean": _summary.mean(det_count),
        "det_count_max": _summary.maximum(det_count),
        "person_frame_ratio": _summary.mean(seen),
        "person_count_mean": _summary.mean(people.count),
        "person_count_max": _summary.maximum(people.count),
        "max_person_area_frac_mean": _summary.mean(people.area_max),
        "largest_person_center_x_mean": _summary.mean(people.largest_center[:, 0]),
        "largest_person_center_y_mean": _summary.mean(people.largest_center[:, 1]),
    }


def _absent(features: Mapping[str, float], found: bool) -> dict[str, str]:
    """Why a value is NaN although something was found."""
    names = ("largest_person_center_x_mean", "largest_person_center_y_mean")
    return {name: "no person was found" for name in names if found and np.isnan(features[name])}


def _group_ratios(
    class_ids: np.ndarray, splits: np.ndarray, names: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Share of frames with at least one detection of each class group."""
    frame_of = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
    ratios = {}
    for group, members in groups.items():
        ids = [names.index(member) for member in members]
        ratios[f"group_frame_ratio__{group}"] = len(np.unique(frame_of[np.isin(class_ids, ids)])) / (len(splits) - 1)
    return ratios
