"""Pacing, repetition and story of real videos, with the embeddings, motion, cuts and faces the components find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest

from trendflow.components.base import Upstream
from trendflow.components.visual import (
    core_clip,
    core_optical_flow,
    cut_detection,
    story_structure,
    uniqueness,
    video_pacing,
)
from trendflow.contracts.artifact import Artifact
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool
from trendflow_tests.components.cuts import clips as cuts_clips
from trendflow_tests.components.cuts.dense_reference import RASTER
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.components.structure.scripted import Script, features
from trendflow_tests.components.visual.clips import Bench, Clip

# The films are measured once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("structure-of-real-videos")

CUT_TIMES_S = (11.875, 15.75, 23.0417)


@dataclass(frozen=True)
class Film:
    """A video with what was measured on it."""

    script: Script
    cuts: Artifact

    def run(self, component: ModuleType) -> Artifact:
        inputs = self.script.inputs(component)
        upstream = dict(inputs.upstream)
        if "cut_detection" in upstream:
            upstream["cut_detection"] = Upstream("cut_detection", "ok", None, self.cuts.arrays, {})
        artifact: Artifact = component.run(replace(inputs, upstream=upstream))
        assert schema_problems(component, artifact) == []
        return artifact


def decode_once(path: Path, every: int) -> tuple[Clip, cuts_clips.Clip]:
    """Every `every`-th frame with its shorter side scaled to 320, and all frames as small rasters."""
    frames, times_s, rasters, pts = [], [], [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        size = round(320 * stream.width / stream.height / 2) * 2, 320
        for number, frame in enumerate(container.decode(stream)):
            rgb = frame.to_ndarray(format="rgb24")
            rasters.append(cv2.resize(rgb, RASTER, interpolation=cv2.INTER_AREA))
            pts.append(frame.pts)
            if number % every == 0:
                frames.append(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
                times_s.append(frame.time)
        base = (stream.time_base.numerator, stream.time_base.denominator)
    return Clip(np.stack(frames), np.array(times_s)), cuts_clips.Clip(np.stack(rasters), np.array(pts), base)


@pytest.fixture(scope="module")
def flow_model(pool: ModelPool) -> ModelHandle:
    return pool.get(Catalogue.load()["dis_flow_320"])


def film_of(
    bench: Bench, flow_model: ModelHandle, sampled: Clip, source: cuts_clips.Clip, faces: np.ndarray | None = None
) -> Film:
    """`sampled` frames are the union, `source` all frames as small rasters."""
    dense = source.dense()
    duration_s = float(dense["pts_sec"][-1] + np.median(np.diff(dense["pts_sec"])))
    vectors = bench.run(core_clip, sampled).arrays["frame_embeddings"]
    flow = bench.run(core_optical_flow, sampled, models={"optical_flow": flow_model}).arrays
    script = Script(
        sampled.times_s - sampled.times_s[0],
        vectors,
        duration_s,
        motion=flow["motion_norm_per_sec_mean"],
        reliable=flow["pair_reliable_mask"],
        frames=sampled.frames,
        dense=dense,
        faces=faces,
    )
    return Film(script, cut_detection.run(source.inputs(dense=dense, every=4)))


@pytest.fixture(scope="module")
def bunny(bench: Bench, flow_model: ModelHandle, data_dir: Path) -> Film:
    """Hard cuts at 11.875, 15.75 and 23.042 s of 30 s; the first second fades in from black."""
    sampled, source = decode_once(data_dir / "video" / "big_buck_bunny_480p_30s.mp4", every=12)
    return film_of(bench, flow_model, sampled, source)


@pytest.fixture(scope="module")
def talking_head(bench: Bench, flow_model: ModelHandle, hello: Clip, hello_faces: Artifact) -> Film:
    """A man at a screen in one shot of 8 s; only the sampled frames stand for the source."""
    rasters = np.stack([cv2.resize(frame, RASTER, interpolation=cv2.INTER_AREA) for frame in hello.frames])
    source = cuts_clips.Clip(rasters, np.round(hello.times_s * 1000).astype(np.int64), (1, 1000))
    return film_of(bench, flow_model, hello, source, hello_faces.arrays["face_present"])


def at_cuts(film: Film) -> np.ndarray:
    """Rows of the first sample after each cut."""
    return np.searchsorted(film.script.times_s, np.array(CUT_TIMES_S) - 1e-3)


def test_pacing_of_a_film_with_three_cuts(bunny: Film) -> None:
    artifact = bunny.run(video_pacing)
    got, arrays = features(artifact), artifact.arrays
    np.testing.assert_allclose(arrays["cut_density_8"] * bunny.script.length_s / 8, [0, 0, 0, 1, 1, 0, 1, 0], atol=1e-5)
    assert got["cuts_per_10s_max"] == 2
    assert got["main_shot_duration_median_s"] == pytest.approx(23.0417 - 15.75, abs=0.01)
    assert got["outro_shot_duration_median_s"] == pytest.approx(bunny.script.length_s - 23.0417, abs=0.01)
    assert got["luma_spikes_per_min"] == 0
    assert np.isfinite([got[f"motion_third_{k}_mean"] for k in (1, 2, 3)]).all()
    rows = at_cuts(bunny)
    elsewhere = np.setdiff1d(np.arange(1, len(bunny.script.times_s)), rows)
    for name in ("semantic_change_rate_per_sec", "color_change_rate_per_sec"):
        assert arrays[name][rows].min() > 5 * np.median(arrays[name][elsewhere]), name


def test_the_story_of_a_film_with_three_cuts(bunny: Film) -> None:
    """Nobody cuts in the first 4.5 s, and no face is human."""
    artifact = bunny.run(story_structure)
    got, change = features(artifact), artifact.arrays["embedding_change_rate_per_sec"]
    assert change[at_cuts(bunny)].min() > np.nanpercentile(change, 90)
    assert got["hook_cut_rate"] == 0
    assert got["hook_face_present_ratio"] == 0
    assert got["climax_energy_diff"] > 0


def test_a_film_repeats_itself_when_it_is_played_twice(bunny: Film) -> None:
    once = features(bunny.run(uniqueness))
    script = bunny.script
    twice = replace(
        script,
        times_s=np.concatenate([script.times_s, script.times_s + script.length_s]),
        vectors=np.concatenate([script.vectors, script.vectors]),
        duration_s=2 * script.length_s,
        motion=None,
        reliable=None,
    )
    assert features(twice.run(uniqueness))["repetition_ratio"] == 1.0
    assert once["repetition_ratio"] < 0.5
    assert once["effective_count_frac"] > 2 * features(twice.run(uniqueness))["effective_count_frac"] * 0.99


def test_a_talking_head_is_still_and_has_a_face_throughout(talking_head: Film, bunny: Film) -> None:
    head, film = features(talking_head.run(uniqueness)), features(bunny.run(uniqueness))
    assert head["mean_pairwise_distance"] < film["mean_pairwise_distance"] / 3
    assert head["max_sim_mean"] > 0.95
    story = features(talking_head.run(story_structure))
    assert min(story[f"face_present_ratio_third_{k}"] for k in (1, 2, 3)) > 0.8
    assert story["hook_face_present_ratio"] == 1.0
    assert story["hook_cut_rate"] == 0.0
    pace = features(talking_head.run(video_pacing))
    assert pace["color_change_rate_mean"] < features(bunny.run(video_pacing))["color_change_rate_mean"] / 2
    assert np.isnan(pace["pace_slope"])
    moving, still = (features(film.run(story_structure))["energy_mean"] for film in (bunny, talking_head))
    assert moving > 2 * still
