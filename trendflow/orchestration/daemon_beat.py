"""Whether somebody takes submissions: the sensors of Dagster's daemon do."""

import time

from trendflow.orchestration.history import open_instance
from trendflow.orchestration.launch import typed_database

_SENSORS = "SENSOR"
_SILENT_SEC = 120.0
"""A daemon beats every 30 s; one that loads code on a busy machine is late."""


def scheduler_is_seen() -> bool:
    """Whether the sensor daemon of the instance in DAGSTER_HOME was heard lately.

    Raises `storage_unavailable` or `config_invalid` when its database does not work.
    """
    with typed_database(), open_instance() as instance:
        beat = instance.get_daemon_heartbeats().get(_SENSORS)
    return beat is not None and time.time() - beat.timestamp <= _SILENT_SEC
