"""Dagster's own processes in the fleet: the web server with the asset graph, and the daemon that launches runs."""

from __future__ import annotations

import sys

import httpx

from trendflow.contracts.package_data import data_path
from trendflow.fleet import postgresql, seaweedfs, valkey
from trendflow.fleet.environment import fleet_environment
from trendflow.fleet.health import CALL_TIMEOUT_S, answers_http
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.loopback import HOST

_SERVERS = (seaweedfs.NAME, valkey.NAME, postgresql.NAME)
_WEBSERVER = "webserver"
_DAEMON = "daemon"
_HEARTBEATS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
# Both load all code locations before they answer, which takes long on a busy machine.
_START_LIMIT_S = 300.0


def _build_webserver(site: Site) -> Service:
    port = site.port(_WEBSERVER, "http")
    return Service(
        command=(*_module("dagster_webserver"), "-h", HOST, "-p", str(port), *_workspace()),
        environment=fleet_environment(site),
        folder=site.service_folder(_WEBSERVER),
        health=answers_http(port, "/server_info"),
        start_limit_s=_START_LIMIT_S,
    )


def _build_daemon(site: Site) -> Service:
    return Service(
        command=(*_module("dagster._daemon"), "run", *_workspace()),
        environment=fleet_environment(site),
        folder=site.service_folder(_DAEMON),
        health=_beats(site.port(_WEBSERVER, "http")),
        start_limit_s=_START_LIMIT_S,
    )


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", name


def _workspace() -> tuple[str, ...]:
    return "-w", str(data_path("workspace.yaml"))


def _beats(webserver_port: int) -> Health:
    """Every part of the daemon that this instance requires has sent its heartbeat, as the web server sees it."""

    def check() -> str | None:
        url = f"http://{HOST}:{webserver_port}/graphql"
        try:
            answer = httpx.post(url, json={"query": _HEARTBEATS}, timeout=CALL_TIMEOUT_S, trust_env=False)
            statuses = answer.raise_for_status().json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        except httpx.HTTPError as exc:
            return f"the web server does not tell of its heartbeats ({type(exc).__name__})"
        late = [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]
        return f"no heartbeat of {', '.join(sorted(late))}" if late else None

    return check


WEBSERVER = Blueprint(name=_WEBSERVER, build=_build_webserver, ports=("http",), needs=_SERVERS)
DAEMON = Blueprint(name=_DAEMON, build=_build_daemon, needs=(*_SERVERS, _WEBSERVER))

APPLICATIONS: tuple[Blueprint, ...] = (WEBSERVER, DAEMON)
