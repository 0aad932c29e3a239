"""How TrendFlow and Dagster are pointed at the servers of a fleet: by one function, for commands and services alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trendflow.config import Settings, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.fleet import postgresql, seaweedfs, valkey
from trendflow.fleet.credentials import read_secrets
from trendflow.fleet.files import make_folder, write_atomically
from trendflow.fleet.service import Site
from trendflow.fleet.state import read_state

DATABASE_VARIABLE = "TRENDFLOW_DATABASE_URL"
DAGSTER_HOME = "DAGSTER_HOME"

DEPLOYMENT_KEYS = {
    "TRENDFLOW_TEXT_KEY": "deployment.text_key",
    "TRENDFLOW_TOMBSTONE_KEY": "deployment.tombstone_key",
    "TRENDFLOW_WEBHOOK_KEY": "deployment.webhook_key",
}
"""Keys that every program of a deployment must agree on: the variable of each, and the name of the fleet's secret."""

_PREFIX = "TRENDFLOW_"
_STORE_URL = f"s3://{seaweedfs.BUCKET}/{seaweedfs.PREFIX}"
# Runs that Dagster has handed to the queue and that have not ended. Well above the number of workers, so that none
# waits for Dagster's next look; bounded, because a run of higher priority does not overtake what is launched.
_MAX_LAUNCHED_RUNS = 100
# What waits for a worker is "starting" for Dagster, however long that takes: ten years. Not 0, which is meant to switch
# the limit off, but makes Dagster's monitoring fail on every run that waits, each time it looks.
_START_TIMEOUT_S = 10 * 365 * 86400
# As often as submissions are looked at; Dagster's own pace would add seconds to every wait.
_DEQUEUE_S = 2


def fleet_folder(home: Path) -> Path:
    """Where the fleet of a home keeps everything."""
    return home / "fleet"


def fleet_environment(site: Site) -> dict[str, str]:
    """The variables that make TrendFlow use the servers of `site`, for each server that it has.

    `TRENDFLOW_STORE_URL` and `TRENDFLOW_STORE_OPTIONS` (JSON), `TRENDFLOW_BROKER_URL`, `TRENDFLOW_DATABASE_URL` with
    the `DAGSTER_HOME` whose storage it is, `DEPLOYMENT_KEYS` and `TRENDFLOW_HOME`. They hold passwords.
    """
    found = {"TRENDFLOW_HOME": str(site.folder.parent)}
    if seaweedfs.NAME in site.ports:
        found["TRENDFLOW_STORE_URL"] = _STORE_URL
        found["TRENDFLOW_STORE_OPTIONS"] = json.dumps(seaweedfs.store_options(site))
    if valkey.NAME in site.ports:
        found["TRENDFLOW_BROKER_URL"] = valkey.broker_url(site)
    if postgresql.NAME in site.ports:
        found[DATABASE_VARIABLE] = postgresql.database_url(site)
        found[DAGSTER_HOME] = str(_dagster_home(site))
    for variable, name in DEPLOYMENT_KEYS.items():
        key = site.shared_secret(name)
        if key is not None:
            found[variable] = key
    return found


def application_environment(site: Site) -> dict[str, str]:
    """What TrendFlow's own programs run with in the fleet: the settings of this process, on the servers of `site`.

    Paths are absolute, because those programs have other working folders. Raises what `load_settings` does.
    """
    # Logs of the fleet are read by machines, too; without a format Dagster's code servers would log in their own way.
    own = {"TRENDFLOW_LOG_FORMAT": "json"}
    own |= {name: value for name, value in os.environ.items() if name.startswith(_PREFIX) and value}
    settings = load_settings()
    for field in settings.model_fields_set:
        value = getattr(settings, field)
        if isinstance(value, Path):
            own[_PREFIX + field.upper()] = str(value)
    return own | fleet_environment(site)


def given_keys() -> dict[str, str]:
    """Keys that this process was given, by the fleet's names for them: a deployment keeps those that it has."""
    return {name: os.environ[variable] for variable, name in DEPLOYMENT_KEYS.items() if os.environ.get(variable)}


