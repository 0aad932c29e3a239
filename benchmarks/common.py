"""What all benchmarks share: a row of the result table, interleaved timing, and where the videos are."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SAMPLE = REPO / "samples" / "hello_face_speech.mp4"
MODELS = Path(
    os.environ.get("TRENDFLOW_MODELS") or Path(os.environ.get("TRENDFLOW_HOME") or REPO / ".trendflow") / "models"
).absolute()


@dataclass(frozen=True)
class Row:
    """One line of the table. `goal` is the largest value that is good enough; None for context without a goal."""

    what: str
    subject: str
    value: float
    unit: str
    goal: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


def large_video(name: str) -> Path | None:
    """A video of the large test media, or None on a machine that lacks them."""
    folder = Path(os.environ.get("TRENDFLOW_TEST_DATA") or REPO.parent / "shared" / "data")
    path = folder / "video" / name
    return path if path.is_file() else None


def interleaved(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each contender, measured in turns so that a slow moment of the machine meets all of them.

    One unmeasured turn comes first: it fills file caches and finishes lazy imports.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the turns of the ratio inside one turn."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def spread(ratios: list[float]) -> str:
    """Smallest and largest ratio: a verdict closer to its goal than this is wide has not been measured."""
    return f"{min(ratios):.2f} … {max(ratios):.2f}"
