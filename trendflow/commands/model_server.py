"""The Triton server as a service of the fleet, where the profile executes models by one."""

from __future__ import annotations

from pathlib import Path

from trendflow.commands.triton import ensure_server
from trendflow.config import Settings
from trendflow.fleet.service import Blueprint, Service, Site, Started
from trendflow.models.triton.connection import answering_server
from trendflow.models.triton.state import running

NAME = "triton"

_PORTS = ("http", "grpc", "metrics")
_START_LIMIT_S = 300.0


def model_servers(settings: Settings) -> list[Blueprint]:
    """The server that the profile of this deployment needs; none when it needs none or another one is configured."""
    from trendflow.orchestration.deployment import open_deployment

    profile = open_deployment(settings).graph.profile(settings.profile)
    served = sorted(name for role, name in profile.models.items() if profile.runtimes.get(role) == "triton")
    if not served or settings.triton_url is not None:
        return []

    def build(site: Site) -> Service:
        return Service(
            command=("tritonserver", settings.profile, *served),
            folder=site.service_folder(NAME),
            launcher=lambda: _launch(settings, {purpose: site.port(NAME, purpose) for purpose in _PORTS}),
            health=lambda: _trouble(settings),
            start_limit_s=_START_LIMIT_S,
            error_code="triton_unavailable",
        )

    return [Blueprint(name=NAME, build=build, ports=_PORTS)]


def _launch(settings: Settings, ports: dict[str, int | None]) -> Started:
    state, _ = ensure_server(settings, settings.profile, ports, lambda _step: None)
    return Started(state.pid, state.started_ticks, Path(state.log))


def _trouble(settings: Settings) -> str | None:
    """Whether this deployment's own server answers. That its models work was proven when it started."""
    state = running(settings.triton_dir)
    if state is None:
        return "its process has ended"
    return None if answering_server(state.grpc_url) == state.server_id else "it does not answer"
