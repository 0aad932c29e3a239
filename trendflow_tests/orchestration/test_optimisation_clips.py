"""Frames to optimise models with: from stored runs and from files they are the same frames."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from trendflow.contracts.manifest import update_run
from trendflow.optimisation.clips import clips_of_files, clips_of_runs
from trendflow.orchestration.deployment import Deployment
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import Execute, Submit

SEGMENTER = {"segmenter"}


def test_stored_runs_give_each_source_once_with_the_frames_of_the_component(
    deployment: Deployment, clip: Path, other_clip: Path, submit: Submit, execute: Execute, tmp_path: Path
) -> None:
    for source, video in ((clip, "clip-a"), (clip, "clip-b"), (other_clip, "clip-c")):
        execute(submit(deployment, source, video_id=video), SEGMENTER)
    found = clips_of_runs(deployment.results, deployment.store, "core_clip", 9, tmp_path / "scratch")
    assert [one.sha256 for one in found] == [
        hashlib.sha256(source.read_bytes()).hexdigest() for source in (clip, other_clip)
    ]
    assert [len(one) for one in found] == [60, 60]  # all there are: 6 s at 10 frames per second
    assert found[0].video.duration_sec == 6.0
    (first,) = clips_of_runs(deployment.results, deployment.store, "core_clip", 1, tmp_path / "scratch")
    third = write_clip(tmp_path / "synthetic3.mp4", seed=2)
    decoded, *_ = clips_of_files([clip, other_clip, third], "core_clip", (200, 400, 800), tmp_path / "files")
    assert (decoded.name, decoded.sha256) == (clip.name, first.sha256)
    np.testing.assert_array_equal(decoded.times_s, first.times_s)
    wanted = np.array([0, 31, 59])
    np.testing.assert_array_equal(
        decoded.frames.read(decoded.indices[wanted]), first.frames.read(first.indices[wanted])
    )


def test_frames_that_have_expired_are_not_used(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, tmp_path: Path
) -> None:
    run = submit(deployment, clip)
    execute(run, SEGMENTER)
    block = run.manifest()["run"]["frames_dir"] | {"expires_at": "2020-01-01T00:00:00.000Z"}
    deployment.results.update_manifest(run.run_path, lambda manifest: update_run(manifest, frames_dir=block))
    assert clips_of_runs(deployment.results, deployment.store, "core_clip", 9, tmp_path) == []
