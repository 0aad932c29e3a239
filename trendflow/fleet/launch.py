"""Starting one process of the fleet with its log, and ending exactly that one."""

from __future__ import annotations

import os
import pwd
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trendflow.contracts.canonical import utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet import log_writer
from trendflow.fleet.files import make_folder
from trendflow.fleet.service import ProcessUser, Service
from trendflow.fleet.state import Identity, Process
from trendflow.processes import end_process, end_session, exact_process, processes_with, started_ticks_of

LOG_LIMIT_BYTES = 20_000_000
"""A log and the one before it take twice this much at most."""
SCRUBBED = "<fleet>"
REMAINS_LIMIT_S = 60.0
"""How long `stop_process` waits for the rest of a service once its process has ended."""
MARK = "_TRENDFLOW_SERVICE_LOG"
"""The variable by which a process is known whose start was never written down. Settings have other names: they are
handed on."""

_STARTED = "---- started at"
_UNRECORDED_LIMIT_S = 30.0
_TAIL_BYTES = 65_536
_TAIL_LINES = 15
# What a program needs to find its libraries and to speak; no settings, and so no passwords and keys.
_INHERITED = ("HOME", "PATH", "LANG", "TZ")
_INHERITED_PREFIXES = ("LC_", "LD_")

# Processes that this one started are its children and have to be waited for; others found by the state file are not.
_children: dict[int, subprocess.Popen[bytes]] = {}


def start_process(
    name: str, service: Service, log: Path, log_limit: int = LOG_LIMIT_BYTES, needs: Sequence[str] = ()
) -> Process:
    """Start a service, its words in `log`. Whether it becomes healthy is another question. `needs` are written down.

    Raises `dependency_missing` for a program that cannot be executed and what `prepare` and `launcher` raise.
    """
    make_folder(service.folder)
    if service.user is not None:
        os.chown(service.folder, service.user.uid, service.user.gid)
    if service.prepare is not None:
        service.prepare()
    if service.launcher is not None:
        started = service.launcher()
        process, writer, log = Identity(started.pid, started.started_ticks), None, started.log
    else:
        process, writer = _spawn(name, service, log, log_limit)
    return Process(
        service=name,
        process=process,
        log_writer=writer,
        log=str(log),
        definition=service.definition,
        started_at=utc_now(),
        stop_signal=service.stop_signal,
        stop_limit_s=service.stop_limit_s,
        needs=tuple(needs),
    )


def stop_process(found: Process) -> bool:
    """End exactly this process and everything that it started; False when it had ended by itself.

    Raises `timeout` when something of it does not end, `config_invalid` when it belongs to another user.
    """
    try:
        with exact_process(found.process.pid, found.process.started_ticks) as handle:
            was_alive = handle is not None
            if handle is not None:
                end_process(handle, found.stop_limit_s, signal.Signals(found.stop_signal))
        _reap(found.process.pid)
        end_session(found.process.pid, found.process.started_ticks)
    except PermissionError as exc:
        raise TrendFlowError(
            "config_invalid",
            f"The service {found.service!r} belongs to another user of this machine.",
            service=found.service,
        ) from exc
    if found.log_writer is not None:
        _await_end_of_log(found, found.log_writer)
    return was_alive


def end_unrecorded(log: Path, recorded: Container[int], service: Service | None = None) -> None:
    """End what was started with this log and is in no record: its starter was killed before it could write it down.

    As `service` is ended, where the caller knows it. Processes of `recorded` ids and their sessions are left alone.
    Raises what `end_process` does.
    """
    limit_s = _UNRECORDED_LIMIT_S if service is None else service.stop_limit_s
    ask = signal.SIGTERM if service is None else signal.Signals(service.stop_signal)
    for pid, started_ticks in processes_with(MARK, str(log)):
        with exact_process(pid, started_ticks) as handle, suppress(ProcessLookupError):  # it may end at any moment
            if handle is not None and pid not in recorded and os.getsid(pid) not in recorded:
                end_process(handle, limit_s, ask)


def exit_code_of(found: Process) -> int | None:
    """With what a process ended that this one started and `stop_process` has waited for; None for any other."""
    child = _children.get(found.process.pid)
    return None if child is None else child.returncode


