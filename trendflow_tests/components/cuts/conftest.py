"""Real clips, decoded once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import pytest

from trendflow_tests.components.cuts.clips import Clip
from trendflow_tests.components.cuts.dense_reference import decode


@pytest.fixture(scope="session")
def real_clip(data_dir: Path) -> Callable[[str], Clip]:
    """Name of a test video → its best stream as 96x54 rasters with timestamps."""

    @cache
    def load(name: str) -> Clip:
        path = data_dir / "video" / name
        with av.open(str(path)) as container:
            streams = container.streams.video
            best = max(range(len(streams)), key=lambda i: streams[i].width * streams[i].height)
        return Clip(*decode(path, best))

    return load
