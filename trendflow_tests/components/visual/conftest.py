"""Models, clips and finished artifacts shared by the tests of the visual core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trendflow.components.visual import core_face_landmarks, core_object_detections
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.schema import SchemaRegistry
from trendflow.models.pool import ModelPool
from trendflow_tests.components.visual.clips import Bench, Clip, decode, flat_clip


@pytest.fixture(scope="session")
def bench(pool: ModelPool) -> Bench:
    return Bench(pool, SchemaRegistry.load())


@pytest.fixture(scope="session")
def hello(sample_video: Path) -> Clip:
    """26 frames of the shipped clip at analysis size: a man in a small webcam picture beside a terminal."""
    return decode(sample_video, 1 / 3)


@pytest.fixture(scope="session")
def hello_objects(bench: Bench, hello: Clip) -> Artifact:
    return bench.run(core_object_detections, hello)


@pytest.fixture(scope="session")
def hello_faces(bench: Bench, hello: Clip, hello_objects: Artifact) -> Artifact:
    return bench.run(core_face_landmarks, hello, upstream=hello_objects)


@pytest.fixture(scope="session")
def people(data_dir: Path) -> Clip:
    """50 frames of a fixed camera: people come one by one, stand with their backs to it and leave."""
    return decode(data_dir / "video" / "people_139s.mp4", 2.8)


@pytest.fixture(scope="session")
def profiles(data_dir: Path) -> Clip:
    """The moments when two of these people turn and leave: a face is seen from the side, never from the front."""
    return decode(data_dir / "video" / "people_139s.mp4", 0.2, windows=((85.0, 86.5), (133.8, 135.2)))


@pytest.fixture(params=["black", "white", "one frame"])
def extreme(request: pytest.FixtureRequest, hello: Clip) -> Clip:
    """Inputs every component must survive."""
    if request.param == "one frame":
        return hello.take(np.array([5]))
    return flat_clip(0 if request.param == "black" else 255)
