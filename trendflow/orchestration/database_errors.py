"""Telling the failures of Dagster's database from all others."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError


def database_error(exc: BaseException) -> DBAPIError | None:
    """The error of the database behind an exception; None when it is about something else.

    Dagster repeats what PostgreSQL does not answer, and then raises an exception of its own.
    """
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, DBAPIError):
            return found
        found = found.__cause__
    return None
