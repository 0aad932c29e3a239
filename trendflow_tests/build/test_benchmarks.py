"""The measuring instruments measure: a benchmark that cannot see a regression is worse than none."""

from __future__ import annotations

import hashlib
import os
import sys

import numpy as np
import pytest

from benchmarks.bench_components import PeakMemory
from benchmarks.bench_memory import peak_of
from benchmarks.bench_precision import mean_cosine, origin
from benchmarks.common import Row, interleaved, median_ratio
from trendflow.models.catalogue import Catalogue

HOLD_200_MB = "import hashlib; held = bytearray(b'x') * 200_000_000; hashlib.sha3_256(held).digest()"


def test_peak_memory_counts_child_processes() -> None:
    alone, _ = peak_of([sys.executable, "-c", HOLD_200_MB], dict(os.environ))
    spawning = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD_200_MB!r}], check=True)"
    nested, _ = peak_of([sys.executable, "-c", spawning], dict(os.environ))
    assert 200e6 < alone < 260e6
    assert 200e6 < nested < 300e6


def test_the_peak_of_a_step_counts_what_it_has_freed_again() -> None:
    with PeakMemory() as memory:
        held = bytearray(b"x") * 100_000_000
        hashlib.sha3_256(held).digest()
        del held
    assert 90e6 < memory.peak - memory.start < 160e6


def test_a_failing_command_is_not_a_measurement() -> None:
    with pytest.raises(RuntimeError, match="exit code 3: no such file"):
        peak_of([sys.executable, "-c", "import sys; sys.stderr.write('no such file'); sys.exit(3)"], dict(os.environ))


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