def write_dagster_home(site: Site) -> None:
    """Write `dagster.yaml` of the fleet: the shipped settings, with PostgreSQL as storage and the queue as launcher.

    Addresses stand in the environment, so that passwords are in one file only.
    """
    if postgresql.NAME not in site.ports:
        return
    home = _dagster_home(site)
    make_folder(home)
    instance: dict[str, Any] = yaml.safe_load(data_path("dagster.yaml").read_text())
    instance["storage"] = {
        "custom": {
            "module": "trendflow.orchestration.pooled_storage",
            "class": "PooledPostgresStorage",
            "config": {"postgres_url": {"env": DATABASE_VARIABLE}},
        }
    }
    instance["run_launcher"] = {"module": "trendflow.orchestration.queue.launcher", "class": "QueueRunLauncher"}
    instance["concurrency"]["runs"]["max_concurrent_runs"] = _MAX_LAUNCHED_RUNS
    instance["run_queue"] = {"dequeue_interval_seconds": _DEQUEUE_S}
    # What was begun and is not known to the queue any more, because that lost its data, is put there again.
    instance["run_monitoring"] |= {
        "start_timeout_seconds": _START_TIMEOUT_S,
        "poll_interval_seconds": 30,
        "max_resume_run_attempts": 3,
    }
    write_atomically(home / "dagster.yaml", yaml.safe_dump(instance, sort_keys=False).encode())


def use_fleet(home: Path) -> bool:
    """Point this process at the fleet of `home` while that is up. What the user has set himself is kept.

    Returns whether it is up on this machine. Raises `config_invalid` for a fleet whose files this user may not read:
    working on a store of one's own instead would only look like success.
    """
    folder = fleet_folder(home)
    state = read_state(folder)
    is_up = state.is_up and not state.is_elsewhere
    if is_up:
        running = {process.service for process in state.processes}
        ports = {service: ports for service, ports in state.ports.items() if service in running}
        _set_missing(fleet_environment(Site(folder, ports, read_secrets(folder))))
    return is_up


def require_keys_of_fleet(home: Path) -> None:
    """Raise `config_invalid` when this process works on the store of the fleet of `home` with a key of its own.

    What it would delete then, the fleet would take again.
    """
    if os.environ.get("TRENDFLOW_STORE_URL") == _STORE_URL:
        own = {variable: os.environ[variable] for variable in DEPLOYMENT_KEYS if os.environ.get(variable)}
        require_same_keys(home, own)


def require_same_keys(home: Path, keys: Mapping[str, str]) -> None:
    """Raise `config_invalid` when one of `keys`, by variable, is another than that of the fleet of `home`."""
    secrets = read_secrets(fleet_folder(home))
    other = [variable for variable, key in keys.items() if secrets.get(DEPLOYMENT_KEYS[variable], key) != key]
    if other:
        raise TrendFlowError(
            "config_invalid", f"The fleet was started with another key: {', '.join(other)}.", variables=other
        )


def is_store_of_fleet(settings: Settings) -> bool:
    """Whether `settings`, after `use_fleet`, name the store of the fleet of their home."""
    return settings.store_url == _STORE_URL and read_state(fleet_folder(settings.home)).is_up


def _set_missing(variables: Mapping[str, str]) -> None:
    for together in (("TRENDFLOW_STORE_URL", "TRENDFLOW_STORE_OPTIONS"), (DATABASE_VARIABLE, DAGSTER_HOME)):
        if not any(os.environ.get(name) for name in together):  # half of a pair would point elsewhere
            os.environ.update({name: variables[name] for name in together if name in variables})
    for name in ("TRENDFLOW_HOME", "TRENDFLOW_BROKER_URL", *DEPLOYMENT_KEYS):
        if name in variables and not os.environ.get(name):
            os.environ[name] = variables[name]


def _dagster_home(site: Site) -> Path:
    return site.folder / "dagster"
