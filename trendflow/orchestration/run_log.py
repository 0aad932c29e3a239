"""Dagster's messages about a run, in the log of the process that executes it."""

import logging

import dagster._loggers


def take_over_console() -> None:
    """From now on runs of this process write to the logger `dagster.run` instead of a console of their own.

    Dagster gives each run that configures no logger a console, past the format and the rules of the process's log, and
    has no setting for that.
    """
    dagster._loggers.create_console_logger = _process_log


def _process_log(name: str, level: str | int) -> logging.Logger:
    found = logging.getLogger(f"{name}.run")
    found.setLevel(level)
    return found
