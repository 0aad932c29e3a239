"""The flow algorithm behind the model interface: what pins it, what it refuses, and that nothing else changes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.opencv_flow import DisFlowHandle
from trendflow.models.pool import ModelPool
from trendflow.models.resolve import resolve_models

NAME = "dis_flow_320"


@pytest.fixture(scope="module")
def entry() -> CatalogueEntry:
    return Catalogue.load()[NAME]


@pytest.fixture(scope="module")
def handle(entry: CatalogueEntry) -> Iterator[DisFlowHandle]:
    handle = DisFlowHandle.load(entry, threads=1)
    yield handle
    handle.close()


@pytest.fixture(scope="module")
def pictures(sample_frames: np.ndarray) -> np.ndarray:
    """Five real frames, float32 `[5, 3, 180, 320]`."""
    small = [cv2.resize(frame, (320, 180), interpolation=cv2.INTER_AREA) for frame in sample_frames[:5]]
    return np.stack(small).transpose(0, 3, 1, 2).astype(np.float32)


def flow_of(handle: DisFlowHandle, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return handle.infer({"image1": first, "image2": second})["flow"]


def altered(entry: CatalogueEntry, **changes: Any) -> CatalogueEntry:
    return entry.model_copy(update=changes)


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-5, 2), (60, 0), (-40, -50)])
def test_a_cropped_photograph_moves_by_the_offset_of_the_crop(
    handle: DisFlowHandle, sample_frames: np.ndarray, dx: int, dy: int
) -> None:
    photograph = sample_frames[0].transpose(2, 0, 1).astype(np.float32)[None]
    first = photograph[:, :, 120:300, 120:440]
    second = photograph[:, :, 120 - dy : 300 - dy, 120 - dx : 440 - dx]
    flow = flow_of(handle, first, second)[0]
    assert np.median(flow[0]) == pytest.approx(dx, abs=0.5)
    assert np.median(flow[1]) == pytest.approx(dy, abs=0.5)


def test_equal_pictures_have_no_flow(handle: DisFlowHandle, pictures: np.ndarray) -> None:
    np.testing.assert_allclose(flow_of(handle, pictures, pictures), 0, atol=1e-3)


@pytest.mark.parametrize("library_threads", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_batches_change_no_value(
    entry: CatalogueEntry, handle: DisFlowHandle, pictures: np.ndarray, threads: int, library_threads: int
) -> None:
    alone = [flow_of(handle, pictures[i : i + 1], pictures[i + 1 : i + 2])[0] for i in (3, 0, 2, 1)]
    before = cv2.getNumThreads()
    cv2.setNumThreads(library_threads)
    other = DisFlowHandle.load(entry, threads=threads)
    try:
        together = flow_of(other, pictures[:-1], pictures[1:])
    finally:
        other.close()
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(together, np.stack(alone)[[1, 3, 2, 0]])


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 320), (320, 1), (31, 320), (20, 320), (8, 8), (15, 15), (320, 31), (12, 900)]
)
def test_every_shape_is_survived(handle: DisFlowHandle, shape: tuple[int, int]) -> None:
    """The library itself crashes or fails on several of these."""
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 255, (2, 1, 3, *shape)).astype(np.float32)
    assert flow_of(handle, first, second).shape == (1, 2, *shape)


@pytest.mark.parametrize("grey", [0.0, 255.0])
def test_uniform_pictures_have_no_flow(handle: DisFlowHandle, grey: float) -> None:
    uniform = np.full((1, 3, 180, 320), grey, dtype=np.float32)
    np.testing.assert_array_equal(flow_of(handle, uniform, uniform), 0)


def test_what_ran_is_recorded_without_a_digest(handle: DisFlowHandle) -> None:
    used = handle.used
    assert (used.model_name, used.model_version, used.weights_digest) == (NAME, "5.0.0", "none")
    assert (used.runtime, used.engine, used.precision, used.device) == ("inprocess", "algorithm", "fp32", "cpu")
    assert handle.describe()["engine_version"] == cv2.__version__


def test_it_resolves_and_loads_without_any_file(entry: CatalogueEntry, tmp_path: Path) -> None:
    resolved = resolve_models(Catalogue.load(), {"optical_flow": NAME}, ["optical_flow"], tmp_path)
    pool = ModelPool(tmp_path)
    assert pool.get(resolved["optical_flow"].entry).used == resolved["optical_flow"].used
    pool.close()
    assert list(tmp_path.iterdir()) == []


def test_another_version_of_the_library_is_refused(entry: CatalogueEntry) -> None:
    source = entry.source.model_copy(update={"revision": "4.12.0"})
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        DisFlowHandle.load(altered(entry, source=source))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"preset": "medium"},
        {"preset": "slow", "shift_response": 0.2, "shift_px": 4, "shift_gain": 0.75},
        {"preset": "medium", "shift_response": -1, "shift_px": 4, "shift_gain": 0.75},
        {"preset": "medium", "shift_response": True, "shift_px": 4, "shift_gain": 0.75},
        {"preset": "medium", "shift_response": 0.2, "shift_px": 4, "shift_gain": 0.75, "speed": 1},
    ],
)
def test_unknown_parameters_are_refused(entry: CatalogueEntry, parameters: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError, match="model_spec_invalid"):
        DisFlowHandle.load(altered(entry, parameters=parameters))


def test_another_algorithm_or_other_tensors_are_refused(entry: CatalogueEntry) -> None:
    other = entry.source.model_copy(update={"member": "FarnebackOpticalFlow"})
    for odd in (altered(entry, source=other), altered(entry, outputs=entry.inputs[:1])):
        with pytest.raises(TrendFlowError, match="model_spec_invalid"):
            DisFlowHandle.load(odd)


def test_another_device_is_refused(entry: CatalogueEntry) -> None:
    with pytest.raises(TrendFlowError, match="device_unavailable"):
        DisFlowHandle.load(altered(entry, device_policy="cuda"), device="cuda")


def test_inputs_are_held_against_the_entry(handle: DisFlowHandle, pictures: np.ndarray) -> None:
    for wrong in (
        {"image1": pictures},
        {"image1": pictures, "image2": pictures[:2]},
        {"image1": pictures.astype(np.uint8), "image2": pictures},
        {"image1": pictures[:, :1], "image2": pictures[:, :1]},
        {name: np.zeros((33, 3, 8, 8), np.float32) for name in ("image1", "image2")},
    ):
        with pytest.raises(TrendFlowError, match="model_spec_invalid"):
            handle.infer(wrong)


def test_a_closed_handle_refuses_to_run(entry: CatalogueEntry, pictures: np.ndarray) -> None:
    handle = DisFlowHandle.load(entry, threads=1)
    handle.close()
    with pytest.raises(TrendFlowError, match="closed"):
        flow_of(handle, pictures[:1], pictures[1:2])
