"""Components against the straightforward call of the library that is known for the same measurement.

The component always does more, so a ratio says what the additional evidence costs. Both sides get the same decoded
signal or frames; shot detectors, which read files, are compared in `bench_cuts`.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import librosa
import numpy as np
import pyloudnorm

from benchmarks.common import SAMPLE, Row, interleaved, large_video, median_ratio, spread
from benchmarks.pipeline import DirectRun, submit, temporary_deployment
from trendflow.components.base import AudioInput, FrameSamples
from trendflow.media import worker

REPEATS = 3
FLOW_SIDE = 320


def beat_track(audio: AudioInput) -> float:
    """Tempo in BPM."""
    tempo, _ = librosa.beat.beat_track(y=audio.mono, sr=audio.mono_rate)
    return float(np.atleast_1d(tempo)[0])


def integrated_loudness(audio: AudioInput) -> float:
    """LUFS. The meter takes at most five channels, in BS.1770's order, without the low-frequency one."""
    signal = np.delete(audio.full, 3, axis=1) if audio.full.shape[1] == 6 else audio.full
    return float(pyloudnorm.Meter(audio.full_rate).integrated_loudness(signal))


def flow_both_ways(samples: FrameSamples) -> float:
    """DIS with the preset of the catalogue between successive frames, there and back; mean length in pixels."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths: list[float] = []
    before: np.ndarray | None = None
    for row in range(len(samples)):
        frame = samples.read(row, row + 1)[0]
        scale = FLOW_SIDE / max(frame.shape[:2])
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        after = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if before is not None:
            there, back = (np.zeros((*after.shape, 2), dtype=np.float32) for _ in range(2))
            there, back = dis.calc(before, after, there), dis.calc(after, before, back)
            lengths.append(float(np.linalg.norm(there, axis=2).mean()))
        before = after
    return statistics.fmean(lengths)


def measure() -> list[Row]:
    video = large_video("big_buck_bunny_480p_30s.mp4") or SAMPLE
    worker.warm_up()
    with temporary_deployment() as deployment, tempfile.TemporaryDirectory(dir=deployment.settings.home) as scratch:
        direct = DirectRun(submit(deployment, video), Path(scratch))
        direct.compute("segmenter")

        def compare(component: str, library: str, plain: Callable[[], float]) -> Row:
            work = direct.prepare(component)
            times = interleaved({"component": work, "library": plain}, REPEATS)
            ratios = [a / b for a, b in zip(times["component"], times["library"], strict=True)]
            seconds = {name: statistics.median(values) for name, values in times.items()}
            return Row(
                f"{component} ÷ {library}",
                video.name,
                median_ratio(times["component"], times["library"]),
                "×",
                note=f"{seconds['component']:.2f} s against {seconds['library']:.2f} s, turns {spread(ratios)}",
            )

        audio = direct.inputs("tempo_extractor").need_audio()
        full = direct.inputs("loudness_extractor").need_audio()
        samples = direct.inputs("core_optical_flow").need_samples()
        return [
            compare("tempo_extractor", "librosa.beat.beat_track", lambda: beat_track(audio)),
            compare("loudness_extractor", "pyloudnorm.Meter", lambda: integrated_loudness(full)),
            compare("core_optical_flow", "OpenCV DIS both ways", lambda: flow_both_ways(samples)),
        ]
