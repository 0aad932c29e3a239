"""Parent side of the media child: hands it jobs, relays progress, enforces deadlines."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.limits import MIB, MediaLimits

Progress = Callable[[int, int], None]

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
# The child decodes untrusted media: it gets no credentials and nothing else it does not need.
_PASSED_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "NUMBA_CACHE_DIR")
# glibc maps and unmaps every block above 128 KiB, which is every frame and most temporary arrays: page faults would
# cost as much as scaling. Blocks up to 32 MiB stay on the heap instead. Other C libraries ignore these names.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(256 * MIB),
}
_idle: list[MediaWorker] = []
_lock = threading.Lock()


class MediaWorker:
    """One warm server process. It runs one job at a time."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = _PACKAGE_ROOT
        environment["OPENBLAS_NUM_THREADS"] = "1"  # its threads would not survive the fork
        environment.update(_ALLOCATOR)
        self.owner = os.getpid()
        self.busy = False
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trendflow.media.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C is for this process, which decides; it must not hit the child's imports
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: Mapping[str, Any], deadline: float, progress: Progress | None) -> dict[str, Any]:
        """Run one job until `deadline` (monotonic seconds); returns its result.

        Raises the job's own error, `video_file_corrupted` when the process died of it, `timeout` when it is over time.
        """
        assert self._process.stdin is not None
        self.busy = True
        with contextlib.suppress(BrokenPipeError):  # the server left; its output or its silence says why
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        outcome: dict[str, Any] = {}
        while True:
            message = self._next_message(deadline)
            if "progress" in message:
                if progress is not None:
                    progress(*message["progress"])
            elif "exit" in message:
                self.busy = False
                break
            else:
                outcome = message
        if "result" in outcome:
            return dict(outcome["result"])
        if "error" in outcome:
            error = outcome["error"]
            raise TrendFlowError(error["error_code"], error["message"], **error["detail"])
        raise TrendFlowError(
            "video_file_corrupted", "The decoder process died on this file.", exit_status=message["exit"]
        )

    def close(self) -> None:
        """End the process and whatever it is working on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # the server kills its worker and leaves
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _next_message(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TrendFlowError("timeout", "Decoding took longer than allowed.")
                block = os.read(descriptor, 1 << 16)
                if not block:
                    raise TrendFlowError(
                        "video_file_corrupted", "The decoder process died on this file.", exit_status=None
                    )
                self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))


def run_job(
    job: Mapping[str, Any], limits: MediaLimits, *, timeout_sec: float, progress: Progress | None = None
) -> dict[str, Any]:
    """Run a job in an idle media child, starting one if there is none.

    A child that is still at work afterwards, because its caller was interrupted or ran out of time, is ended.
    """
    deadline = time.monotonic() + timeout_sec
    worker = _take()
    try:
        return worker.run({**job, "limits": limits.as_dict()}, deadline, progress)
    finally:
        if worker.busy or not worker.is_alive:
            worker.close()
        else:
            with _lock:
                _idle.append(worker)


def warm_up() -> None:
    """Start a media child now, so that the first video does not wait for it."""
    with _lock:
        if not any(worker.owner == os.getpid() for worker in _idle):
            _idle.append(MediaWorker())


def _take() -> MediaWorker:
    with _lock:
        # After a fork of this process its children belong to the parent.
        _idle[:] = [worker for worker in _idle if worker.owner == os.getpid()]
        while _idle:
            worker = _idle.pop()
            if worker.is_alive:
                return worker
            worker.close()
    return MediaWorker()


@atexit.register
def _close_idle() -> None:
    with _lock:
        for worker in _idle:
            if worker.owner == os.getpid():
                worker.close()
        _idle.clear()
