"""Names of processes, and whether one that was named lives: asked of real ones."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from trendflow.orchestration.processes import as_label, is_gone, this_process

_TELL = "from trendflow.orchestration.processes import this_process; print(this_process(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that says its name and waits."""
    made = subprocess.Popen([sys.executable, "-c", _TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with made:
        yield made
        made.kill()


def name_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_process_is_gone_once_it_was_killed(child: subprocess.Popen[str]) -> None:
    name = name_of(child)
    assert f":{child.pid}@" in name
    assert not is_gone(name)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name), "though its parent has not asked for its end and it is still listed"
    child.wait()
    assert is_gone(name)


def test_another_process_with_the_same_id_is_another_process() -> None:
    mine = this_process()
    assert not is_gone(mine)
    earlier = re.sub(r"@(\d+)", lambda found: f"@{int(found[1]) - 1}", mine)
    assert earlier != mine
    assert is_gone(earlier)


@pytest.mark.parametrize(
    "foreign",
    [
        lambda name: f"other-{name}",  # a host
        lambda name: f"{name}1",  # a container of the same host name
        lambda name: name.partition("@")[0],  # nobody said when it started
        lambda name: "cpu-1@host:4711:0a1b2c3d",  # a worker of the queue
        lambda name: "api",
        lambda name: "",
    ],
)
def test_what_cannot_be_told_from_here_is_not_said_to_be_gone(child: subprocess.Popen[str], foreign: object) -> None:
    assert callable(foreign)
    name = foreign(name_of(child))
    child.kill()
    child.wait()
    assert not is_gone(name)


def test_a_label_holds_what_a_journal_takes() -> None:
    for name in (this_process(), as_label("a worker/of ours"), as_label("ö" * 200)):
        assert re.fullmatch(r"[A-Za-z0-9_.:@-]{1,128}", name)
