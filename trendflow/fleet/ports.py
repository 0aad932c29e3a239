"""Ports that are chosen once and kept: clients, stored addresses and SeaweedFS's own files hold on to them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.service import Blueprint
from trendflow.loopback import choose_ports

_LOWEST = 10_240
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 200

Ports = dict[str, dict[str, int]]


def assign_ports(blueprints: Iterable[Blueprint], kept: Mapping[str, Mapping[str, int]]) -> Ports:
    """The kept ports, and one that is free now for each purpose that has none yet.

    Raises `config_invalid` when no free one is found.
    """
    ports: Ports = {service: dict(purposes) for service, purposes in kept.items()}
    taken = {port for purposes in ports.values() for port in purposes.values()}
    for blueprint in blueprints:
        own = ports.setdefault(blueprint.name, {})
        for purpose in blueprint.ports:
            if purpose not in own:
                own[purpose] = _free_port(taken)
                taken.add(own[purpose])
    return ports


def require_free(service: str, ports: Mapping[str, int]) -> None:
    """Raise `config_invalid` unless the service could listen on all of its ports now."""
    choose_ports(f"The service {service!r}", ports)


def _free_port(taken: set[int]) -> int:
    # Below the range from which the kernel gives ports to connections: one of those could sit on a kept port while its
    # server is down.
    lowest_ephemeral = int(_EPHEMERAL.read_text().split()[0])
    highest = lowest_ephemeral if lowest_ephemeral > _LOWEST + _ATTEMPTS else 65_536
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(highest - _LOWEST)
        if port not in taken:
            try:
                return choose_ports("The fleet", {"a service": port})["a service"]
            except TrendFlowError:
                continue  # somebody listens there
    raise TrendFlowError("config_invalid", "No free port was found on this machine.")
