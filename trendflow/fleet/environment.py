"""How TrendFlow and Dagster are pointed at the servers of a fleet: by one function, for commands and services alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trendflow.contracts.package_data import data_path
from trendflow.fleet import postgresql, seaweedfs, valkey
from trendflow.fleet.credentials import read_secrets
from trendflow.fleet.files import make_folder, write_atomically
from trendflow.fleet.service import Site
from trendflow.fleet.state import read_state

DATABASE_VARIABLE = "TRENDFLOW_DATABASE_URL"
DAGSTER_HOME = "DAGSTER_HOME"


def fleet_folder(home: Path) -> Path:
    """Where the fleet of a home keeps everything."""
    return home / "fleet"


def fleet_environment(site: Site) -> dict[str, str]:
    """The variables that make TrendFlow use the servers of `site`, for each server that it has.

    `TRENDFLOW_STORE_URL` and `TRENDFLOW_STORE_OPTIONS` (JSON), `TRENDFLOW_BROKER_URL`, `TRENDFLOW_DATABASE_URL` with
    the `DAGSTER_HOME` whose storage it is, and `TRENDFLOW_HOME`. They hold passwords.
    """
    found = {"TRENDFLOW_HOME": str(site.folder.parent)}
    if seaweedfs.NAME in site.ports:
        found["TRENDFLOW_STORE_URL"] = f"s3://{seaweedfs.BUCKET}/{seaweedfs.PREFIX}"
        found["TRENDFLOW_STORE_OPTIONS"] = json.dumps(seaweedfs.store_options(site))
    if valkey.NAME in site.ports:
        found["TRENDFLOW_BROKER_URL"] = valkey.broker_url(site)
    if postgresql.NAME in site.ports:
        found[DATABASE_VARIABLE] = postgresql.database_url(site)
        found[DAGSTER_HOME] = str(_dagster_home(site))
    return found


def write_dagster_home(site: Site) -> None:
    """Write `dagster.yaml` of the fleet: the shipped settings, with PostgreSQL as storage.

    The address stands in the environment, so that the password is in one file only.
    """
    if postgresql.NAME not in site.ports:
        return
    home = _dagster_home(site)
    make_folder(home)
    instance: dict[str, Any] = yaml.safe_load(data_path("dagster.yaml").read_text())
    instance["storage"] = {"postgres": {"postgres_url": {"env": DATABASE_VARIABLE}}}
    write_atomically(home / "dagster.yaml", yaml.safe_dump(instance, sort_keys=False).encode())


def use_fleet(home: Path) -> None:
    """Point this process at the fleet of `home` while that is up. What the user has set himself is kept.

    Raises `config_invalid` for a fleet whose files this user may not read: working on a store of one's own instead
    would only look like success.
    """
    folder = fleet_folder(home)
    state = read_state(folder)
    if state.is_up and not state.is_elsewhere:
        running = {process.service for process in state.processes}
        ports = {service: ports for service, ports in state.ports.items() if service in running}
        _set_missing(fleet_environment(Site(folder, ports, read_secrets(folder))))


def _set_missing(variables: Mapping[str, str]) -> None:
    for together in (("TRENDFLOW_STORE_URL", "TRENDFLOW_STORE_OPTIONS"), (DATABASE_VARIABLE, DAGSTER_HOME)):
        if not any(os.environ.get(name) for name in together):  # half of a pair would point elsewhere
            os.environ.update({name: variables[name] for name in together if name in variables})
    for name in ("TRENDFLOW_HOME", "TRENDFLOW_BROKER_URL"):
        if name in variables and not os.environ.get(name):
            os.environ[name] = variables[name]


def _dagster_home(site: Site) -> Path:
    return site.folder / "dagster"
