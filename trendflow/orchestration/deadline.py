"""Ends work that takes too long, without its cooperation and without ending the process."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_REPEAT_S = 1.0


class OutOfTime(Exception):
    """The work took longer than it may."""


class _Stop(BaseException):
    """Raised inside the work. No Exception, so that an `except Exception` in there does not hold it up."""


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work()`, which runs in the calling thread. Raises `OutOfTime` when it takes longer.

    A watching thread has the interpreter raise an exception inside the work, which therefore need not report anything
    and may run in any thread; an alarm signal would reach the main thread alone. The interpreter raises it between two
    of its own instructions: a single call into native code, or one that waits for the system, ends first. Work that
    came back late, for that reason or by swallowing the exception, is refused as well, so its result never counts.
    """
    watchdog = _Watchdog(seconds)
    started = time.monotonic()
    try:
        try:
            watchdog.start()
            result = work()
        finally:
            # The exception may still arrive here. It ends nothing but this attempt to stop further ones.
            while watchdog.armed:
                try:
                    watchdog.disarm()
                except _Stop:
                    continue
    except _Stop as exc:
        raise OutOfTime from exc
    if time.monotonic() - started > seconds:
        raise OutOfTime
    return result


class _Watchdog:
    """Raises `_Stop` in the thread that made it, from `seconds` after its start until it is disarmed."""

    def __init__(self, seconds: float) -> None:
        self.armed = True
        self._seconds = seconds
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    def disarm(self) -> None:
        """After this nothing more is raised. May be called again when it was itself interrupted."""
        with self._lock:
            self._over.set()
            _raise_in(self._watched, None)
        self.armed = False

    def _watch(self) -> None:
        wait = self._seconds
        while not self._over.wait(wait):
            with self._lock:
                if not self._over.is_set():
                    _raise_in(self._watched, _Stop)
            # Once may not be enough: the interpreter drops what is raised in finalizers and in callbacks of C code.
            wait = _REPEAT_S


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    """Have the interpreter raise `exception` in a thread; None withdraws one that was not raised yet."""
    what = ctypes.py_object() if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
