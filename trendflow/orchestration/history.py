"""Dagster's SQLite history with connections that stay open while a run is recorded.

Dagster opens a database again for every event. Opening costs more than the event does, and closing the last connection
of a database copies its log back and waits for the disk. Files and tables stay Dagster's own: its web server and
daemon read and write them, also meanwhile, with the storage they know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import DagsterInstance
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool


def create_history(home: Path) -> None:
    """Create the databases of a new Dagster home, once, by one process at a time.

    Dagster itself does not take turns: two commands that start together in an empty home may both stamp a database,
    which no command can open afterwards.
    """
    done = home / ".history-created"
    if not done.exists():
        with FileLock(home / ".history.lock"):
            if not done.exists():
                DagsterInstance.from_config(str(home)).dispose()
                done.touch()


def open_instance() -> DagsterInstance:
    """The instance of `DAGSTER_HOME`; when it keeps its history in SQLite, it records through open connections.

    Raises what `DagsterInstance.get` raises for a home that is not set or is no folder.
    """
    home = os.environ.get("DAGSTER_HOME", "")
    if not os.path.isabs(home) or not os.path.isdir(home):
        return DagsterInstance.get()  # which explains what is wrong
    ref = InstanceRef.from_dir(home)
    configured = ref.storage_data
    if configured is not None and configured.class_name == DagsterSqliteStorage.__name__:
        own = configured._replace(module_name=__name__, class_name=OpenSqliteStorage.__name__)
        ref = ref._replace(storage_data=own)
    return DagsterInstance.from_ref(ref)


class _Databases:
    """One open connection to each SQLite database that was asked for; threads take turns with it."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}

    def __contains__(self, url: str) -> bool:
        return url in self._engines

    @contextmanager
    def transaction(self, url: str) -> Iterator[Connection]:
        engine = self._engines.get(url) or self._engines.setdefault(url, _engine(url))
        with engine.begin() as connection:
            yield connection

    def close(self) -> None:
        while self._engines:
            self._engines.popitem()[1].dispose()


def _engine(url: str) -> Engine:
    waits = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
    engine = create_engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args=waits)

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # Dagster commits every event on its own. In WAL mode this setting keeps the database consistent through a crash
        # of the process; what a power cut may lose is history, and history is not the truth.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class _Events(SqliteEventLogStorage):
    """Dagster's event log: one database per run and one over all runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open = _Databases()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def run_connection(self, run_id: str | None = None) -> Iterator[Connection]:
        url = self.conn_string_for_shard(str(run_id))
        if url not in self._open:
            with super().run_connection(run_id):  # creates the tables of a new run
                pass
        with self._open.transaction(url) as connection:
            yield connection

    @contextmanager
    def index_connection(self) -> Iterator[Connection]:
        with self._open.transaction(self.conn_string_for_shard(INDEX_SHARD_NAME)) as connection:
            yield connection

    def store_event(self, event: EventLogEntry) -> None:
        super().store_event(event)
        # The web server follows a live run by watching this file, which a write to the log beside it does not touch.
        os.utime(self.path_for_shard(event.run_id))

    def dispose(self) -> None:
        super().dispose()
        self._open.close()


class _Runs(SqliteRunStorage):
    """Dagster's table of runs and partitions."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open = _Databases()
        super().__init__(conn_string, inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._open.transaction(self._conn_string) as connection:
            yield connection

    def dispose(self) -> None:
        super().dispose()
        self._open.close()


class OpenSqliteStorage(DagsterSqliteStorage):
    """`DagsterSqliteStorage` whose runs and events go through connections that stay open until `dispose`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = _Runs(self._run_storage._conn_string)
        self._event_log_storage = _Events(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> OpenSqliteStorage:
        return cls.from_local(inst_data=inst_data, **config_value)
