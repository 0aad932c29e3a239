"""What `trendflow doctor` examines of a deployment: its graph, models, servers, clocks, keys, users and files."""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.commands.examination import Examination
from trendflow.commands.process import prepare_dagster_home
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.api import token_file, users_file
from trendflow.fleet.credentials import SECRETS
from trendflow.fleet.environment import fleet_folder, require_same_keys
from trendflow.fleet.ports import require_free
from trendflow.fleet.state import STATE, read_state
from trendflow.service.health import store_check
from trendflow.service.users import Users
from trendflow.storage.probe import PROBE_FOLDER

if TYPE_CHECKING:
    from trendflow.orchestration.deployment import Deployment

CLOCK_LIMIT_S = 5.0
"""Largest difference of two clocks. Leases, deadlines and ages of files are compared across hosts, and the object
store's own clock has whole seconds."""

_KEY_BYTES = 16
_PRIVATE = stat.S_IRWXG | stat.S_IRWXO
_one_at_a_time = threading.Lock()
_WORKING = "Start the fleet with 'trendflow up', or correct {} and see that its server runs."


def deployment_examinations(settings: Settings) -> list[Examination]:
    """Of the deployment that the settings describe, with or without a fleet."""
    return [
        Examination(
            "component graph",
            lambda: _graph(_opened(settings)),
            "Correct the file that TRENDFLOW_GRAPH_FILE names, or TRENDFLOW_PROFILE.",
        ),
        Examination(
            "models",
            lambda: _models(_opened(settings)),
            "Run 'trendflow models build' for weights, 'trendflow triton up' for the model server, or choose another "
            "TRENDFLOW_PROFILE for this machine.",
        ),
        Examination(
            "object store",
            lambda: store_check(_opened(settings).store).run(),
            _WORKING.format("TRENDFLOW_STORE_URL and TRENDFLOW_STORE_OPTIONS"),
        ),
        Examination("broker", lambda: _broker(settings), _WORKING.format("TRENDFLOW_BROKER_URL")),
        Examination(
            "workers",
            lambda: _workers(settings),
            "Start some with 'trendflow up --workers N', or as the deployment does; a worker's log says why it ended.",
        ),
        Examination("database", lambda: _database(settings), _WORKING.format("the storage of DAGSTER_HOME")),
        Examination(
            "scheduler",
            lambda: _scheduler(settings),
            "Start Dagster's daemon with 'trendflow up', or as the deployment does; its log says why it ended.",
        ),
        Examination(
            "clocks", lambda: _clocks(settings), "Let all hosts keep their time by NTP, for example with chrony."
        ),
        Examination(
            "permissions",
            lambda: _permissions(settings),
            "Run as the user who started the fleet, and take the rights from others: chmod go= FILE.",
        ),
        Examination(
            "ports",
            lambda: _ports(settings),
            "End the program that listens there, or delete the port from the fleet's state.json for another one.",
        ),
        Examination(
            "api users",
            lambda: _users(settings),
            "Name a file of users by TRENDFLOW_API_USERS, or let 'trendflow up' make one.",
            needed=settings.api_users is not None,
        ),
        Examination(
            "keys",
            lambda: _keys(settings),
            "Set the keys, each at least 16 random characters, and keep them; 'trendflow up' generates its own.",
            needed=settings.production,
        ),
    ]


def _opened(settings: Settings) -> Deployment:
    from trendflow.orchestration.deployment import open_deployment

    return open_deployment(settings)


def _graph(deployment: Deployment) -> str:
    graph = deployment.registry.graph
    graph.profile(deployment.settings.profile)
    return f"{len(graph.components)} components, profiles {', '.join(graph.profiles)}"


def _models(deployment: Deployment) -> str:
    """Weights by their digests, devices, and the model server where the profile maps it."""
    from trendflow.orchestration.runs import resolve_profile

    profile = deployment.settings.profile
    found = resolve_profile(deployment, profile)
    served = sum(model.entry.runtime == "triton" for model in found.values())
    where = f", {served} of them by the model server" if served else ""
    return f"{len(found)} roles of profile {profile} ready{where}"


def _broker(settings: Settings) -> str:
    if settings.broker_url is None:
        return "none is configured; runs start without a queue"
    from trendflow.orchestration.queue.board import Board

    with closing(Board(settings.broker_url.get_secret_value())) as board:
        return f"it answers; {sum(board.waiting().values())} messages wait, {len(board.dead_letters())} dead letters"


def _workers(settings: Settings) -> str:
    """Where runs go through a queue, somebody must take them from it."""
    if settings.broker_url is None:
        return "none are needed; runs start without a queue"
    from trendflow.orchestration.queue.board import Board, living
    from trendflow.orchestration.queue.names import Rhythm

    with closing(Board(settings.broker_url.get_secret_value())) as board:
        found = living(board.workers(), Rhythm().silent_s)
    if not found:
        raise TrendFlowError("internal_error", "No worker is alive: runs wait in the queue.")
    return f"{len(found)} are alive"


def _database(settings: Settings) -> str:
    _prepare_database(settings)
    from trendflow.orchestration.database import database_time

    return "SQLite answers" if database_time() is None else "it answers"


