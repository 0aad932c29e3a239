"""Dagster's PostgreSQL storage with connections that are kept.

Dagster opens a connection for every query and closes it again. Between the password's key derivation and the new
process in the server that takes longer than the query, and a run of a video asks hundreds of times.
"""

import os
from functools import lru_cache
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine, create_engine

# Connections that a process keeps. Its threads may open more at the same time, which are closed when they are done.
_KEPT = 2


class PooledPostgresStorage(DagsterPostgresStorage):
    """Its configuration is that of `dagster_postgres`. All instances of a process share the connections.

    A connection is tried before it is used again, so a server that was restarted meanwhile goes unnoticed.
    """

    def __init__(self, postgres_url: str, **options: Any) -> None:
        super().__init__(postgres_url, **options)
        engine = _engine(postgres_url, os.getpid())
        # Its own way to replace the engine (`optimize_for_webserver`) sets a time limit and does not try connections.
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        return cls(
            pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )


@lru_cache(maxsize=4)
def _engine(url: str, pid: int) -> Engine:
    """One per process: what a fork inherits belongs to its parent, so `pid` tells them apart."""
    return create_engine(
        url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, pool_size=_KEPT, max_overflow=-1, pool_recycle=1800
    )
