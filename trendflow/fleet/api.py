"""The HTTP API of the fleet, with one user who may do everything and whose token is generated once."""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path

import httpx

from trendflow.contracts.canonical import canonical_json
from trendflow.fleet.environment import DEPLOYMENT_KEYS, application_environment
from trendflow.fleet.files import write_atomically
from trendflow.fleet.health import answers_http
from trendflow.fleet.infrastructure import SERVERS
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.loopback import HOST

NAME = "api"
USER = "fleet-admin"
USERS_VARIABLE = "TRENDFLOW_API_USERS"

# It loads the component graph and proves the store before it answers, which takes long on a busy machine.
_START_LIMIT_S = 300.0
# Its readiness asks store, broker and models, each with a limit of its own.
_READINESS_TIMEOUT_S = 20.0


def token_file(fleet_folder: Path) -> Path:
    """The file with the token of the fleet's own user."""
    return fleet_folder / NAME / "token"


def users_file(fleet_folder: Path) -> Path:
    """The users of the fleet's API; further ones may be added there."""
    return fleet_folder / NAME / "users.json"


def _build(site: Site) -> Service:
    port = site.port(NAME, "http")
    own = application_environment(site)
    return Service(
        command=(sys.executable, "-m", "trendflow.service"),
        environment={
            USERS_VARIABLE: str(users_file(site.folder)),
            **own,
            # Like everything of the fleet it stays on this machine; TLS is for one that does not.
            "TRENDFLOW_API_HOST": HOST,
            "TRENDFLOW_API_PORT": str(port),
            **dict.fromkeys(
                ("TRENDFLOW_API_CERTIFICATE", "TRENDFLOW_API_CERTIFICATE_KEY", "TRENDFLOW_API_CLIENT_AUTHORITY"), ""
            ),
        },
        folder=site.service_folder(NAME),
        prepare=lambda: _prepare(site),
        health=answers_http(port, "/health/live"),
        readiness=_ready(site),
        address=f"http://{HOST}:{port}/api/v1",
        # With a file of users of one's own the fleet's user does not exist.
        token_file=None if os.environ.get(USERS_VARIABLE) else token_file(site.folder),
        start_limit_s=_START_LIMIT_S,
    )


def _prepare(site: Site) -> None:
    token = site.secret(NAME, "token").encode()
    write_atomically(token_file(site.folder), token)
    if not users_file(site.folder).exists():
        digest = sha256(token).hexdigest()
        admin = {"token_sha256": digest, "user_id": USER, "tier": "internal", "admin": True}
        write_atomically(users_file(site.folder), canonical_json([admin]))


def _ready(site: Site) -> Health:
    """What the API says of everything that processing needs; nothing where it has other users than the fleet's."""
    port = site.port(NAME, "http")

    def check() -> str | None:
        headers = {"Authorization": f"Bearer {site.secret(NAME, 'token')}"}
        try:
            answer = httpx.get(
                f"http://{HOST}:{port}/health", headers=headers, timeout=_READINESS_TIMEOUT_S, trust_env=False
            )
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                return None
            checks = answer.json()["checks"]
        except (httpx.HTTPError, ValueError, KeyError) as exc:
            return f"it does not say whether it is ready ({type(exc).__name__})"
        wrong = [f"{line['name']}: {line['text']}" for line in checks if line["error_code"] is not None]
        return f"not ready: {' '.join(wrong)}" if wrong else None

    return check


API = Blueprint(
    name=NAME,
    build=_build,
    ports=("http",),
    secrets=("token",),
    shared_secrets=tuple(DEPLOYMENT_KEYS.values()),
    needs=SERVERS,
)
