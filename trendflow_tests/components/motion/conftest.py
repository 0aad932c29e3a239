"""The shipped flow model and runs of it that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.contracts.artifact import Artifact
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool
from trendflow_tests.components.motion.bench import run_flow
from trendflow_tests.components.visual.clips import Clip, decode


@pytest.fixture(scope="session")
def flow_model(pool: ModelPool) -> ModelHandle:
    return pool.get(Catalogue.load()["dis_flow_320"])


@pytest.fixture(scope="session")
def room(sample_video: Path) -> Clip:
    """11 frames of the shipped clip: a terminal that does not move beside a man who does."""
    return decode(sample_video, 0.75)


@pytest.fixture(scope="session")
def room_flow(flow_model: ModelHandle, room: Clip) -> Artifact:
    return run_flow(flow_model, room)


@pytest.fixture(scope="session")
def bunny(data_dir: Path) -> Clip:
    """Big Buck Bunny from 3 s: the camera tilts up over a landscape, then hard cuts at 11.875 and 15.75 s."""
    return decode(data_dir / "video" / "big_buck_bunny_480p_30s.mp4", 0.25, windows=((3.0, 7.1), (11.0, 13.0)))


@pytest.fixture(scope="session")
def bunny_flow(flow_model: ModelHandle, bunny: Clip) -> Artifact:
    return run_flow(flow_model, bunny)
