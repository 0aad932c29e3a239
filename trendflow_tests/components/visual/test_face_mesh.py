"""Crops and mesh arithmetic against closed forms, and the mesh model against the detector's own five points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.components.visual._face_detector import LEFT_EYE, RIGHT_EYE, FaceDetector, Faces
from trendflow.components.visual._face_mesh import Crop, FaceMesher, eye_opening, mouth_opening
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.visual.clips import Bench, Clip, Respecified

EYES_OF_MESH = {LEFT_EYE: (33, 133), RIGHT_EYE: (362, 263)}
"""Corners of each eye as seen in the image, from the published mesh topology."""

coordinate = st.floats(-50, 50)


@given(st.tuples(coordinate, coordinate), st.floats(5, 80), st.floats(-np.pi, np.pi), st.tuples(coordinate, coordinate))
def test_crop_points_travel_back(
    low: tuple[float, float], side: float, roll: float, point: tuple[float, float]
) -> None:
    box = np.array([*low, low[0] + side, low[1] + side / 2])
    crop = Crop.around(box, roll, 1.5, 192)
    there = crop.matrix @ np.array(point) + crop.shift
    np.testing.assert_allclose(crop.to_frame(there[None])[0], point, atol=1e-6)
    centre = crop.matrix @ ((box[:2] + box[2:]) / 2) + crop.shift
    np.testing.assert_allclose(centre, [96, 96], atol=1e-6)


def test_an_upright_crop_is_the_box_enlarged() -> None:
    crop = Crop.around(np.array([100.0, 50.0, 140.0, 90.0]), 0.0, 1.5, 192)
    np.testing.assert_allclose(crop.to_frame(np.array([[0.0, 0.0], [192.0, 192.0]])), [[90, 40], [150, 100]])


def test_the_roll_is_undone() -> None:
    """Eyes on a line that falls by 30° become level."""
    roll = np.radians(30)
    crop = Crop.around(np.array([0.0, 0.0, 40.0, 40.0]), roll, 1.5, 192)
    eyes = 20 + 8 * np.array([[-np.cos(roll), -np.sin(roll)], [np.cos(roll), np.sin(roll)]])
    left, right = eyes @ crop.matrix.T + crop.shift
    assert left[1] == pytest.approx(right[1])
    assert left[0] < right[0]


def test_cutting_keeps_pixel_positions() -> None:
    """At scale 2 every frame pixel becomes a 2 × 2 block; a half-pixel slip would shift the centre of mass."""
    frame = np.zeros((96, 96, 3), dtype=np.uint8)
    frame[60:64, 30:34] = 255
    crop = Crop.around(np.array([0.0, 0.0, 96.0, 96.0]), 0.0, 1.0, 192)
    y, x = np.nonzero(crop.cut(frame, 192, 0)[..., 0] > 127)
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx((64, 124), abs=0.01)


def test_beyond_the_frame_is_padding() -> None:
    frame = np.full((40, 40, 3), 200, dtype=np.uint8)
    cut = Crop.around(np.array([-20.0, -20.0, 20.0, 20.0]), 0.0, 1.0, 64).cut(frame, 64, 7)
    assert cut[8, 8].tolist() == [7, 7, 7]
    assert cut[56, 56].tolist() == [200, 200, 200]


def test_openings_of_a_drawn_face() -> None:
    points = np.zeros((1, 468, 3))
    points[0, [13, 14, 78, 308], :2] = [50, 78], [50, 90], [30, 84], [70, 84]  # lips 12 apart, mouth 40 wide
    points[0, [33, 133], :2] = [20, 40], [44, 40]  # eye 24 wide
    points[0, [160, 144, 158, 153], :2] = [28, 37], [28, 43], [36, 36], [36, 44]  # lids 6 and 8 apart
    assert mouth_opening(points) == pytest.approx([0.3])
    assert eye_opening(points) == pytest.approx([7 / 24])
    assert np.isnan(mouth_opening(np.zeros((1, 468, 3)))).all()


def rotated(frame: np.ndarray, centre: np.ndarray, degrees: float) -> np.ndarray:
    """The frame turned clockwise about a point."""
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), -degrees, 1.0)
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


@pytest.fixture(scope="module")
def frontal(hello: Clip) -> np.ndarray:
    """A frame in which the man looks into the camera."""
    return hello.frames[12]


def find(bench: Bench, frame: np.ndarray) -> tuple[Faces, np.ndarray]:
    """The faces of one frame and their meshes."""
    timer = StageTimer()
    faces = FaceDetector(bench.models["face_detector"], timer, 8)(frame[None])
    return faces[0], FaceMesher(bench.models["face_landmarks"], timer)(frame[None], faces)[0]


def eye_centres(mesh: np.ndarray) -> np.ndarray:
    return np.stack([mesh[list(corners), :2].mean(axis=0) for corners in EYES_OF_MESH.values()])


def mesh_roll(mesh: np.ndarray) -> float:
    """Angle of the line through the eyes of a mesh in degrees."""
    left, right = eye_centres(mesh)
    return float(np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])))


@pytest.mark.parametrize("degrees", [-40, -10, 10, 40])
def test_the_eyes_of_a_tilted_head_are_found(bench: Bench, frontal: np.ndarray, degrees: float) -> None:
    """The detector sees the sign of the tilt, the mesh its size, and both agree where the eyes are."""
    upright, mesh = find(bench, frontal)
    frame = rotated(frontal, (upright.boxes[0, :2] + upright.boxes[0, 2:]) / 2, degrees)
    faces, meshes = find(bench, frame)
    assert len(faces) == 1
    assert mesh_roll(meshes[0]) - mesh_roll(mesh[0]) == pytest.approx(degrees, abs=5)
    assert (faces.roll()[0] - upright.roll()[0]) * np.sign(degrees) > 0
    width = float(faces.boxes[0, 2] - faces.boxes[0, 0])
    apart = np.linalg.norm(eye_centres(meshes[0]) - faces.points[0, [LEFT_EYE, RIGHT_EYE]], axis=1)
    assert (apart < 0.2 * width).all()


def test_the_mesh_turns_with_the_head(bench: Bench, frontal: np.ndarray) -> None:
    degrees = 35.0
    upright, mesh = find(bench, frontal)
    centre = (upright.boxes[0, :2] + upright.boxes[0, 2:]) / 2
    _, turned = find(bench, rotated(frontal, centre, degrees))
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = (mesh[0, :, :2] - centre) @ turn.T + centre
    width = float(upright.boxes[0, 2] - upright.boxes[0, 0])
    assert np.linalg.norm(turned[0, :, :2] - expected, axis=1).mean() < 0.12 * width


def test_depth_is_in_face_widths(bench: Bench, frontal: np.ndarray) -> None:
    """The tip of the nose (point 1) is nearer than both ears (127, 356) by a good part of a face width."""
    _, meshes = find(bench, frontal)
    relief = meshes[0][[127, 356], 2].mean() - meshes[0][1, 2]
    assert 0.3 < relief < 1.5


def test_what_is_no_face_gets_no_points(bench: Bench, hello: Clip) -> None:
    """A box on the terminal window, as a mistaken detector would give it."""
    box = np.array([[300.0, 150.0, 340.0, 200.0]])
    points = np.array([[[310, 165], [330, 165], [320, 175], [312, 190], [328, 190]]], dtype=float)
    faces = Faces(box.astype(np.float32), box, np.array([0.9], np.float32), points)
    (mesh,) = FaceMesher(bench.models["face_landmarks"], StageTimer())(hello.frames[:1], [faces])
    assert np.isnan(mesh).all()


@pytest.mark.parametrize("change", [{"points": 478}, {"presence_threshold": 2.0}])
def test_another_mesh_is_refused(bench: Bench, change: dict[str, float]) -> None:
    model = bench.models["face_landmarks"]
    other = Respecified.of(model, postprocessing={**model.entry.postprocessing, **change})
    with pytest.raises(TrendFlowError) as caught:
        FaceMesher(other, StageTimer())
    assert caught.value.error_code == "model_spec_invalid"
