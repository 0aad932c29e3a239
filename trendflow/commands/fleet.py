"""`trendflow up`, `down` and `status`: the production shape as processes on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.status import Status

from trendflow.commands.console import err, out, table
from trendflow.commands.model_server import model_servers
from trendflow.commands.triton import clear_dead_server
from trendflow.commands.workers import REPLICAS, default_count, workers
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.applications import APPLICATIONS
from trendflow.fleet.environment import application_environment, fleet_folder, given_keys, write_dagster_home
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.fleet.keeper import keeper
from trendflow.fleet.service import Blueprint
from trendflow.fleet.state import read_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet

_STYLES = {"healthy": "green", "unhealthy": "yellow", "dead": "red", "stopped": "dim"}
_EVENTS = {"started": "green", "running": "green", "stopped": "dim", "gone": "yellow"}


def up(services: Sequence[str], n_workers: int | None) -> int:
    """Start the fleet, or the named services with what they need; what runs is kept. Raises what `Fleet.up` does.

    The number of workers is kept until another one is given. Of a service that fails to start the end of its log is
    printed.
    """
    settings = load_settings()
    ensure_home(settings)
    with err.status("starting") as line:
        try:
            fleet_of(settings, n_workers).up(list(services) or None, _Progress(line), write_dagster_home)
        except KeyboardInterrupt as interrupt:
            raise TrendFlowError(
                "cancelled",
                "Stopped; what has started goes on: 'trendflow up' starts the rest, 'trendflow down' ends it.",
            ) from interrupt
        except TrendFlowError as error:
            if error.detail.get("log"):
                err.print(error.detail["log"], markup=False, highlight=False)
            raise
    _print_status(status_of(settings))
    return 0


def down() -> int:
    """End the fleet; its data stay. Raises what `Fleet.down` does."""
    settings = load_settings()
    with err.status("ending") as line:
        ended = Fleet(fleet_folder(settings.home), ()).down(_Progress(line))
        if settings.triton_dir.exists():
            clear_dead_server(settings)  # its shared memory outlives it
    out.print(f"{ended} services ended" if ended else "no service was running")
    return 0


def status(as_json: bool) -> int:
    """Print how every service is. Raises `internal_error` when one of a fleet that should be up does not work."""
    found = status_of(load_settings())
    if as_json:
        out.print_json(json.dumps(found))
    else:
        _print_status(found)
        if all(row["condition"] == "stopped" for row in found["services"]):
            out.print("nothing is running; 'trendflow up' starts it")
    broken = [row["service"] for row in found["services"] if row["condition"] in ("dead", "unhealthy")]
    if broken:
        raise TrendFlowError(
            "internal_error",
            f"Services do not work: {', '.join(broken)}; 'trendflow up' starts again what has ended.",
            services=broken,
        )
    return 0


class _Progress:
    """A line for what happens now, and one that stays for each service that is done."""

    def __init__(self, line: Status) -> None:
        self._line = line

    def __call__(self, service: str, event: str) -> None:
        if event in _EVENTS:
            err.print(f"[{_EVENTS[event]}]{event:<8}[/] {service}", highlight=False)
        else:
            self._line.update(f"{event} {service}")


def fleet_of(settings: Settings, n_workers: int | None = None) -> Fleet:
    """The fleet of this deployment, with as many workers as given, else as the last time."""
    folder = fleet_folder(settings.home)
    count = n_workers or read_state(folder).replicas.get(REPLICAS) or default_count()
    return Fleet(folder, _blueprints(settings, count), replicas={REPLICAS: count}, given_secrets=given_keys())


def _blueprints(settings: Settings, n_workers: int) -> list[Blueprint]:
    """What the fleet of this deployment consists of."""
    kept = [*INFRASTRUCTURE, *model_servers(settings), *APPLICATIONS, *workers(n_workers)]
    command = (sys.executable, "-m", "trendflow.commands.keeper")
    return [*kept, keeper(command, application_environment, [blueprint.name for blueprint in kept])]


def status_of(settings: Settings) -> dict[str, Any]:
    """The status document of this deployment's fleet. Raises what `fleet_status` does."""
    fleet = fleet_of(settings)
    return fleet_status(fleet.folder, fleet.blueprints)


def _print_status(found: dict[str, Any]) -> None:
    rows = [
        [
            row["service"],
            f"[{_STYLES[row['condition']]}]{row['condition']}[/]",
            str(row["pid"] or ""),
            " ".join(f"{purpose} {port}" for purpose, port in row["ports"].items() if not purpose.endswith("_grpc")),
            row["reason"] or "",
        ]
        for row in found["services"]
    ]
    out.print(table(None, ["service", "condition", "process", "ports", "reason"], rows))
    for row in found["services"]:
        if row["address"] is not None:
            token = "" if row["token_file"] is None else f"  token in {row['token_file']}"
            out.print(f"{row['service']}  {row['address']}{token}", highlight=False, soft_wrap=True)
        if row["data_elsewhere"] is not None:
            out.print(f"{row['service']}  data in {row['data_elsewhere']}", highlight=False, soft_wrap=True)
