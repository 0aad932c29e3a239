"""Fixtures shared by the model tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trendflow.models.catalogue import Catalogue
from trendflow_tests.models.weights_server import Server, weights_server


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.fixture(scope="session")
def sample_frames(sample_video: Path) -> np.ndarray:
    """One frame per second of the shipped video, uint8 [9, 720, 1280, 3] RGB; a face is in each."""
    import av

    frames: list[np.ndarray] = []
    with av.open(str(sample_video)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= len(frames):
                frames.append(frame.to_ndarray(format="rgb24"))
    return np.stack(frames)


@pytest.fixture
def server() -> Iterator[Server]:
    with weights_server() as running:
        yield running
