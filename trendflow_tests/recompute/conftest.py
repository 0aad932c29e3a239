"""One run of the starter profile that every module here reads, and the clip it is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from trendflow.config import Settings
from trendflow.contracts.package_data import data_path
from trendflow.contracts.video_document import Transcript, TranscriptSegment, VideoDocument, parse_document
from trendflow.models.pool import ModelPool
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.runs import new_run_id, submit_run
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.corpus.footage import Footage, footage
from trendflow_tests.orchestration.runs import fewer_pictures, with_profile
from trendflow_tests.recompute.stored import StoredRun

PICTURES = 60, 80  # least and wanted number of frames for whoever runs a model on them
HEIGHT, WIDTH = 360, 640
WEBCAM = 114, 84, 256, 144
"""Part of the sample that shows the man: left, top, width, height in pixels of the source."""
SPOKEN = (
    (0.4, 2.1, "Hello everybody, this is a short test, a test of speech", 0.9),
    (2.6, 4.8, "I sit in front of a terminal and speak about the terminal", 0.7),
    (5.5, 7.9, "Thank you very much and good bye", 0.8),
)


def recut(sample: Path, path: Path) -> Path:
    """EDITED from the sample: screen, man enlarged, darker screen, man into black; the sound is its own.

    Hard cuts at 1.8, 4.4 and 6.9 s, a flash of two frames at 3 s, a fade to black in the last second.
    """
    screen = footage(sample, height=HEIGHT)
    man = footage(sample, region=WEBCAM)
    pictures, times_s = screen.pictures.copy(), screen.times_s
    for row in np.flatnonzero(((times_s >= 1.8) & (times_s < 4.4)) | (times_s >= 6.9)):
        pictures[row] = cv2.resize(man.pictures[row], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    flash = int(np.searchsorted(times_s, 3.0))
    pictures[flash : flash + 2] = np.minimum(pictures[flash : flash + 2].astype(np.int32) + 120, 255)
    light = np.where((times_s >= 4.4) & (times_s < 6.9), 0.7, np.clip(times_s[-1] - times_s, 0, 1))
    for row in np.flatnonzero(light < 1):
        pictures[row] = pictures[row] * light[row]
    return Footage(pictures, times_s, screen.audio).write(path)


@pytest.fixture(scope="session")
def document(repo_root: Path) -> VideoDocument:
    """The text of the sample, with a SYNTHETIC transcript."""
    written = parse_document((repo_root / "samples" / "hello_face_speech.document.json").read_bytes())
    segments = tuple(TranscriptSegment(*segment) for segment in SPOKEN)
    return dataclasses.replace(written, transcript=Transcript("platform", "2026-01-01T00:00:00Z", segments))


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    sample_video: Path,
    models_dir: Path,
    pool: ModelPool,
    document: VideoDocument,
) -> StoredRun:
    """The recut sample, processed once."""
    home, source = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("clip") / "recut.mp4"
    deployment = Deployment(Settings(home=home, models=models_dir, onnx_threads=1))
    vars(deployment)["pool"] = pool
    with_profile(deployment, fewer_pictures(*PICTURES))
    run = submit_run(
        deployment,
        locator=str(recut(sample_video, source)),
        source_type="local_path",
        platform_id="upload",
        video_id="recut-sample",
        run_id=new_run_id(),
        profile="starter",
        document=document,
    )
    with providing(run, document):
        for node in run.enabled:
            done = run_component(run, node.name, sleep=lambda seconds: None)
            assert done.origin == "computed", f"{node.name}: {done.meta['error']}"
            persist(run, done)
    return StoredRun(
        source=source,
        results=home / "store" / "result_store" / run.run_path,
        frames_dir=home / "store" / "frames_store" / run.run_path,
        models=models_dir,
        catalogue=data_path("models/catalogue.yaml"),
        profile_models=run.profile.models,
        document=document,
    )
