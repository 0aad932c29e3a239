"""What Dagster keeps of runs besides them, and does not delete with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from dagster import AssetKey, DagsterInstance
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import BackfillTagsTable, BulkActionsTable
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from sqlalchemy import ColumnElement, delete, or_, select, text, update


def forget_run(instance: DagsterInstance, run_id: str) -> None:
    """Remove the captured output of a run and the results of its asset checks."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            connection.execute(delete(AssetCheckExecutionsTable).where(AssetCheckExecutionsTable.c.run_id == run_id))


def forget_launches(instance: DagsterInstance, words: Collection[str]) -> None:
    """Remove ticks of sensors and schedules, and backfills that have ended, whose records hold one of these words."""
    ticks = instance.schedule_storage
    if isinstance(ticks, SqlScheduleStorage):
        with ticks.connect() as connection:
            connection.execute(delete(JobTickTable).where(_holds(JobTickTable.c.tick_body, words)))
    runs = instance.run_storage
    if isinstance(runs, SqlRunStorage):
        ended = BulkActionsTable.c.status.in_([status.value for status in BULK_ACTION_TERMINAL_STATUSES])
        with runs.connect() as connection:
            gone = _column(
                connection, select(BulkActionsTable.c.key).where(ended, _holds(BulkActionsTable.c.body, words))
            )
            connection.execute(delete(BackfillTagsTable).where(BackfillTagsTable.c.backfill_id.in_(gone)))
            connection.execute(delete(BulkActionsTable).where(BulkActionsTable.c.key.in_(gone)))


def forget_last_results(instance: DagsterInstance, words: Collection[str]) -> None:
    """Let no asset tell a result that holds one of these words as its last one; what came before it takes its place.

    To be called when the events of the runs are gone.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return
    told = (AssetKeyTable.c.last_materialization, AssetKeyTable.c.last_run_id, AssetKeyTable.c.cached_status_data)
    with storage.index_connection() as connection:
        keys = _column(
            connection, select(AssetKeyTable.c.asset_key).where(or_(*(_holds(column, words) for column in told)))
        )
    for key in keys:
        asset = AssetKey.from_db_string(key)
        found = [] if asset is None else instance.fetch_materializations(asset, limit=1).records
        values: dict[str, Any] = {"cached_status_data": None, "last_run_id": None}
        if found:
            values["last_run_id"] = found[0].run_id
            storage.store_asset_event(found[0].event_log_entry, found[0].storage_id)
        else:
            values.update(last_materialization=None, last_materialization_timestamp=None)
        with storage.index_connection() as connection:
            connection.execute(update(AssetKeyTable).where(AssetKeyTable.c.asset_key == key).values(**values))


def forget_statistics(instance: DagsterInstance) -> None:
    """Have PostgreSQL gather anew what it plans queries with: values of rows, which it would keep after them."""
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("ANALYZE"))


def _holds(column: ColumnElement[str], words: Collection[str]) -> ColumnElement[bool]:
    return or_(*(column.contains(word, autoescape=True) for word in words))


def _column(connection: Any, query: Any) -> Sequence[str]:
    return [row[0] for row in connection.execute(query).fetchall()]
