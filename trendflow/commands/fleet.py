"""`trendflow up`, `down` and `status`: the production shape as processes on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.status import Status

from trendflow.commands.console import err, out, table
from trendflow.commands.model_server import model_servers
from trendflow.commands.triton import clear_dead_server
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.applications import APPLICATIONS
from trendflow.fleet.environment import fleet_folder, write_dagster_home
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.fleet.service import Blueprint
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet

_STYLES = {"healthy": "green", "unhealthy": "yellow", "dead": "red", "stopped": "dim"}
_EVENTS = {"started": "green", "running": "green", "stopped": "dim", "gone": "yellow"}


def up(services: Sequence[str]) -> int:
    """Start the fleet, or the named services with what they need; what runs is kept. Raises what `Fleet.up` does.

    Of a service that fails to start the end of its log is printed.
    """
    settings = load_settings()
    ensure_home(settings)
    with err.status("starting") as line:
        try:
            _fleet(settings).up(list(services) or None, _Progress(line), write_dagster_home)
        except TrendFlowError as error:
            if error.detail.get("log"):
                err.print(error.detail["log"], markup=False, highlight=False)
            raise
    _print_status(_status(settings))
    return 0


def down() -> int:
    """End the fleet; its data stay. Raises what `Fleet.down` does."""
    settings = load_settings()
    with err.status("ending") as line:
        ended = _fleet(settings).down(_Progress(line))
        if settings.triton_dir.exists():
            clear_dead_server(settings)  # its shared memory outlives it
    out.print(f"{ended} services ended" if ended else "no service was running")
    return 0


def status(as_json: bool) -> int:
    """Print how every service is. Raises `internal_error` when one of a fleet that should be up does not work."""
    found = _status(load_settings())
    if as_json:
        out.print_json(json.dumps(found))
    else:
        _print_status(found)
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


def _blueprints(settings: Settings) -> list[Blueprint]:
    """What the fleet of this deployment consists of."""
    return [*INFRASTRUCTURE, *model_servers(settings), *APPLICATIONS]


def _fleet(settings: Settings) -> Fleet:
    return Fleet(fleet_folder(settings.home), _blueprints(settings))


def _status(settings: Settings) -> dict[str, Any]:
    return fleet_status(fleet_folder(settings.home), _blueprints(settings))


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
