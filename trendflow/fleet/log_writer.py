"""Writes what a service says to its log file and keeps that file small. Runs as a process of its own.

    python -I -S log_writer.py FILE LIMIT_BYTES < pipe

A service that writes into a file itself could fill the disk, and only a few can rotate their log. This process reads
the pipe until every process that may write to it has ended; its own end therefore says that nothing of the service is
left. It imports only what the interpreter has loaded anyway: there is one for each service.
"""

import os
import signal
import sys

_CHUNK = 65536


def copy(source: int, path: str, limit: int) -> None:
    """Append all of `source` to `path`; before it grows beyond `limit` bytes it becomes `path`.1, at a line's end."""
    sink = _open(path)
    size = os.fstat(sink).st_size
    while chunk := os.read(source, _CHUNK):
        if size and size + len(chunk) > limit:
            head, newline, chunk = chunk.rpartition(b"\n")
            _write(sink, head + newline)
            os.close(sink)
            os.replace(path, f"{path}.1")
            sink, size = _open(path), 0
        _write(sink, chunk)
        size += len(chunk)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _write(sink: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(sink, data) :]
        except OSError:  # the disk is full: words are lost, but the service, which waits for this pipe, goes on
            return


if __name__ == "__main__":
    # The service is ended by a signal to itself; its last words come after that.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    copy(sys.stdin.fileno(), sys.argv[1], int(sys.argv[2]))