def _scheduler(settings: Settings) -> str:
    """Where runs go through a queue, Dagster's daemon must put them there."""
    if settings.broker_url is None:
        return "none is needed; runs start without a queue"
    _prepare_database(settings)
    from trendflow.orchestration.daemon_beat import scheduler_is_seen

    if not scheduler_is_seen():
        raise TrendFlowError("internal_error", "The daemon's sensors were not heard lately: submissions wait.")
    return "the daemon's sensors were heard a moment ago"


def _prepare_database(settings: Settings) -> None:
    with _one_at_a_time:  # two examinations ask it
        prepare_dagster_home(settings)


def _clocks(settings: Settings) -> str:
    """This host's clock against those of the servers that answer; the others have an examination of their own."""
    _prepare_database(settings)
    from trendflow.orchestration.database import database_time

    asked: dict[str, Callable[[], datetime | None]] = {
        "store": lambda: _store_time(_opened(settings)),
        "broker": lambda: _broker_time(settings),
        "database": database_time,
    }
    ahead = {name: seconds for name, ask in asked.items() if (seconds := _ahead_s(ask)) is not None}
    wrong = [f"{name} by {seconds:+.1f} s" for name, seconds in ahead.items() if abs(seconds) > CLOCK_LIMIT_S]
    if wrong:
        raise TrendFlowError("config_invalid", f"Clocks differ from this host's: {', '.join(wrong)}.", check="clock")
    return ", ".join(f"{name} {seconds:+.1f} s" for name, seconds in ahead.items()) or "no server was asked"


def _ahead_s(ask: Callable[[], datetime | None]) -> float | None:
    """By how much a clock is ahead of this host's, None when there is none; never more than it must be.

    The answer was made at some moment between question and answer.
    """
    before = datetime.now(UTC)
    try:
        found = ask()
    except TrendFlowError:
        return None
    after = datetime.now(UTC)
    if found is None:
        return None
    if found < before:
        return (found - before).total_seconds()
    return max(0.0, (found - after).total_seconds())


def _store_time(deployment: Deployment) -> datetime:
    store, key = deployment.store, f"{PROBE_FOLDER}/{uuid.uuid4().hex}/clock"
    store.put(key, b"")
    try:
        return store.head(key).last_modified
    finally:
        store.delete(key)


def _broker_time(settings: Settings) -> datetime | None:
    if settings.broker_url is None:
        return None
    from trendflow.orchestration.queue.board import Board

    with closing(Board(settings.broker_url.get_secret_value())) as board:
        return datetime.fromtimestamp(board.now(), UTC)


def _permissions(settings: Settings) -> str:
    """Files of the fleet belong to this user alone, and a key that settings name is not for everybody.

    Files elsewhere are handed in by whoever runs the containers: with an owner of their own, and a group that may read.
    Those with users hold digests of tokens and no secrets.
    """
    folder = fleet_folder(settings.home)
    kept = [folder / SECRETS, folder / STATE, token_file(folder), users_file(folder)]
    found = {path: _PRIVATE for path in kept if path.exists()}
    foreign = [path.name for path in found if path.stat().st_uid != os.geteuid()]
    if foreign:
        raise TrendFlowError("config_invalid", f"Files belong to another user: {', '.join(foreign)}.")
    key = settings.api_certificate_key
    if key is not None and key.exists():
        found[key] = stat.S_IRWXO
    open_ = [path.name for path, others in found.items() if path.stat().st_mode & others]
    if open_:
        raise TrendFlowError("config_invalid", f"Others may read files that hold secrets: {', '.join(open_)}.")
    return f"{len(found)} files with secrets are private" if found else "no file with secrets"


def _ports(settings: Settings) -> str:
    """The ports of services that do not run are free; those of running ones are their own."""
    state = read_state(fleet_folder(settings.home))
    if not state.ports:
        return "'trendflow up' will choose free ones"
    running = {process.service for process in state.processes if state.is_alive(process)}
    for service, ports in state.ports.items():
        if service not in running:
            require_free(service, ports)
    return f"of {len(state.ports)} services, {len(running)} of which run"


def _users(settings: Settings) -> str:
    path = _users_path(settings)
    if path is None:
        raise TrendFlowError("config_invalid", "Nobody may use the HTTP API: it has no users.")
    return f"{len(Users.load(path))} may use the HTTP API"


def _users_path(settings: Settings) -> Path | None:
    own = users_file(fleet_folder(settings.home))
    return settings.api_users or (own if own.exists() else None)


def _keys(settings: Settings) -> str:
    """Keys of the deployment, and that a fleet has the same: what one key signed the other does not know."""
    keys = {
        "TRENDFLOW_TOMBSTONE_KEY": settings.tombstone_key,
        "TRENDFLOW_WEBHOOK_KEY": settings.webhook_key,
        "TRENDFLOW_TEXT_KEY": settings.text_key,
    }
    missing = [name for name, key in keys.items() if key is None]
    if missing:
        raise TrendFlowError(
            "config_invalid", f"Not set: {', '.join(missing)}; deletion, webhooks and submitted texts need them."
        )
    values = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
    weak = [name for name, value in values.items() if len(value.encode()) < _KEY_BYTES]
    if weak:
        raise TrendFlowError("config_invalid", f"Too short to be a secret: {', '.join(weak)}.")
    require_same_keys(settings.home, values)
    return f"{len(values)} are set"
