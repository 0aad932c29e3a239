"""The shipped models on real pictures, through the runtime, with the processing their entries state."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool

NO_NETWORK = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise RuntimeError("a model reached for the network")
sys.addaudithook(refuse)
import numpy as np
from pathlib import Path
from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow.models.tensors import smallest_inputs
pool = ModelPool(Path(sys.argv[1]))
built = [entry for entry in Catalogue.load() if entry.source.kind != "url"]
for entry in built:
    pool.get(entry).infer(smallest_inputs(entry.inputs))
print("ran", len(built))
"""


def _canvas(frame: np.ndarray, entry: CatalogueEntry) -> np.ndarray:
    """A frame on the model's canvas, top left, in the entry's colours; float32 [1, 3, h, w]."""
    facts = entry.preprocessing
    longer = facts.get("longer_side", facts.get("width"))
    step = facts.get("multiple_of", longer)
    ratio = longer / max(frame.shape[:2])
    inner = cv2.resize(frame, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    height, width = (-(-side // step) * step for side in inner.shape[:2])
    canvas = np.full((height, width, 3), facts["pad_value"], np.uint8)
    canvas[: inner.shape[0], : inner.shape[1]] = inner
    ordered = canvas[..., ::-1] if facts["color_order"] == "BGR" else canvas
    values = (ordered - np.array(facts["mean"], np.float32)) / np.array(facts["std"], np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def _frames(path: Path, times: list[float]) -> list[np.ndarray]:
    import av

    found: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= times[len(found)]:
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == len(times):
                    break
    return found


def _class_scores(pool: ModelPool, entry: CatalogueEntry, frame: np.ndarray) -> dict[str, float]:
    outputs = pool.get(entry).infer({"input_1:0": _canvas(frame, entry)})
    scores = np.concatenate([outputs[head["scores"]][0] for head in entry.postprocessing["heads"]])
    assert scores.min() >= 0  # probabilities already
    assert scores.max() <= 1
    return dict(zip(entry.class_names, scores.max(axis=0).tolist(), strict=True))


def test_the_detector_sees_the_person_of_the_sample_in_every_second(
    catalogue: Catalogue, pool: ModelPool, sample_frames: np.ndarray
) -> None:
    entry = catalogue["nanodet_m_416"]
    for frame in sample_frames:
        scores = _class_scores(pool, entry, frame)
        assert max(scores, key=scores.__getitem__) == "person"
        assert scores["person"] > entry.postprocessing["score_threshold"]


@pytest.mark.parametrize(("time_sec", "occupied"), [(20.0, False), (38.0, True), (47.0, False), (101.0, True)])
def test_the_detector_tells_a_room_with_a_person_from_an_empty_one(
    catalogue: Catalogue, pool: ModelPool, data_dir: Path, time_sec: float, occupied: bool
) -> None:
    entry = catalogue["nanodet_m_416"]
    (frame,) = _frames(data_dir / "video" / "people_139s.mp4", [time_sec])
    scores = _class_scores(pool, entry, frame)
    threshold = entry.postprocessing["score_threshold"]
    assert (scores["person"] > threshold) == occupied
    assert max(scores[name] for name in entry.class_groups["animal"]) < threshold


def _best_face(pool: ModelPool, entry: CatalogueEntry, frame: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Score, box (x0, y0, x1, y1) and canvas of the best face, decoded as the CenterFace paper describes."""
    canvas = _canvas(frame, entry)
    outputs = pool.get(entry).infer({"images": canvas})
    heat = outputs["heatmap"][0, 0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    stride, half = entry.postprocessing["output_stride"], entry.postprocessing["cell_centre"]
    height, width = np.exp(outputs["scale"][0, :, row, column]) * stride
    dy, dx = outputs["offset"][0, :, row, column]
    y, x = (row + dy + half) * stride, (column + dx + half) * stride
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return float(heat[row, column]), box, canvas


def test_a_face_is_found_in_every_second_and_the_mesh_agrees(
    catalogue: Catalogue, pool: ModelPool, sample_frames: np.ndarray
) -> None:
    detector, mesher = catalogue["centerface_640"], catalogue["facemesh_192"]
    size, scale = mesher.preprocessing["width"], mesher.preprocessing["crop_scale"]
    for frame in sample_frames:
        score, box, canvas = _best_face(pool, detector, frame)
        assert score > detector.postprocessing["score_threshold"]
        side = scale * max(box[2] - box[0], box[3] - box[1])
        zoom, centre = size / side, (box[:2] + box[2:]) / 2
        transform = np.array([[zoom, 0, size / 2 - zoom * centre[0]], [0, zoom, size / 2 - zoom * centre[1]]])
        image = np.ascontiguousarray(canvas[0].transpose(1, 2, 0))
        crop = cv2.warpAffine(image, transform, (size, size)) / np.float32(255)
        outputs = pool.get(mesher).infer({"input_1": crop[None]})
        assert outputs["output_faceflag"][0, 0] > 0.99
        points = outputs["output_mesh"].reshape(mesher.postprocessing["points"], 3)[:, :2]
        inside = (points > 0).all(axis=1) & (points < size).all(axis=1)
        assert inside.mean() > 0.95
        # Two networks that know nothing of each other place the same face.
        assert np.linalg.norm(points.mean(axis=0) - size / 2) < 0.15 * size


def test_noise_is_no_face(catalogue: Catalogue, pool: ModelPool) -> None:
    noise = np.random.default_rng(0).random((2, 192, 192, 3), dtype=np.float32)
    assert pool.get(catalogue["facemesh_192"]).infer({"input_1": noise})["output_faceflag"].max() < 0.01


@pytest.mark.parametrize(
    ("name", "shape"),
    [("efficientnet_lite0_224", (3, 224, 224)), ("centerface_640", (3, 64, 96)), ("facemesh_192", (192, 192, 3))],
)
def test_results_do_not_depend_on_batch_neighbours(
    catalogue: Catalogue, pool: ModelPool, name: str, shape: tuple[int, ...]
) -> None:
    entry = catalogue[name]
    handle, (spec,) = pool.get(entry), entry.inputs
    low, high = spec.value_range or (0.0, 1.0)
    units = np.random.default_rng(0).uniform(low, high, (5, *shape)).astype(np.float32)
    whole = handle.infer({spec.name: units})
    for parts in ([1, 1, 1, 1, 1], [2, 3], [4, 1]):
        edges = np.cumsum([0, *parts])
        pieces = [handle.infer({spec.name: units[a:b]}) for a, b in itertools.pairwise(edges)]
        for tensor in entry.outputs:
            joined = np.concatenate([piece[tensor.name] for piece in pieces])
            magnitude = float(np.abs(whole[tensor.name]).max())
            np.testing.assert_allclose(joined, whole[tensor.name], rtol=1e-4, atol=1e-4 * magnitude)


def test_loading_and_running_open_no_socket(models_dir: Path, repo_root: Path, catalogue: Catalogue) -> None:
    command = [sys.executable, "-c", NO_NETWORK, str(models_dir)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    built = [entry for entry in catalogue if entry.source.kind != "url"]
    assert done.stdout.strip() == f"ran {len(built)}", done.stderr


def test_importing_the_interface_loads_no_framework(repo_root: Path) -> None:
    code = (
        "import sys, trendflow.models.interface, trendflow.models.batching, trendflow.models.pool;"
        "print([name for name in ('onnxruntime', 'onnx', 'torch', 'httpx') if name in sys.modules])"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
