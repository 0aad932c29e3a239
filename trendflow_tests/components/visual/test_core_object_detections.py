"""Object boxes with the shipped detector."""

from __future__ import annotations

import numpy as np
import pytest

from trendflow.components.visual import core_object_detections
from trendflow.components.visual._boxes import iou_matrix
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.visual.clips import Bench, Clip, Respecified, assert_same, features, flat_clip

# The clips are decoded once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("clips-of-people")


@pytest.fixture(scope="module")
def people_objects(bench: Bench, people: Clip) -> Artifact:
    return bench.run(core_object_detections, people)


def frame_rows(artifact: Artifact, i: int) -> slice:
    splits = artifact.arrays["det_row_splits"]
    return slice(int(splits[i]), int(splits[i + 1]))


def test_people_are_found_where_the_scene_differs_from_the_empty_room(people: Clip, people_objects: Artifact) -> None:
    """The camera is fixed and the first frame empty, so background subtraction tells where somebody is."""
    changed = np.abs(people.frames.astype(int) - people.frames[0]).max(axis=-1) > 40
    share = changed.mean(axis=(1, 2))
    present, absent = share > 0.05, share < 0.002
    assert present.sum() > 25
    assert absent.sum() >= 5
    found = people_objects.arrays["person_count"]
    assert (found[present] == 1).mean() >= 0.95
    assert (found[absent] == 0).all()
    assert found.max() == 1, "people come one by one"
    person = people_objects.arrays["class_names"].tolist().index("person")
    for i in np.flatnonzero(present & (found == 1)).tolist():
        rows = frame_rows(people_objects, i)
        (box,) = people_objects.arrays["boxes"][rows][people_objects.arrays["class_ids"][rows] == person]
        x1, y1, x2, y2 = box.round().astype(int)
        assert changed[i, y1:y2, x1:x2].sum() >= 0.85 * changed[i].sum()


def test_scalars_follow_from_the_arrays(people: Clip, people_objects: Artifact) -> None:
    arrays, values = people_objects.arrays, features(people_objects)
    names = arrays["class_names"].tolist()
    height, width = people.frames.shape[1:3]
    counts, area, centres, furniture = [], [], [], 0
    for i in range(len(people)):
        rows = frame_rows(people_objects, i)
        classes = [names[k] for k in arrays["class_ids"][rows]]
        boxes = [box for box, name in zip(arrays["boxes"][rows], classes, strict=True) if name == "person"]
        counts.append(len(boxes))
        sizes = [(x2 - x1) * (y2 - y1) / (width * height) for x1, y1, x2, y2 in boxes]
        assert arrays["max_person_area_frac"][i] == pytest.approx(max(sizes, default=0), abs=1e-6)
        assert arrays["sum_person_area_frac"][i] == pytest.approx(sum(sizes), abs=1e-6)
        if boxes:
            x1, y1, x2, y2 = boxes[int(np.argmax(sizes))]
            area.append(max(sizes))
            centres.append(((x1 + x2) / 2 / width, (y1 + y2) / 2 / height))
        furniture += any(
            name in ("chair", "couch", "potted plant", "bed", "dining table", "toilet") for name in classes
        )
    n = len(people)
    assert arrays["person_count"].tolist() == counts
    assert values["person_frame_ratio"] == pytest.approx(len(area) / n)
    assert values["group_frame_ratio__person"] == pytest.approx(len(area) / n)
    assert values["group_frame_ratio__furniture"] == pytest.approx(furniture / n)
    assert values["person_count_mean"] == pytest.approx(np.mean(counts))
    assert values["det_count_mean"] == pytest.approx(len(arrays["boxes"]) / n)
    assert values["max_person_area_frac_mean"] == pytest.approx(np.sum(area) / n, rel=1e-5)
    assert values["largest_person_center_x_mean"] == pytest.approx(np.mean(centres, axis=0)[0], rel=1e-5)
    assert values["largest_person_center_y_mean"] == pytest.approx(np.mean(centres, axis=0)[1], rel=1e-5)


def test_a_person_in_every_frame_of_the_shipped_clip(hello_objects: Artifact) -> None:
    assert features(hello_objects)["person_frame_ratio"] >= 0.9
    assert features(hello_objects)["largest_person_center_x_mean"] == pytest.approx(0.18, abs=0.05)


def test_boxes_lie_inside_the_frame(hello: Clip, hello_objects: Artifact) -> None:
    height, width = hello.frames.shape[1:3]
    boxes, norm = hello_objects.arrays["boxes"], hello_objects.arrays["boxes_norm"]
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    np.testing.assert_allclose(norm * [width, height, width, height], boxes, rtol=1e-5, atol=1e-3)
    assert hello_objects.meta["coord_space"] == {"boxes": "px", "boxes_norm": "norm_xy"}


