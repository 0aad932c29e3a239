"""Motion of frame pairs, against synthetic camera moves in closed form and real clips with known facts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from trendflow.components.visual import core_optical_flow
from trendflow.components.visual._dense_flow import FlowModel
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.motion.bench import flow_inputs, run_flow
from trendflow_tests.components.motion.camera import HEIGHT, WIDTH, film, texture, view
from trendflow_tests.components.visual.clips import (
    ArrayReader,
    Clip,
    Respecified,
    assert_same,
    clip_of,
    features,
    flat_clip,
)

# The flow of the clips is computed once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("flow-of-real-videos")

TEXTURE = texture(1)


def rows(artifact: Artifact, name: str) -> np.ndarray:
    """Values of the pairs, without row 0."""
    return artifact.arrays[name][1:]


@pytest.mark.parametrize(
    ("shift", "gap_s"), [((6, 0), 0.25), ((-10.5, 4), 0.25), ((3, -20), 1 / 30), ((30, 20), 1.0), ((120, 0), 0.25)]
)
@pytest.mark.parametrize("portrait", [False, True])
def test_a_shifted_texture_gives_its_speed(
    flow_model: ModelHandle, shift: tuple[float, float], gap_s: float, portrait: bool
) -> None:
    width, height = (HEIGHT, WIDTH) if portrait else (WIDTH, HEIGHT)
    if portrait:
        shift = shift[1], shift[0]
    flow = run_flow(flow_model, film(TEXTURE, 3, shift=shift, gap_s=gap_s, width=width, height=height))
    speed = np.array(shift) / gap_s / WIDTH
    size = np.hypot(*speed)
    assert flow.arrays["pair_reliable_mask"].tolist() == [False, True, True]
    for name, value in zip(("dx", "dy"), speed, strict=True):
        np.testing.assert_allclose(rows(flow, f"flow_{name}_mean_per_sec_norm"), value, atol=0.05 * size)
    for name, value in zip(("tx", "ty"), speed, strict=True):
        np.testing.assert_allclose(rows(flow, f"cam_{name}_per_sec_norm"), value, atol=0.05 * size)
    np.testing.assert_allclose(rows(flow, "motion_norm_per_sec_mean"), size, rtol=0.05)
    np.testing.assert_allclose(rows(flow, "flow_dir_cos_mean"), speed[0] / size, atol=0.03)
    np.testing.assert_allclose(rows(flow, "flow_dir_sin_mean"), speed[1] / size, atol=0.03)
    assert rows(flow, "flow_dir_dispersion").max() < 0.02


@pytest.mark.parametrize("zoom", [1.01, 1.06, 0.94])
def test_a_pure_zoom_gives_its_rate(flow_model: ModelHandle, zoom: float) -> None:
    flow = run_flow(flow_model, film(TEXTURE, 3, zoom=zoom))
    np.testing.assert_allclose(rows(flow, "cam_zoom_rate_per_sec"), np.log(zoom) / 0.25, rtol=0.05)
    np.testing.assert_allclose(rows(flow, "cam_affine_scale"), zoom, atol=0.05 * abs(zoom - 1))
    # Everything goes away from the centre: no common direction, no turn, a divergence of twice the rate.
    assert rows(flow, "flow_dir_dispersion").min() > 0.9
    assert np.abs(rows(flow, "cam_rotation_per_sec")).max() < 0.05 * abs(zoom - 1) / 0.25
    np.testing.assert_allclose(rows(flow, "flow_div_abs_mean"), 2 * abs(zoom - 1) / 0.25, rtol=0.25)
    assert rows(flow, "bg_ratio").min() > 0.9


@pytest.mark.parametrize("rotation", [0.01, 0.05, -0.05])
def test_a_pure_rotation_gives_its_rate(flow_model: ModelHandle, rotation: float) -> None:
    flow = run_flow(flow_model, film(TEXTURE, 3, rotation=rotation))
    np.testing.assert_allclose(rows(flow, "cam_rotation_per_sec"), rotation / 0.25, rtol=0.05)
    np.testing.assert_allclose(rows(flow, "cam_affine_rotation"), rotation, rtol=0.05)
    assert np.abs(rows(flow, "cam_zoom_rate_per_sec")).max() < 0.05 * abs(rotation) / 0.25
    assert rows(flow, "bg_ratio").min() > 0.9


def test_time_reversal_negates_the_motion(flow_model: ModelHandle) -> None:
    clip = film(TEXTURE, 4, shift=(9, -5), zoom=1.02, rotation=0.02)
    there = run_flow(flow_model, clip)
    back = run_flow(flow_model, Clip(clip.frames[::-1], clip.times_s))
    for name in ("flow_dx_mean_per_sec_norm", "flow_dy_mean_per_sec_norm", "cam_tx_per_sec_norm"):
        np.testing.assert_allclose(rows(back, name)[::-1], -rows(there, name), rtol=0.05, err_msg=name)
    for name in ("cam_zoom_rate_per_sec", "cam_rotation_per_sec"):
        np.testing.assert_allclose(rows(back, name)[::-1], -rows(there, name), rtol=0.05, err_msg=name)


def test_identical_frames_do_not_move(flow_model: ModelHandle, room: Clip) -> None:
    still = run_flow(flow_model, clip_of(np.repeat(room.frames[:1], 3, axis=0)))
    assert still.arrays["pair_reliable_mask"].tolist() == [False, True, True]
    for name in (
        "motion_norm_per_sec_mean",
        "flow_mag_p95_per_sec_norm",
        "cam_zoom_rate_per_sec",
        "cam_tx_per_sec_norm",
    ):
        np.testing.assert_allclose(rows(still, name), 0, atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(rows(still, "bg_ratio"), 1)
    assert np.isnan(rows(still, "flow_dir_dispersion")).all()  # nothing moves, so there is no direction


def test_a_pair_across_a_cut_is_unreliable(bunny: Clip, bunny_flow: Artifact) -> None:
    """The film cuts at 11.875 s; the clip leaves out 7 to 11 s, which lie in one shot with a moving camera."""
    across = int(np.searchsorted(bunny.times_s, 11.875))
    assert rows(bunny_flow, "flow_consistency")[across - 1] < 0.1
    assert not bunny_flow.arrays["pair_reliable_mask"][across]
    inside = np.setdiff1d(np.arange(1, len(bunny)), [across, int(np.searchsorted(bunny.times_s, 11.0))])
    assert bunny_flow.arrays["pair_reliable_mask"][inside].all()


def test_unrelated_pictures_are_unreliable(flow_model: ModelHandle) -> None:
    flow = run_flow(flow_model, clip_of(np.stack([view(texture(seed)) for seed in range(6)])))
    assert rows(flow, "flow_consistency").max() < 0.25
    assert features(flow)["reliable_pair_ratio"] == 0


def test_camera_motion_is_told_from_an_object(flow_model: ModelHandle) -> None:
    """A synthetic object of a quarter of the frame crosses a panning background."""
    background = film(TEXTURE, 4, shift=(12, 0)).frames
    thing = texture(2)[:160, :284]
    frames = background.copy()
    for i, frame in enumerate(frames):
        frame[80:240, 200 - 20 * i : 484 - 20 * i] = thing
    alone, crossed = run_flow(flow_model, clip_of(background)), run_flow(flow_model, clip_of(frames))
    assert rows(alone, "bg_ratio").min() > 0.95
    np.testing.assert_allclose(rows(crossed, "bg_ratio"), 0.75, atol=0.1)
    np.testing.assert_allclose(rows(crossed, "cam_tx_per_sec_norm"), 12 / 0.25 / WIDTH, rtol=0.05)
    # The mean over all pixels is drawn towards the object, the camera's motion is not.
    np.testing.assert_allclose(
        rows(crossed, "flow_dx_mean_per_sec_norm"), (0.75 * 12 - 0.25 * 20) / 0.25 / WIDTH, rtol=0.25
    )


def test_motion_without_a_camera_model_has_none(flow_model: ModelHandle) -> None:
    """Synthetic: columns of the picture slide up and down, each with its own speed."""
    base = view(TEXTURE)
    moved = base.copy()
    for k in range(16):
        columns = slice(k * WIDTH // 16, (k + 1) * WIDTH // 16)
        moved[:, columns] = np.roll(base[:, columns], (-1) ** k * (6 + 2 * k), axis=0)
    flow = run_flow(flow_model, clip_of(np.stack([base, moved])))
    assert flow.arrays["bg_ratio"][1] < 0.25
    for name in flow.arrays:
        if name.startswith("cam_"):
            assert np.isnan(flow.arrays[name]).all(), name
    assert flow.arrays["motion_norm_per_sec_mean"][1] > 0


def test_shake_is_the_distance_from_the_usual_motion(flow_model: ModelHandle) -> None:
    """A synthetic camera glides by 4 px per frame; one frame is thrown 10 px down."""
    clip = film(TEXTURE, 9, shift=(4, 0))
    clip.frames[4] = view(TEXTURE, shift=(0, 10))
    shake = run_flow(flow_model, clip).arrays["cam_shake_std_norm"]
    jolt = 10 / 0.25 / WIDTH
    np.testing.assert_allclose(shake[[4, 5]], jolt, rtol=0.1)
    assert shake[[1, 2, 7, 8]].max() < 0.05 * jolt
    assert np.isnan(shake[0])


def test_another_algorithm_sees_the_same_motion(flow_model: ModelHandle, bunny: Clip) -> None:
    """Farneback's flow (OpenCV) of the tilt from 3 to 7 s, where there is texture; the sky has none."""
    flow = FlowModel(flow_model, StageTimer())
    frames = flow.prepare(bunny.frames[:9])
    forward, _ = flow.both_ways(frames)
    greys = [
        cv2.cvtColor(np.rint(frame.transpose(1, 2, 0)).astype(np.uint8), cv2.COLOR_RGB2GRAY) for frame in frames.canvas
    ]
    for (before, after), ours in zip(itertools.pairwise(greys), forward, strict=True):
        other = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 4, 15, 5, 5, 1.1, 0)
        textured = cv2.blur(np.abs(cv2.Laplacian(before, cv2.CV_32F)), (15, 15)) > 10
        textured[:15] = textured[-15:] = textured[:, :15] = textured[:, -15:] = False
        apart = np.hypot(*(ours - other)[textured].T)
        assert np.median(apart) < 0.1 * np.median(np.hypot(*other[textured].T))


