"""Whip pans and zooms, found by cut detection in the motion that the flow component really measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from trendflow.components.base import Upstream
from trendflow.components.visual import cut_detection
from trendflow.contracts.artifact import Artifact
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool
from trendflow_tests.components.cuts.clips import Clip, events, feature
from trendflow_tests.components.motion.bench import run_flow
from trendflow_tests.components.motion.camera import texture, view
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.components.visual import clips as visual

FPS = 24
PICTURE = texture(11, width=1800)
WIDTH, HEIGHT = 284, 160


@pytest.fixture(scope="module")
def flow_model(pool: ModelPool) -> ModelHandle:
    return pool.get(Catalogue.load()["dis_flow_320"])


def motion_of(model: ModelHandle, clip: visual.Clip) -> Upstream:
    flow = run_flow(model, clip)
    return Upstream("core_optical_flow", flow.status, flow.empty_reason, flow.arrays, flow.meta)


def detect(model: ModelHandle, frames: np.ndarray, every: int = 3) -> Artifact:
    """Cut detection on samples at 8 Hz, with the flow of the same samples."""
    times_s = np.arange(len(frames)) / FPS
    flow = motion_of(model, visual.Clip(frames[::every], times_s[::every]))
    rasters = np.stack([cv2.resize(frame, (96, 54), interpolation=cv2.INTER_AREA) for frame in frames])
    artifact = cut_detection.run(Clip.at_rate(rasters, FPS).inputs(every=every, upstream={"core_optical_flow": flow}))
    assert schema_problems(cut_detection, artifact) == []
    return artifact


def shots(offsets: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """The synthetic picture seen by a camera at these offsets (frame widths) and enlargements."""
    return np.stack(
        [
            view(PICTURE, shift=(x * WIDTH, 0.0), zoom=zoom, width=WIDTH, height=HEIGHT)
            for x, zoom in zip(offsets, zooms, strict=True)
        ]
    )


def spans(artifact: Artifact, kind: str) -> list[tuple[float, float]]:
    arrays = artifact.arrays
    rows = np.isin(arrays["event_source_frame"], events(artifact, kind))
    rows &= arrays["event_type_id"] == arrays["event_type_names"].tolist().index(kind)
    return list(zip(arrays["event_start_time_s"][rows], arrays["event_end_time_s"][rows], strict=True))


def test_a_whip_pan_is_seen_where_it_is(flow_model: ModelHandle) -> None:
    """Still for a second, 1.5 frame widths per second for a second, still again."""
    t = np.arange(3 * FPS) / FPS
    artifact = detect(flow_model, shots(-1.5 * np.clip(t - 1, 0, 1) + 0.75, np.ones(len(t))))
    ((start, end),) = spans(artifact, "whip_pan")
    assert (start, end) == pytest.approx((1.0, 2.0), abs=3 / FPS)
    assert feature(artifact, "whip_pan_per_min") == pytest.approx(20)
    assert feature(artifact, "zoom_per_min") == 0
    assert feature(artifact, "hard_cut_count") == 0
    np.testing.assert_allclose(np.nanmax(artifact.arrays["flow_mag"]), 1.5, rtol=0.1)


@pytest.mark.parametrize("rate", [0.3, -0.3])
def test_a_zoom_is_seen_where_it_is(flow_model: ModelHandle, rate: float) -> None:
    t = np.arange(3 * FPS) / FPS
    artifact = detect(flow_model, shots(np.zeros(len(t)), 1.3 * np.exp(rate * np.clip(t - 1, 0, 1))))
    ((start, end),) = spans(artifact, "zoom")
    assert (start, end) == pytest.approx((1.0, 2.0), abs=3 / FPS)
    assert feature(artifact, "zoom_per_min") == pytest.approx(20)
    assert feature(artifact, "whip_pan_per_min") == 0


def test_a_slow_pan_is_no_event(flow_model: ModelHandle) -> None:
    t = np.arange(2 * FPS) / FPS
    artifact = detect(flow_model, shots(-0.3 * t, np.ones(len(t))))
    assert feature(artifact, "whip_pan_per_min") == 0
    assert feature(artifact, "zoom_per_min") == 0
    np.testing.assert_allclose(artifact.arrays["flow_mag"], 0.3, rtol=0.1)


def test_a_cut_between_still_pictures_is_no_camera_move(flow_model: ModelHandle) -> None:
    """Across the cut the vectors are long and senseless; no event may rest on them."""
    other = texture(12)
    frames = np.concatenate(
        [
            shots(np.zeros(FPS), np.ones(FPS)),
            np.repeat(view(other, width=WIDTH, height=HEIGHT)[None], FPS, axis=0),
        ]
    )
    artifact = detect(flow_model, frames)
    assert events(artifact, "hard_cut") == [FPS]
    assert feature(artifact, "whip_pan_per_min") == 0
    assert feature(artifact, "zoom_per_min") == 0
    across = np.flatnonzero(~artifact.arrays["flow_valid_mask"])
    assert artifact.arrays["times_s"][across].tolist() == [pytest.approx(1 - 3 / FPS)]


def test_without_a_reliable_pair_camera_moves_are_unknown(flow_model: ModelHandle) -> None:
    """Four unrelated synthetic pictures, one per sample."""
    pictures = [view(texture(20 + k), width=WIDTH, height=HEIGHT) for k in range(4)]
    artifact = detect(flow_model, np.repeat(np.stack(pictures), 3, axis=0))
    assert np.isnan(feature(artifact, "whip_pan_per_min"))
    assert np.isnan(feature(artifact, "zoom_per_min"))
    assert artifact.meta["absent_features"]["zoom_per_min"] == "core_optical_flow has no reliable pair"


def test_a_calm_film_has_no_camera_move(
    real_clip: Callable[[str], Clip], flow_model: ModelHandle, data_dir: Path
) -> None:
    """Big Buck Bunny with its hard cuts and its slow tilt, sampled every tenth frame."""
    name, every = "big_buck_bunny_480p_30s.mp4", 10
    inputs = real_clip(name).inputs(every=every)
    samples = visual.decode(data_dir / "video" / name, every / FPS)
    flow = motion_of(flow_model, visual.Clip(samples.frames, inputs.need_samples().times_s))
    artifact = cut_detection.run(replace(inputs, upstream={**inputs.upstream, "core_optical_flow": flow}))
    assert feature(artifact, "whip_pan_per_min") == 0
    assert feature(artifact, "zoom_per_min") == 0
    assert artifact.arrays["flow_valid_mask"].mean() > 0.85
