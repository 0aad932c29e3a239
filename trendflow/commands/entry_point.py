"""How a command line ends: a typed error becomes one sentence and its exit code."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

import typer

from trendflow.contracts.errors import ERROR_RULES, EXIT_USAGE, TrendFlowError, as_typed


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command that the process was started with."""
    try:
        code = app(args=sys.argv[1:], standalone_mode=False)  # typer.Exit comes back as its code
        if code == ERROR_RULES["cancelled"].exit_code:  # so does an interrupt
            raise KeyboardInterrupt
        raise SystemExit(0 if code is None else code)
    except TrendFlowError as error:
        _complain(error)
    except (KeyboardInterrupt, typer.Abort):
        _complain(TrendFlowError("cancelled", "Stopped by the user."))
    except Exception as exc:  # the last line of defence: a library's failure becomes a typed one
        usage = _usage_error(exc)
        if usage is not None:
            if usage:  # a command group without a command has printed its help and has nothing to add
                sys.stderr.write(f"config_invalid: {usage}\n")
            raise SystemExit(EXIT_USAGE) from None
        found = as_typed(exc)
        if found.error_code == "internal_error":
            logging.getLogger(__name__).exception("unexpected failure")
        _complain(found)


def _usage_error(exc: Exception) -> str | None:
    """The sentence of a command-line usage error, or None for anything else."""
    format_message = getattr(exc, "format_message", None)
    return str(format_message()) if callable(format_message) else None


def _complain(error: TrendFlowError) -> NoReturn:
    sys.stderr.write(f"{error.error_code}: {error.message}\n")
    raise SystemExit(error.exit_code)