def test_the_analysis_size_does_not_enter(flow_model: ModelHandle) -> None:
    half = cv2.resize(TEXTURE, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    large = run_flow(flow_model, film(TEXTURE, 3, shift=(12, 10), zoom=1.02))
    small = run_flow(flow_model, film(half, 3, shift=(6, 5), zoom=1.02, width=WIDTH // 2, height=HEIGHT // 2))
    for name in ("motion_norm_per_sec_mean", "cam_tx_per_sec_norm", "cam_ty_per_sec_norm", "cam_zoom_rate_per_sec"):
        np.testing.assert_allclose(rows(small, name), rows(large, name), rtol=0.08, err_msg=name)


def test_rates_divide_by_the_gap(flow_model: ModelHandle, room: Clip, room_flow: Artifact) -> None:
    slow = run_flow(flow_model, Clip(room.frames, room.times_s * 4))
    for name in ("motion_norm_per_sec_mean", "flow_mag_std_per_sec_norm", "flow_div_abs_mean", "cam_zoom_rate_per_sec"):
        np.testing.assert_allclose(rows(slow, name) * 4, rows(room_flow, name), rtol=1e-5, err_msg=name)
    for name in ("bg_ratio", "flow_consistency", "cam_affine_scale", "flow_dir_dispersion"):
        np.testing.assert_array_equal(rows(slow, name), rows(room_flow, name), err_msg=name)
    assert features(slow)["pair_dt_median_s"] == pytest.approx(4 * features(room_flow)["pair_dt_median_s"])


def test_previews_show_evenly_spread_pairs(room: Clip, room_flow: Artifact) -> None:
    at, maps = room_flow.arrays["preview_pair_pos"], room_flow.arrays["preview_flow_mag_map_norm"]
    assert len(at) == 10
    assert (at[0], at[-1]) == (1, len(room) - 1)
    assert np.diff(at).max() - np.diff(at).min() <= 1
    np.testing.assert_allclose(
        maps.astype(np.float64).mean(axis=(1, 2)), room_flow.arrays["motion_norm_per_sec_mean"][at], rtol=2e-3
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_do_not_matter(flow_model: ModelHandle, room: Clip, room_flow: Artifact, batch_size: int) -> None:
    assert_same(room_flow, run_flow(flow_model, room, batch_size), rtol=0, atol=0)


def test_a_pair_does_not_depend_on_its_neighbours(flow_model: ModelHandle, room: Clip, room_flow: Artifact) -> None:
    alone = run_flow(flow_model, room.take(slice(4, 6)))
    assert alone.arrays["motion_norm_per_sec_mean"][1] == room_flow.arrays["motion_norm_per_sec_mean"][5]
    assert alone.arrays["flow_consistency"][1] == room_flow.arrays["flow_consistency"][5]


@dataclass(frozen=True)
class Cramped(Respecified):
    """A model whose device has memory for two pairs."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["image1"]) > 2:
            raise TrendFlowError("out_of_memory", "The allocation failed.")
        return super().infer(inputs)


def test_scarce_memory_makes_smaller_batches_of_all_pairs(
    flow_model: ModelHandle, room: Clip, room_flow: Artifact
) -> None:
    assert_same(room_flow, run_flow(Cramped.of(flow_model), room), rtol=0, atol=0)


def test_each_frame_is_read_once(flow_model: ModelHandle, room: Clip) -> None:
    inputs = flow_inputs(flow_model, room, batch_size=4)
    core_optical_flow.run(inputs)
    assert inputs.samples is not None
    assert isinstance(inputs.samples.reader, ArrayReader)
    assert inputs.samples.reader.reads == list(range(len(room)))


@pytest.mark.parametrize("grey", [0, 255])
def test_uniform_frames_are_still(flow_model: ModelHandle, grey: int) -> None:
    flow = run_flow(flow_model, flat_clip(grey))
    assert features(flow) == {"reliable_pair_ratio": 1, "pair_dt_median_s": 0.25}
    np.testing.assert_array_equal(rows(flow, "motion_norm_per_sec_mean"), 0)
    np.testing.assert_array_equal(rows(flow, "bg_ratio"), 1)


def test_a_single_frame_has_no_pair(flow_model: ModelHandle, room: Clip) -> None:
    flow = run_flow(flow_model, room.take(slice(0, 1)))
    assert (flow.status, flow.empty_reason) == ("empty", "too_few_frames")
    assert np.isnan(list(features(flow).values())).all()
    assert np.isnan(flow.arrays["motion_norm_per_sec_mean"]).all()
    assert not flow.arrays["pair_valid_mask"].any()
    assert len(flow.arrays["preview_pair_pos"]) == 0


@pytest.mark.parametrize(("width", "height"), [(16, 16), (2, 2), (640, 40), (40, 640), (960, 2)])
def test_odd_frames_are_measured(flow_model: ModelHandle, width: int, height: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    flow = run_flow(flow_model, clip_of(frames, gap_s=600.0))
    assert flow.status == "ok"
    assert np.isfinite(rows(flow, "motion_norm_per_sec_mean")).all()


def test_row_0_is_nan(room_flow: Artifact, room: Clip) -> None:
    for name, values in room_flow.arrays.items():
        if values.dtype == np.float32 and values.shape == (len(room),):
            assert np.isnan(values[0]), name
    assert not room_flow.arrays["pair_valid_mask"][0]
    assert room_flow.arrays["pair_valid_mask"][1:].all()


@pytest.mark.parametrize("times", [[0.0, 0.5, 0.5], [0.0, 0.5, 0.4], [0.0, np.nan, 1.0]])
def test_times_that_do_not_increase_are_refused(flow_model: ModelHandle, room: Clip, times: list[float]) -> None:
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        core_optical_flow.run(flow_inputs(flow_model, Clip(room.frames[:3], np.array(times))))


@dataclass(frozen=True)
class Broken(Respecified):
    """A model that computes one vector in vain and whose runtime does not check that."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        flow = super().infer(inputs)["flow"].copy()
        flow[0, 0, 3, 3] = np.nan
        return {"flow": flow}


def test_vectors_that_are_not_finite_are_refused(flow_model: ModelHandle, room: Clip) -> None:
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        run_flow(Broken.of(flow_model), room.take(slice(0, 2)))


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("preprocessing", {"geometry": "shorter_side_center_crop", "resize_shorter": 200, "width": 100, "height": 100}),
        ("postprocessing", {"channel_order": ["y", "x"]}),
        ("postprocessing", {"output_units": "share_of_canvas"}),
    ],
)
def test_an_entry_that_describes_another_model_is_refused(
    flow_model: ModelHandle, room: Clip, group: str, change: dict[str, object]
) -> None:
    odd = Respecified.of(flow_model, **{group: getattr(flow_model.entry, group) | change})
    with pytest.raises(TrendFlowError, match="model_spec_invalid"):
        run_flow(odd, room.take(slice(0, 2)))


def test_an_unmapped_model_is_named(flow_model: ModelHandle, room: Clip) -> None:
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        core_optical_flow.run(replace(flow_inputs(flow_model, room), models={}))


def test_a_still_camera_in_a_real_room(room_flow: Artifact) -> None:
    assert features(room_flow)["reliable_pair_ratio"] == 1
    assert np.median(rows(room_flow, "bg_ratio")) > 0.95
    assert np.abs(rows(room_flow, "cam_tx_per_sec_norm")).max() < 0.01
    assert np.abs(rows(room_flow, "cam_zoom_rate_per_sec")).max() < 0.02
