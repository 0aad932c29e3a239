"""Programs that stand on the fleet's servers: Dagster's code servers, web server and daemon, and the API."""

from __future__ import annotations

from datetime import datetime

import httpx

from trendflow.fleet.api import API
from trendflow.fleet.code_servers import CODE_SERVERS, dagster_command, workspace_file, write_workspace
from trendflow.fleet.environment import DEPLOYMENT_KEYS, application_environment
from trendflow.fleet.health import CALL_TIMEOUT_S, answers_http
from trendflow.fleet.infrastructure import SERVERS
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.fleet.state import read_state
from trendflow.loopback import HOST

_WEBSERVER = "webserver"
_DAEMON = "daemon"
_HEARTBEATS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }"
# Both ask for all that is in the code locations before they answer, which takes long on a busy machine.
_START_LIMIT_S = 300.0


def _build_webserver(site: Site) -> Service:
    port = site.port(_WEBSERVER, "http")
    return Service(
        command=dagster_command(site, "dagster_webserver", "-h", HOST, "-p", str(port), *_workspace(site)),
        environment=application_environment(site),
        folder=site.service_folder(_WEBSERVER),
        prepare=lambda: write_workspace(site),
        health=answers_http(port, "/server_info"),
        address=f"http://{HOST}:{port}",
        start_limit_s=_START_LIMIT_S,
    )


def _build_daemon(site: Site) -> Service:
    return Service(
        command=dagster_command(site, "dagster._daemon", "run", *_workspace(site)),
        environment=application_environment(site),
        folder=site.service_folder(_DAEMON),
        prepare=lambda: write_workspace(site),
        health=_beats(site),
        start_limit_s=_START_LIMIT_S,
    )


def _workspace(site: Site) -> tuple[str, ...]:
    return "-w", str(workspace_file(site))


def _beats(site: Site) -> Health:
    """Every part of the daemon that this instance requires has sent its heartbeat, as the web server sees it.

    One of the process that the fleet started: Dagster takes that of an earlier one for good for minutes.
    """

    def check() -> str | None:
        process = read_state(site.folder).process(_DAEMON)
        started = 0.0 if process is None else datetime.fromisoformat(process.started_at).timestamp()
        url = f"http://{HOST}:{site.port(_WEBSERVER, 'http')}/graphql"
        try:
            answer = httpx.post(url, json={"query": _HEARTBEATS}, timeout=CALL_TIMEOUT_S, trust_env=False)
            statuses = answer.raise_for_status().json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        except httpx.HTTPError as exc:
            return f"the web server does not tell of its heartbeats ({type(exc).__name__})"
        late = [
            status["daemonType"]
            for status in statuses
            if status["required"] and not (status["healthy"] and (status["lastHeartbeatTime"] or 0.0) >= started)
        ]
        return f"no heartbeat of {', '.join(sorted(late))}" if late else None

    return check


_KEYS = tuple(DEPLOYMENT_KEYS.values())
_NEEDS = (*SERVERS, *(blueprint.name for blueprint in CODE_SERVERS))
WEBSERVER = Blueprint(name=_WEBSERVER, build=_build_webserver, ports=("http",), shared_secrets=_KEYS, needs=_NEEDS)
DAEMON = Blueprint(name=_DAEMON, build=_build_daemon, shared_secrets=_KEYS, needs=(*_NEEDS, _WEBSERVER))

APPLICATIONS: tuple[Blueprint, ...] = (*CODE_SERVERS, WEBSERVER, DAEMON, API)
