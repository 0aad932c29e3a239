"""The log writer as a process of its own, as the fleet runs it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from trendflow.fleet import log_writer


def write(log: Path, limit: int, *chunks: bytes) -> None:
    command = [sys.executable, "-I", "-S", str(Path(log_writer.__file__)), str(log), str(limit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for chunk in chunks:
            process.stdin.write(chunk)
            process.stdin.flush()
        process.stdin.close()
        assert process.wait() == 0


def test_a_log_and_the_one_before_stay_small(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    lines = [f"line {number:05d}\n".encode() for number in range(40_000)]  # 11 bytes each, many pipes full
    limit = 150_000
    write(log, limit, b"".join(lines))
    before, after = log.with_name("service.log.1").read_bytes(), log.read_bytes()
    assert len(before) <= limit + 65_536  # what one reading brings stays together
    assert len(after) <= limit
    kept = before + after
    assert b"".join(lines).endswith(kept)  # nothing is lost between the two, and the end is there
    assert before.endswith(b"\n")
    assert after.startswith(b"line ")


def test_an_existing_log_is_continued(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    write(log, 1000, b"first\n")
    write(log, 1000, b"second\n")
    assert log.read_bytes() == b"first\nsecond\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert not log.with_name("service.log.1").exists()


def test_a_line_without_an_end_is_cut_by_nothing_but_the_limit(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    write(log, 10, b"x" * 1_000_000)
    kept = log.with_name("service.log.1").read_bytes() + log.read_bytes()
    assert set(kept) == {ord("x")}
    assert len(kept) <= 2 * 65_536
