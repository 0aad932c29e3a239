"""Shots from a file: the Segmenter and cut_detection against PySceneDetect's AdaptiveDetector, in time and in F1.

Both begin with the file and end with the list of hard cuts. PySceneDetect is called as its documentation shows, with
its own choice of decoder and scale. The Segmenter's time includes all it does for the other components, so the ratio
is an upper bound of what the cuts cost. cut_detection gets no evidence of other components here, as its rival has none.

F1 is counted twice: over the labelled real videos, which have few cuts, and over a SYNTHETIC edit, spans of five of
them in turns, whose cuts are known because they were made.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from scenedetect import AdaptiveDetector, detect

from benchmarks.common import SAMPLE, Row, interleaved, large_video, median_ratio, spread
from benchmarks.pipeline import DirectRun, submit, temporary_deployment
from trendflow.media import worker
from trendflow.orchestration.deployment import Deployment
from trendflow_tests.components.cuts.truth import HARD_CUTS
from trendflow_tests.corpus.footage import at_rate, footage, resized

REPEATS = 3
# PySceneDetect opens the first stream of a file, the Segmenter the best one; the decoder of its OpenCV knows no AV1;
# 4 s are too short for the Segmenter.
LEFT_OUT = {"nasa_two_streams.mp4", "testsrc_av1.mkv", "bbb_4k_4s.mp4"}
# Spans in seconds without a cut inside. Neighbours show different places, so every joint is a cut.
SPANS = (
    ("people_139s.mp4", 10.0, 130.0),
    ("big_buck_bunny_480p_30s.mp4", 5.0, 11.5),
    ("cars_topdown_30s.mp4", 1.0, 25.0),
    ("big_buck_bunny_480p_30s.mp4", 24.0, 30.0),
    ("nasa_two_streams.mp4", 0.5, 7.5),
    ("hello_face_speech.mp4", 0.5, 7.5),
    ("big_buck_bunny_480p_30s.mp4", 16.5, 22.5),
    ("nasa_two_streams.mp4", 8.5, 12.5),
)
EDIT_SHOTS, EDIT_FPS, EDIT_SIZE = 48, 24, (240, 426)


def our_cuts(deployment: Deployment, video: Path) -> list[float]:
    """Times in seconds at which new shots begin."""
    with tempfile.TemporaryDirectory(dir=deployment.settings.home) as scratch:
        direct = DirectRun(submit(deployment, video), Path(scratch))
        direct.compute("segmenter")
        arrays = direct.compute("cut_detection").arrays
    return [float(time) for time in arrays["event_time_s"][arrays["event_type_id"] == 0]]


def their_cuts(video: Path) -> list[float]:
    """Times in seconds at which new shots begin."""
    return [start.seconds for start, _ in detect(str(video), AdaptiveDetector())[1:]]


def frame_times(video: Path) -> np.ndarray:
    """Seconds of every frame from the first, in the order in which they are shown."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        times = [frame.time for frame in container.decode(stream) if frame.time is not None]
    return np.array(times) - times[0]


def f1(found: Sequence[Sequence[float]], truth: Sequence[Sequence[float]], tolerance_s: Sequence[float]) -> float:
    """F1 over all videos; a cut is found when one of the list lies within the tolerance of its video."""
    hits = sum(
        any(abs(time - cut) <= within for time in times)
        for times, cuts, within in zip(found, truth, tolerance_s, strict=True)
        for cut in cuts
    )
    return 2 * hits / (sum(map(len, found)) + sum(map(len, truth)))


def labelled_videos() -> dict[Path, list[float]]:
    """Real video → times of its cuts."""
    paths = {name: large_video(name) for name in HARD_CUTS if name not in LEFT_OUT}
    return {
        path: [float(frame_times(path)[frame]) for frame in HARD_CUTS[name]] for name, path in paths.items() if path
    }


def synthetic_edit(folder: Path) -> dict[Path, list[float]]:
    """One film of `EDIT_SHOTS` shots of 0.5 to 2.5 s → times of its cuts."""
    rng = np.random.default_rng(11)
    shots: list[np.ndarray] = []
    for number in range(EDIT_SHOTS):
        name, start, stop = SPANS[number % len(SPANS)]
        length = rng.uniform(0.5, 2.5)
        source = large_video(name)
        if source is None:
            return {}
        begin = rng.uniform(start, stop - length)
        shots.append(resized(footage(source, begin, begin + length, height=EDIT_SIZE[0]).pictures, *EDIT_SIZE))
    first_frames = np.cumsum([len(shot) for shot in shots])[:-1]
    path = at_rate(np.concatenate(shots), EDIT_FPS).write(folder / "synthetic_edit.mp4")
    return {path: [float(frame / EDIT_FPS) for frame in first_frames]}


def accuracy(deployment: Deployment, truth: Mapping[Path, list[float]], subject: str) -> list[Row]:
    # One frame either way, and half a frame for times that were rounded.
    tolerance = [1.5 * float(np.median(np.diff(frame_times(video)))) for video in truth]
    cuts = list(truth.values())
    note = f"{sum(map(len, cuts))} cuts, videos: {len(cuts)}"
    ours = [our_cuts(deployment, video) for video in truth]
    theirs = [their_cuts(video) for video in truth]
    return [
        Row("F1 of hard cuts, cut_detection", subject, f1(ours, cuts, tolerance), "", note=note),
        Row("F1 of hard cuts, AdaptiveDetector", subject, f1(theirs, cuts, tolerance), "", note=note),
    ]


def measure() -> list[Row]:
    video = large_video("big_buck_bunny_480p_30s.mp4") or SAMPLE
    worker.warm_up()
    with temporary_deployment() as deployment:
        times = interleaved({"ours": lambda: our_cuts(deployment, video), "theirs": lambda: their_cuts(video)}, REPEATS)
        ratios = [a / b for a, b in zip(times["ours"], times["theirs"], strict=True)]
        seconds = {name: statistics.median(values) for name, values in times.items()}
        speed = Row(
            "Segmenter and cut_detection ÷ AdaptiveDetector",
            video.name,
            median_ratio(times["ours"], times["theirs"]),
            "×",
            note=f"{seconds['ours']:.2f} s against {seconds['theirs']:.2f} s, turns {spread(ratios)}",
        )
        rows = [speed]
        if labelled := labelled_videos():
            rows += accuracy(deployment, labelled, "labelled real videos")
        if edit := synthetic_edit(deployment.settings.home):
            rows += accuracy(deployment, edit, "SYNTHETIC edit of real videos")
        return rows
