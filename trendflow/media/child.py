"""The media child: a warm server process that handles every job in a forked process under resource limits.

Protocol, one JSON object per line. In: a job. Out, any number of `{"progress": [done, total]}`, then one of
`{"result": …}` and `{"error": {error_code, message, detail}}`, then `{"exit": status}` once the process that worked is
gone. A job that ends without a result died of its input. Losing the parent (end of input) ends everything.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from trendflow.contracts.errors import TrendFlowError, as_typed

_PROGRESS_SEC = 0.2
# Loaded on demand otherwise, that is under the job's memory limit, where failing to load them would look like a bug.
_NEEDED_LATER = ("av.subtitles.stream", "multiprocessing.popen_fork")


def main() -> None:
    """Serve jobs from standard input until it ends."""
    # libav, numpy and compiled code are loaded once, here; a fork of this process starts in milliseconds.
    try:
        for name in ("trendflow.media.jobs", *_NEEDED_LATER):
            importlib.import_module(name)
    except ImportError as exc:
        _send({"error": {"error_code": "dependency_missing", "message": "libav (PyAV) is not available.",
                         "detail": {"kind": "python_package", "name": exc.name}}})  # fmt: skip
        _send({"exit": 0})
        return
    pending = b""
    while True:
        line, newline, pending_rest = pending.partition(b"\n")
        if newline:
            pending = pending_rest
            _serve(json.loads(line))
            continue
        block = os.read(0, 1 << 16)
        if not block:
            return
        pending += block


def _serve(job: Mapping[str, Any]) -> None:
    alive, child_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(alive)
        os.setpgid(0, 0)  # a group of its own, so that its helper processes end with it
        _work(job)
    os.close(child_end)
    # The pipe closes when the worker is gone; input during a job can only be the end of the parent.
    ready, _, _ = select.select([0, alive], [], [])
    if alive not in ready:
        _kill_group(pid)
        os._exit(0)
    os.close(alive)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _kill_group(pid)
    _send({"exit": status})


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _work(job: Mapping[str, Any]) -> None:
    """Run the job in this forked process and leave it without the server's clean-up."""
    from trendflow.media.jobs import run_job

    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SEC or done == total:
            last = now
            _send({"progress": [done, total]})

    try:
        _set_limits(job["limits"])
        _send({"result": run_job(job, progress)})
    except BaseException as exc:  # the process ends here, whatever happened
        error = _typed(exc)
        if error.error_code == "internal_error":
            traceback.print_exc()
        _send({"error": {"error_code": error.error_code, "message": error.message, "detail": error.detail}})
    finally:
        sys.stderr.flush()
        os._exit(0)


def _set_limits(limits: Mapping[str, Any]) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, limits["child_memory_bytes"]),
        (resource.RLIMIT_CPU, limits["child_cpu_sec"]),
        (resource.RLIMIT_FSIZE, limits["child_file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _typed(exc: BaseException) -> TrendFlowError:
    """Running into a limit is the medium's fault, like dying of it; so is what libav cannot work with."""
    import av

    if isinstance(exc, MemoryError) or (isinstance(exc, OSError) and exc.errno == errno.EFBIG):
        return TrendFlowError("video_file_corrupted", "Decoding this file needs more memory or disk than allowed.")
    typed = as_typed(exc)
    if typed.error_code == "internal_error" and isinstance(exc, av.FFmpegError):
        return TrendFlowError("video_file_corrupted", "libav cannot process this file.")
    return typed


def _send(message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
