"""Fixtures of the media tests: the Segmenter on synthetic files, and cached runs over the corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trendflow.media.segmenter import Segmented, segment
from trendflow_tests.media.clips import NO_MINIMUM, request_for


@pytest.fixture
def run_segmenter(tmp_path: Path) -> Callable[..., Segmented]:
    """`run_segmenter(path, **request fields)` in a fresh scratch folder."""
    count = 0

    def run(source: Path, **changes: Any) -> Segmented:
        nonlocal count
        count += 1
        return segment(request_for(source, tmp_path / f"frames{count}", **changes))

    return run


@pytest.fixture(scope="session")
def corpus_segmentation(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Segmented]:
    """Segmentation of one corpus file without a minimum duration; computed once per session."""
    found: dict[str, Segmented] = {}

    def get(name: str) -> Segmented:
        if name not in found:
            scratch = tmp_path_factory.mktemp("segmented") / "frames"
            found[name] = segment(request_for(data_dir / "video" / name, scratch, limits=NO_MINIMUM))
        return found[name]

    return get