def log_tail(found: Process, site_folder: Path) -> list[str]:
    """The last lines of a service since its last start, without the folder of this home."""
    try:
        with Path(found.log).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    last = text.rpartition(_STARTED)[2] if _STARTED in text else text
    lines = [line for line in last.splitlines()[_STARTED in text :] if line.strip()]
    return [line.replace(str(site_folder), SCRUBBED) for line in lines[-_TAIL_LINES:]]


def run_once(command: list[str], folder: Path, user: ProcessUser | None, given: str | None = None) -> None:
    """Run a program that prepares a service, for example by creating its data.

    Raises `internal_error` with the last line that it printed when it fails, `dependency_missing` when there is none.
    """
    program = repr(Path(command[0]).name)
    uid, gid, groups = _ids(user)
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=folder,
            env=_environment(user, told_settings=False),
            check=False,
            user=uid,
            group=gid,
            extra_groups=groups,
        )
    except OSError as exc:
        raise _not_executable(program, exc) from exc
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = (lines[-1] if lines else "it said nothing").replace(str(folder.parent), SCRUBBED)
        raise TrendFlowError(
            "internal_error",
            f"The program {program} failed with code {done.returncode}: {said}",
            exit_code=done.returncode,
            log="\n".join(lines[-_TAIL_LINES:]).replace(str(folder.parent), SCRUBBED),
        )


def _spawn(name: str, service: Service, log: Path, log_limit: int) -> tuple[Identity, Identity]:
    # Both open sessions of their own: Ctrl-C in the terminal of `up` is meant for neither, and whatever a service
    # starts is found by its session.
    writer = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(log_writer.__file__)), str(log), str(log_limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=log.parent,
        start_new_session=True,
    )
    _children[writer.pid] = writer
    pipe = writer.stdin
    assert pipe is not None  # it was asked for
    uid, gid, groups = _ids(service.user)
    try:
        with pipe, _interruptible():
            pipe.write(f"{_STARTED} {utc_now()}\n".encode())
            pipe.flush()
            process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                cwd=service.folder,
                env={**_environment(service.user, service.told_settings), **service.environment, MARK: str(log)},
                umask=0o077,
                start_new_session=True,
                user=uid,
                group=gid,
                extra_groups=groups,
            )
    except OSError as exc:
        _reap(writer.pid)  # it ends with the pipe
        raise _not_executable(f"of the service {name!r}", exc) from exc
    _children[process.pid] = process
    return _identity(process), _identity(writer)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Programs that are started inside do not ignore SIGINT, as they would below a background job of a shell script.

    Dagster's have SIGTERM do what SIGINT does.
    """
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not is_ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _identity(child: subprocess.Popen[bytes]) -> Identity:
    # One that ended at once has no start any more; 0 is that of no process that a command starts.
    return Identity(child.pid, started_ticks_of(child.pid) or 0)


def _ids(user: ProcessUser | None) -> tuple[int | None, int | None, list[int] | None]:
    """User, group and further groups as `subprocess` takes them."""
    return (None, None, None) if user is None else (user.uid, user.gid, [])


def _environment(user: ProcessUser | None, told_settings: bool) -> dict[str, str]:
    """This process's own; for a foreign program, or another user who may not read our files, without our secrets."""
    if user is None and told_settings:
        return dict(os.environ)
    kept = {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return kept if user is None else kept | {"HOME": pwd.getpwuid(user.uid).pw_dir}


def _not_executable(program: str, exc: OSError) -> TrendFlowError:
    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
    return TrendFlowError(
        "dependency_missing", f"The program {program} cannot be executed: {reason}.", kind="program", errno=exc.errno
    )


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None:
        child.wait()


def _await_end_of_log(found: Process, writer: Identity) -> None:
    """Wait until nothing of a service is left: its log ends when the last process that may write to it has ended.

    Processes that left the service's session, as those of PostgreSQL do, are known by nothing else.
    """
    with exact_process(writer.pid, writer.started_ticks) as handle:
        if handle is not None:
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            if not waiting.poll(REMAINS_LIMIT_S * 1000):
                raise TrendFlowError(
                    "timeout",
                    f"Processes that the service {found.service!r} started do not end.",
                    service=found.service,
                )
    _reap(writer.pid)
