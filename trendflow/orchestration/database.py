"""Dagster's database, asked without Dagster's own words."""

from datetime import datetime

from dagster import DagsterInstance
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import func, select

from trendflow.orchestration.launch import typed_database


def database_time() -> datetime | None:
    """What the clock of Dagster's database says; None for SQLite, which has none of its own.

    Proves that it answers queries. Raises what `typed_database` does.
    """
    with typed_database(), DagsterInstance.get() as instance:
        storage = instance.run_storage
        if not isinstance(storage, SqlRunStorage):
            return None
        with storage.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(select(1))
                return None
            found = connection.execute(select(func.now())).scalar_one()
    return found
