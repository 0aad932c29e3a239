"""Peak memory of processing one video with the command line, all child processes included."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import MODELS, SAMPLE, Row, large_video

GOAL_GB = 1.5
INTERVAL_S = 0.05


def resident(process: psutil.Process) -> int:
    """Bytes resident in a process tree. Pages shared by two processes count twice, so this is an upper bound."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between the listing and the question
            continue
    return total


def peak_of(command: list[str], environment: dict[str, str]) -> tuple[int, float]:
    """Peak bytes and wall seconds. Raises RuntimeError with the last output line when the command fails."""
    start = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as child:
            process = psutil.Process(child.pid)
            while child.poll() is None:
                try:
                    peak = max(peak, resident(process))
                except psutil.NoSuchProcess:
                    break
                try:
                    child.wait(INTERVAL_S)
                except subprocess.TimeoutExpired:
                    continue
        if child.returncode != 0:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"exit code {child.returncode}: {' '.join(last)}")
    return peak, time.perf_counter() - start


def measure() -> list[Row]:
    video = large_video("people_139s.mp4") or SAMPLE
    with tempfile.TemporaryDirectory(prefix="trendflow-bench-") as home:
        command = [str(Path(sys.executable).with_name("trendflow")), "process", str(video)]
        environment = {**os.environ, "TRENDFLOW_HOME": home, "TRENDFLOW_MODELS": str(MODELS)}
        environment.pop("DAGSTER_HOME", None)
        peak, seconds = peak_of(command, environment)
    return [Row("peak memory of a run", video.name, peak / 1e9, "GB", GOAL_GB, f"{seconds:.0f} s with start-up")]
