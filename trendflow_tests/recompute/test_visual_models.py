"""Embeddings, objects and faces of a stored run, computed again from frames and weights as the documentation says."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from trendflow_tests.recompute.compare import assert_scalars
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun
from trendflow_tests.recompute.written_rules import (
    area,
    centre_crop,
    coloured,
    in_frame,
    letterboxed,
    outputs,
    session,
    suppressed,
)

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

STEP = 6
"""Of so many frames one goes through a model again."""


def _rows(stored: dict[str, np.ndarray]) -> range:
    return range(0, len(stored["frame_indices"]), STEP)


def _some(stored: dict[str, np.ndarray]) -> np.ndarray:
    return stored["frame_indices"][::STEP]


def test_core_clip_from_frames(finished: StoredRun) -> None:
    stored = finished.arrays("core_clip")
    entry, folder = finished.model("image_encoder")
    facts = entry["preprocessing"]
    pictures = [centre_crop(frame, facts, Image.Resampling.BICUBIC) for frame in finished.frames(_some(stored))]
    (raw,) = outputs(session(folder / "model.onnx"), coloured(np.stack(pictures), facts)).values()
    expected = raw.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(stored["frame_embeddings"][::STEP], expected, atol=1e-6)


def test_core_clip_from_its_arrays(finished: StoredRun) -> None:
    stored = finished.arrays("core_clip")
    vectors = stored["frame_embeddings"].astype(np.float64)
    np.testing.assert_allclose(stored["consecutive_cosine_prev"][1:], (vectors[1:] * vectors[:-1]).sum(1), atol=1e-6)
    assert np.isnan(stored["consecutive_cosine_prev"][0])
    assert_scalars(
        finished,
        "core_clip",
        {
            "pair_dt_median_s": np.median(np.diff(stored["times_s"])),
            "embedding_dispersion": 1 - np.linalg.norm(vectors.mean(axis=0)),
        },
    )
    segmenter = finished.arrays("segmenter")
    row = segmenter["component_names"].tolist().index("core_clip")
    first, last = segmenter["component_indices_row_splits"][row : row + 2]
    np.testing.assert_array_equal(stored["frame_indices"], segmenter["component_indices"][first:last])
    np.testing.assert_array_equal(stored["times_s"], segmenter["union_timestamps_sec"][stored["frame_indices"]])


def test_core_object_detections_from_frames(finished: StoredRun) -> None:
    stored = finished.arrays("core_object_detections")
    entry, folder = finished.model("object_detector")
    facts, rules, model = entry["preprocessing"], entry["postprocessing"], session(folder / "model.onnx")
    seen = 0
    for i, frame in zip(_rows(stored), finished.frames(_some(stored)), strict=True):
        canvas, margins = letterboxed(frame, facts)
        found = outputs(model, coloured(canvas[None], facts))
        boxes, scores, classes = [], [], []
        for head in rules["heads"]:
            stride = head["stride"]
            cell, class_id = np.nonzero(found[head["scores"]][0] >= rules["score_threshold"])
            logits = found[head["boxes"]][0][cell].reshape(-1, 4, rules["distribution_bins"]).astype(np.float64)
            share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
            sides = share @ np.arange(rules["distribution_bins"]) * stride
            row, column = np.divmod(cell, facts["width"] // stride)
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            boxes.append(np.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], axis=1))
            scores.append(found[head["scores"]][0][cell, class_id])
            classes.append(class_id)
        height, width = frame.shape[:2]
        all_boxes, all_scores = in_frame(np.concatenate(boxes), margins, width, height), np.concatenate(scores)
        all_classes = np.concatenate(classes)
        kept: list[int] = []
        for class_id in np.unique(all_classes):
            rows = np.flatnonzero(all_classes == class_id)
            kept += rows[suppressed(all_boxes[rows], all_scores[rows], rules["nms_iou"])].tolist()
        kept.sort(key=lambda k: -all_scores[k])
        here = slice(*stored["det_row_splits"][i : i + 2])
        np.testing.assert_array_equal(stored["class_ids"][here], all_classes[kept])
        np.testing.assert_allclose(stored["scores"][here], all_scores[kept], atol=1e-6)
        np.testing.assert_allclose(stored["boxes"][here], all_boxes[kept], atol=1e-3)
        np.testing.assert_allclose(stored["boxes_norm"][here], all_boxes[kept] / ([width, height] * 2), atol=1e-5)
        seen += len(kept)
    assert seen > 5


def test_core_object_detections_from_its_arrays(finished: StoredRun) -> None:
    stored = finished.arrays("core_object_detections")
    entry, _ = finished.model("object_detector")
    names, splits = stored["class_names"].tolist(), stored["det_row_splits"]
    boxes = stored["boxes_norm"].astype(np.float64)
    count, largest, total, centre = [], [], [], []
    groups: dict[str, list[bool]] = {group: [] for group in entry["class_groups"]}
    for first, last in pairwise(splits):
        here = [names[k] for k in stored["class_ids"][first:last]]
        people = boxes[first:last][[name == "person" for name in here]]
        count.append(len(people))
        largest.append(area(people).max(initial=0))
        total.append(area(people).sum())
        if len(people):
            x1, y1, x2, y2 = people[np.argmax(area(people))]
            centre.append(((x1 + x2) / 2, (y1 + y2) / 2))
        for group, members in entry["class_groups"].items():
            groups[group].append(any(name in members for name in here))
    np.testing.assert_array_equal(stored["person_count"], count)
    np.testing.assert_allclose(stored["max_person_area_frac"], largest, atol=1e-6)
    np.testing.assert_allclose(stored["sum_person_area_frac"], total, atol=1e-6)
    assert_scalars(
        finished,
        "core_object_detections",
        {
            "det_count_mean": np.diff(splits).mean(),
            "person_frame_ratio": np.mean(np.array(count) > 0),
            "max_person_area_frac_mean": np.mean(largest),
            "largest_person_center_x_mean": np.mean(centre, axis=0)[0],
            "largest_person_center_y_mean": np.mean(centre, axis=0)[1],
            **{f"group_frame_ratio__{group}": np.mean(found) for group, found in groups.items()},
        },
    )


def test_face_boxes_from_frames(finished: StoredRun) -> None:
    stored = finished.arrays("core_face_landmarks")
    entry, folder = finished.model("face_detector")
    facts, rules, model = entry["preprocessing"], entry["postprocessing"], session(folder / "model.onnx")
    stride = rules["output_stride"]
    seen = 0
    for i, frame in zip(_rows(stored), finished.frames(_some(stored)), strict=True):
        canvas, margins = letterboxed(frame, facts)
        found = outputs(model, coloured(canvas[None], facts))
        row, column = np.nonzero(found["heatmap"][0, 0] >= rules["score_threshold"])
        scores = found["heatmap"][0, 0, row, column]
        height, width = stride * np.exp(found["scale"][0][:, row, column].astype(np.float64))
        down, right = found["offset"][0][:, row, column]
        x, y = stride * (column + right + 0.5), stride * (row + down + 0.5)
        corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
        sides = [frame.shape[1], frame.shape[0]]
        boxes = in_frame(corners, margins, *sides)
        kept = sorted(suppressed(boxes, scores, rules["nms_iou"]), key=lambda k: -area(boxes[k]))
        here = slice(*stored["face_row_splits"][i : i + 2])
        np.testing.assert_allclose(stored["face_boxes_norm"][here], boxes[kept] / (sides * 2), atol=1e-5)
        np.testing.assert_allclose(stored["face_scores"][here], scores[kept], atol=1e-6)
        seen += len(kept)
    assert seen > 5


def test_face_meshes_from_frames(finished: StoredRun) -> None:
    """Samples more than 0.12 s apart are not smoothed, and the man in the clip holds his head upright."""
    stored = finished.arrays("core_face_landmarks")
    entry, folder = finished.model("face_landmarks")
    facts, model = entry["preprocessing"], session(folder / "model.onnx")
    assert np.diff(stored["times_s"]).min() > 0.12
    side, meshed = facts["width"], 0
    for i, frame in zip(_rows(stored), finished.frames(_some(stored)), strict=True):
        size = np.array([frame.shape[1], frame.shape[0]])
        for row in range(*stored["face_row_splits"][i : i + 2]):
            box = stored["face_boxes_norm"][row].astype(np.float64).reshape(2, 2)
            if box.min() <= 0 or box.max() >= 1:
                continue  # the box before it was cut is not stored
            low, high = box * size
            scale = side / (facts["crop_scale"] * (high - low).max())
            corner = (low + high) / 2 - side / 2 / scale
            shift = scale * (0.5 - corner) - 0.5  # pixel k covers [k, k + 1), OpenCV counts from its centre
            crop = cv2.warpAffine(frame, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (side, side))
            found = outputs(model, (crop[None] / 255).astype(np.float32))
            points = found["output_mesh"].reshape(468, 3).astype(np.float64)
            mesh = stored["face_landmarks"][row]
            if found["output_faceflag"][0, 0] < entry["postprocessing"]["presence_threshold"]:
                assert np.isnan(mesh).all()
                continue
            np.testing.assert_allclose(mesh[:, :2], (points[:, :2] / scale + corner) / size, atol=1e-4)
            np.testing.assert_allclose(mesh[:, 2], points[:, 2] / scale / (high - low)[0], atol=1e-3)
            meshed += 1
    assert meshed > 5


def test_face_scalars_from_the_arrays(finished: StoredRun) -> None:
    stored = finished.arrays("core_face_landmarks")
    counts, times = np.diff(stored["face_row_splits"]), stored["times_s"]
    primary = stored["face_row_splits"][:-1][counts > 0]
    boxes = stored["face_boxes_norm"][primary].astype(np.float64)
    facts = finished.arrays("segmenter")
    size = [
        facts["feature_values"][facts["feature_names"].tolist().index(f"analysis_{s}")] for s in ("width", "height")
    ]
    points = stored["face_landmarks"][primary][:, :, :2].astype(np.float64) * size

    def apart(a: int, b: int) -> np.ndarray:
        return np.hypot(*(points[:, a] - points[:, b]).T)

    mouth = apart(13, 14) / apart(78, 308)
    eye = (apart(160, 144) + apart(158, 153)) / (2 * apart(33, 133))
    longest, since = 0.0, None
    for time, present in zip(times, counts > 0, strict=True):
        since = (time if since is None else since) if present else None
        longest = max(longest, 0.0 if since is None else time - since)
    assert_scalars(
        finished,
        "core_face_landmarks",
        {
            "face_present_ratio": np.mean(counts > 0),
            "primary_face_area_mean": area(boxes).mean(),
            "primary_face_area_max": area(boxes).max(),
            "primary_face_center_x_mean": np.mean((boxes[:, 0] + boxes[:, 2]) / 2),
            "primary_face_center_y_mean": np.mean((boxes[:, 1] + boxes[:, 3]) / 2),
            "first_face_time_s": times[counts > 0][0],
            "longest_face_run_s": longest,
            "mouth_open_mean": np.nanmean(mouth),
            "mouth_open_std": np.nanstd(mouth),
            "eye_open_mean": np.nanmean(eye),
        },
    )
