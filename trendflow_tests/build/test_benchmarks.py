"""The measuring instruments measure: a benchmark that cannot see a regression is worse than none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import bench_memory
from benchmarks.bench_precision import mean_cosine, origin
from benchmarks.common import Row, interleaved, median_ratio
from trendflow.models.catalogue import Catalogue

# Holds the memory until the instrument has looked: how often it looks is a matter of the machine.
HOLD_200_MB = """
import sys, time
from pathlib import Path
held, patience = bytearray(b"x") * 200_000_000, time.monotonic() + 120
while not Path(sys.argv[1]).exists() and time.monotonic() < patience:
    time.sleep(0.01)
"""
NESTED = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"


@pytest.mark.parametrize(
    ("command", "most"), [(["-c", HOLD_200_MB], 260e6), (["-c", NESTED, HOLD_200_MB], 300e6)], ids=["alone", "nested"]
)
def test_peak_memory_counts_child_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], most: float
) -> None:
    seen, real = tmp_path / "seen", bench_memory.resident

    def resident(process: psutil.Process) -> int:
        found = real(process)
        if found > 200e6:
            seen.touch()
        return found

    monkeypatch.setattr(bench_memory, "resident", resident)
    peak, _ = bench_memory.peak_of([sys.executable, *command, str(seen)], dict(os.environ))
    assert 200e6 < peak < most


# Alone in its process: among others, whatever they take and give back in between would count.
FREE_100_MB = """
import time
from benchmarks.bench_components import PeakMemory
with PeakMemory() as memory:
    held, patience = bytearray(b"x") * 100_000_000, time.monotonic() + 120
    while memory.peak - memory.start < 90e6 and time.monotonic() < patience:
        time.sleep(0.01)
    del held
print(memory.peak - memory.start)
"""


def test_the_peak_of_a_step_counts_what_it_has_freed_again(repo_root: Path) -> None:
    command = [sys.executable, "-c", FREE_100_MB]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=repo_root)
    assert 90e6 < float(done.stdout) < 160e6


def test_a_failing_command_is_not_a_measurement() -> None:
    with pytest.raises(RuntimeError, match="exit code 3: no such file"):
        bench_memory.peak_of(
            [sys.executable, "-c", "import sys; sys.stderr.write('no such file'); sys.exit(3)"], dict(os.environ)
        )


def test_contenders_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert [len(found) for found in times.values()] == [2, 2]


def test_the_ratio_is_taken_inside_each_turn() -> None:
    """A machine that is ten times slower during one turn slows both contenders and leaves the ratio alone."""
    assert median_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0


@pytest.mark.parametrize(("value", "goal", "met"), [(1.3, 1.3, True), (1.31, 1.3, False), (9.0, None, None)])
def test_a_goal_is_an_upper_bound(value: float, goal: float | None, met: bool | None) -> None:
    assert Row("what", "subject", value, "×", goal).met is met


def test_variants_are_compared_with_what_they_derive_from() -> None:
    catalogue = Catalogue.load()
    assert origin(catalogue, catalogue["efficientnet_lite0_224_torch"]).name == "efficientnet_lite0_224"
    assert origin(catalogue, catalogue["nanodet_m_416"]).name == "nanodet_m_416"


def test_the_loss_of_a_variant_is_seen() -> None:
    reference = np.array([[3.0, 4.0], [1.0, 0.0]])
    assert mean_cosine(2 * reference, reference) == pytest.approx(1.0)
    assert mean_cosine(np.array([[4.0, 3.0], [0.0, 1.0]]), reference) == pytest.approx((24 / 25 + 0) / 2)
