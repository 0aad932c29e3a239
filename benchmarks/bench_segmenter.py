"""Segmenter wall time against reading the same file's video with PyAV, threaded, and throwing every frame away.

The media child is started before the clock: a worker starts it once and keeps it for all of its videos, while the
plain decoder finds its libraries imported as well.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import av

from benchmarks.common import SAMPLE, Row, interleaved, large_video, median_ratio, spread
from benchmarks.pipeline import fetch_source, submit, temporary_deployment
from trendflow.media import worker
from trendflow.media.segmenter import segment
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.segmenter_step import segment_request

GOAL = 1.3
REPEATS = 5


def decode(video: Path) -> int:
    """Frames of the best video stream, decoded and dropped."""
    with av.open(str(video)) as container:
        stream = max(container.streams.video, key=lambda found: found.width * found.height)
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def compare(deployment: Deployment, video: Path) -> Row:
    run = submit(deployment, video)
    scratch = Path(tempfile.mkdtemp(dir=deployment.settings.home))
    request = segment_request(run, fetch_source(run, scratch), scratch / "frames")
    times = interleaved({"segmenter": lambda: segment(request), "decode": lambda: decode(video)}, REPEATS)
    ratios = [a / b for a, b in zip(times["segmenter"], times["decode"], strict=True)]
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return Row(
        "Segmenter ÷ plain decoding",
        video.name,
        median_ratio(times["segmenter"], times["decode"]),
        "×",
        GOAL,
        f"{seconds['segmenter']:.2f} s against {seconds['decode']:.2f} s, turns {spread(ratios)}",
    )


def measure() -> list[Row]:
    videos = [SAMPLE, large_video("big_buck_bunny_480p_30s.mp4"), large_video("people_139s.mp4")]
    worker.warm_up()
    with temporary_deployment() as deployment:
        return [compare(deployment, video) for video in videos if video is not None]
