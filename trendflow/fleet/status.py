"""How the fleet is (`fleet_status_v1`): what the state file says, held against the processes and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from trendflow.fleet.credentials import read_secrets
from trendflow.fleet.service import Blueprint, Service, Site, in_order
from trendflow.fleet.state import FleetState, read_state
from trendflow.processes import boot_id

SCHEMA = "fleet_status_v1"

Condition = Literal["healthy", "unhealthy", "dead", "stopped"]


def fleet_status(folder: Path, blueprints: Sequence[Blueprint]) -> dict[str, Any]:
    """The status document: every service with its condition, process and ports, in the order of starting.

    `healthy`: its process lives and it answered well; `unhealthy`: it lives but did not; `dead`: it was started and
    ended by itself; `stopped`: it was not started. `data_elsewhere` is the folder of data that are not in the
    fleet's own one. Health checks run side by side. Raises what `read_state` does.
    """
    state = read_state(folder)
    site = Site(folder, state.ports, read_secrets(folder))
    ordered = in_order(blueprints)
    known = {blueprint.name for blueprint in ordered}
    with ThreadPoolExecutor(max_workers=max(1, len(ordered))) as pool:
        rows = list(pool.map(lambda blueprint: _row(blueprint, site, state), ordered))
    # Started by an earlier version or with other settings; `down` ends them all the same.
    rows += [_facts(found.service, state, site) for found in state.processes if found.service not in known]
    return {
        "schema_version": SCHEMA,
        "is_up": state.is_up,
        "host": state.host,
        "updated_at": state.updated_at,
        "services": rows,
    }


def _row(blueprint: Blueprint, site: Site, state: FleetState) -> dict[str, Any]:
    facts = _facts(blueprint.name, state, site)
    if facts["condition"] != "healthy":
        return facts
    service = blueprint.build(site)
    trouble = _trouble(service)
    facts |= {"address": service.address, "token_file": None if service.token_file is None else str(service.token_file)}
    return facts if trouble is None else {**facts, "condition": "unhealthy", "reason": trouble}


def _trouble(service: Service) -> str | None:
    trouble = service.health()
    return service.readiness() if trouble is None and service.readiness is not None else trouble


def _facts(name: str, state: FleetState, site: Site) -> dict[str, Any]:
    process, folder = state.process(name), site.service_folder(name)
    condition: Condition = "stopped"
    reason = None
    if process is not None and state.is_alive(process):
        condition = "healthy"
    elif process is not None:
        condition = "dead"
        if state.is_elsewhere:
            reason = f"it was started on the host {state.host}"
        elif state.boot == boot_id() and process.process.is_alive:
            reason = "the process that writes its log has ended"
        else:
            reason = "its process has ended"
    return {
        "service": name,
        "condition": condition,
        "reason": reason,
        "pid": None if process is None else process.process.pid,
        "started_at": None if process is None else process.started_at,
        "ports": dict(site.ports.get(name, {})),
        "address": None,
        "token_file": None,
        "log": None if process is None else process.log,
        "data_elsewhere": str(folder.resolve()) if folder.is_symlink() else None,
    }