def test_boxes_of_one_class_do_not_overlap_beyond_the_limit(bench: Bench, people: Clip, hello: Clip) -> None:
    """With the threshold at 0.05 there are crowds of candidates to suppress."""
    model = bench.models["object_detector"]
    eager = Respecified.of(model, postprocessing={**model.entry.postprocessing, "score_threshold": 0.05})
    for clip in (people.take(slice(6, 10)), hello.take(slice(0, 3))):
        artifact = bench.run(core_object_detections, clip, models={"object_detector": eager})
        for i in range(len(clip)):
            rows = frame_rows(artifact, i)
            boxes, classes = artifact.arrays["boxes"][rows], artifact.arrays["class_ids"][rows]
            overlap = iou_matrix(boxes, boxes)
            same = (classes[:, None] == classes[None, :]) & ~np.eye(len(boxes), dtype=bool)
            assert len(boxes) > 5
            assert (overlap[same] <= model.entry.postprocessing["nms_iou"] + 1e-6).all()


def test_mirrored_frames_give_mirrored_boxes(bench: Bench, people: Clip, people_objects: Artifact) -> None:
    mirrored = bench.run(core_object_detections, people.mirrored())
    matched = total = 0
    for i in range(len(people)):
        rows, other = frame_rows(people_objects, i), frame_rows(mirrored, i)
        boxes = people_objects.arrays["boxes_norm"][rows]
        flipped = mirrored.arrays["boxes_norm"][other][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
        classes, other_classes = people_objects.arrays["class_ids"][rows], mirrored.arrays["class_ids"][other]
        overlap = iou_matrix(boxes, flipped) * (classes[:, None] == other_classes[None, :])
        matched += int((overlap.max(axis=1, initial=0) >= 0.8).sum())
        total += len(boxes)
    assert total > 30
    assert matched >= 0.9 * total


def test_scaling_the_frame_leaves_norm_boxes_in_place(bench: Bench, hello: Clip, hello_objects: Artifact) -> None:
    import cv2

    larger = Clip(np.stack([cv2.resize(frame, None, fx=1.5, fy=1.5) for frame in hello.frames]), hello.times_s)
    scaled = features(bench.run(core_object_detections, larger))
    for name in ("largest_person_center_x_mean", "largest_person_center_y_mean", "max_person_area_frac_mean"):
        assert scaled[name] == pytest.approx(features(hello_objects)[name], abs=0.01)


def test_batches_do_not_matter(bench: Bench, hello: Clip, hello_objects: Artifact) -> None:
    assert_same(hello_objects, bench.run(core_object_detections, hello, batch_size=1))
    some = bench.run(core_object_detections, hello.take(slice(7, 9)))
    rows = slice(*hello_objects.arrays["det_row_splits"][[7, 9]])
    np.testing.assert_allclose(some.arrays["boxes"], hello_objects.arrays["boxes"][rows], rtol=1e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_to_see_is_empty_with_measured_zeros(bench: Bench, value: int) -> None:
    artifact = bench.run(core_object_detections, flat_clip(value))
    assert (artifact.status, artifact.empty_reason) == ("empty", "no_detections_above_threshold")
    assert artifact.arrays["det_row_splits"].tolist() == [0, 0, 0, 0]
    assert artifact.arrays["max_person_area_frac"].tolist() == [0, 0, 0]
    values = features(artifact)
    unmeasured = {name for name, number in values.items() if np.isnan(number)}
    assert unmeasured == {
        "largest_person_center_x_mean",
        "largest_person_center_y_mean",
    }
    assert {values[name] for name in values if name not in unmeasured} == {0.0}


def test_one_frame(bench: Bench, hello: Clip) -> None:
    artifact = bench.run(core_object_detections, hello.take([4]))
    assert artifact.arrays["det_row_splits"].tolist() == [0, len(artifact.arrays["boxes"])]


def refused(bench: Bench, clip: Clip, model: Respecified) -> str:
    with pytest.raises(TrendFlowError) as caught:
        bench.run(core_object_detections, clip, models={"object_detector": model})
    return caught.value.error_code


def test_another_class_list_is_refused(bench: Bench, hello: Clip) -> None:
    model = bench.models["object_detector"]
    names = model.entry.class_names
    assert refused(bench, hello, Respecified.of(model, class_names=names[:79])) == "model_spec_invalid"
    assert refused(bench, hello, Respecified.of(model, class_names=("human", *names[1:]))) == "model_spec_invalid"
    assert refused(bench, hello, Respecified.of(model, class_groups={})) == "model_spec_invalid"


def test_region_statistics_exist_only_for_known_classes(bench: Bench, hello: Clip, hello_objects: Artifact) -> None:
    """The clip's terminal window counts as a screen; under the name `text` it must appear in the region arrays."""
    assert "text_region_count" not in hello_objects.arrays
    model = bench.models["object_detector"]
    rename = {"tv": "text"}
    entry = {
        "class_names": tuple(rename.get(name, name) for name in model.entry.class_names),
        "class_groups": {
            group: tuple(rename.get(name, name) for name in names) for group, names in model.entry.class_groups.items()
        },
    }
    artifact = bench.run(core_object_detections, hello, models={"object_detector": Respecified.of(model, **entry)})
    assert artifact.arrays["text_region_count"].sum() > 0
    assert artifact.arrays["sum_text_area_frac"].max() == pytest.approx(0.65, abs=0.15)
    assert "logo_region_count" not in artifact.arrays
