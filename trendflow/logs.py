"""Logs of every process: one line per event, as text for people or as JSON for machines, and no raw text in either.

    configure_logging("json", "INFO", worker=name)            # once, where a process begins
    with log_context(run_id=run_id, component="core_clip"):   # every line inside says whose it is
        log.warning("retry", extra={"error_code": "timeout", "attempt": 2})

A line has `ts level logger message`, then what is known of `platform_id video_id run_id component worker`, then the
fields in `EXTRA`. Titles, comments and transcripts get into logs by way of exceptions, whose texts quote what a library
choked on. So an exception is told by its type, its error code and the places it passed; only a `TrendFlowError`
speaks its sentence, which its author wrote for people. What other libraries say is kept where they see no content.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from trendflow.contracts.errors import TrendFlowError, as_typed

LogFormat = Literal["text", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

IDENTITY = ("platform_id", "video_id", "run_id", "component", "worker")
EXTRA = ("error_code", "error_type", "outcome", "attempt", "duration_ms", "method", "path", "status", "user", "places")
"""What a record may carry besides its message: `extra={…}` with other names is dropped."""

_OURS = ("trendflow", "training")
_INFRASTRUCTURE = ("celery", "kombu", "dagster", "dagster-webserver", "uvicorn", "asyncio", "py")
"""Libraries that handle ids and addresses, never what a video says or shows; Python's warnings come from `py`."""
_WITHHELD = "message withheld"
_MAX_LINE = 500
_MAX_PLACES = 12


def configure_logging(log_format: LogFormat | None, level: LogLevel, **fields: str) -> None:
    """Write the logs of this process to stderr; `fields` stand in every line.

    Infrastructure speaks from `level` on, other libraries only to warn. Does nothing without a format, and where the
    root logger has been configured already, as `logging.basicConfig` does nothing there.
    """
    root = logging.getLogger()
    if log_format is None or root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(log_format, fields))
    handler.setLevel(level)  # Dagster lowers the level of its logger with every run
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for family in (*_OURS, *_INFRASTRUCTURE):
        logging.getLogger(family).setLevel(level)
        logging.getLogger(family).handlers.clear()  # Dagster's would say everything again, and in full
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # else a call with wrong arguments prints these arguments


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Every line that this thread logs inside the block carries `fields`, names of `IDENTITY`."""
    from structlog.contextvars import bound_contextvars

    with bound_contextvars(**fields):
        yield


class LineFormatter(logging.Formatter):
    """A record as one line, without what it may quote."""

    def __init__(self, log_format: LogFormat, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._format, self._fields = log_format, dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        return self._lines.format(redacted(record))

    @cached_property
    def _lines(self) -> logging.Formatter:
        # Imported with the first line: most commands say nothing, and start in less time than this takes.
        import structlog

        renderer: structlog.typing.Processor = _as_text
        if self._format == "json":
            renderer = structlog.processors.JSONRenderer()
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.ExtraAdder(allow=EXTRA),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, self._ordered, renderer],
        )

    def _ordered(self, _logger: object, _method: str, found: MutableMapping[str, Any]) -> dict[str, Any]:
        known = {**self._fields, **found, "message": found["event"]}
        names = ("ts", "level", "logger", "message", *IDENTITY, *EXTRA)
        return {name: known[name] for name in names if known.get(name) is not None}


def redacted(record: logging.LogRecord) -> logging.LogRecord:
    """A copy of `record` that quotes no foreign exception: see the rule above."""
    copy = logging.makeLogRecord(record.__dict__)
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    family = record.name.partition(".")[0]
    mentioned = [thing for thing in (raised, *_values(record.args)) if isinstance(thing, BaseException)]
    message = _message(record)
    if family not in _OURS:
        message = message.strip().partition("\n")[0]
        if raised is not None:
            message = message.partition(": ")[0]  # what follows is the exception
    copy.msg = _WITHHELD if family not in (*_OURS, *_INFRASTRUCTURE) else message[:_MAX_LINE]
    copy.args, copy.exc_info, copy.exc_text, copy.stack_info = (), None, None, None
    if mentioned and getattr(record, "error_code", None) is None:
        typed = next((found for found in mentioned if isinstance(found, TrendFlowError)), None)
        if typed is not None or raised is not None:
            copy.error_code = as_typed(typed or mentioned[0]).error_code
    if raised is not None:
        copy.error_type = type(raised).__name__
        copy.places = places(raised)
    return copy


def places(exc: BaseException) -> list[str]:
    """Where an exception was raised and what it passed, innermost first: `file:line function`."""
    frames = traceback.extract_tb(exc.__traceback__)[-_MAX_PLACES:]
    return [f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.name}" for frame in reversed(frames)]


def _message(record: logging.LogRecord) -> str:
    message = str(_quoted(record.msg))
    if not record.args:
        return message
    args = record.args
    told = (
        {name: _quoted(arg) for name, arg in args.items()} if isinstance(args, Mapping) else tuple(map(_quoted, args))
    )
    try:
        return message % told
    except (TypeError, ValueError, KeyError):  # a mistake in the call: the arguments are left out
        return message


def _quoted(thing: object) -> object:
    """What stands for an argument: of foreign exceptions only the type."""
    if isinstance(thing, BaseException) and not isinstance(thing, TrendFlowError):
        return type(thing).__name__
    return thing


def _values(args: object) -> tuple[object, ...]:
    if isinstance(args, Mapping):
        return tuple(args.values())
    return args if isinstance(args, tuple) else ()


def _as_text(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    head = [line.pop("ts"), line.pop("level").upper(), line.pop("logger"), str(line.pop("message"))]
    passed = line.pop("places", [])
    return "\n    at ".join([" ".join([*head, *(f"{name}={value}" for name, value in line.items())]), *passed])
