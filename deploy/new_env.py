"""Make the passwords and keys of the containers: deploy/.env and the files of deploy/secrets/. Needs Python alone.

    python3 deploy/new_env.py [FOLDER]

What is there already is kept, so running it again is safe and adds what a newer release needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

GENERATED = (
    "POSTGRES_PASSWORD",
    "BROKER_PASSWORD",
    "MINIO_PASSWORD",
    "TOMBSTONE_KEY",
    "TEXT_KEY",
    "WEBHOOK_KEY",
    "GRAFANA_PASSWORD",
)


def main(folder: Path) -> None:
    example = (Path(__file__).parent / ".env.example").read_text().splitlines()
    env = folder / ".env"
    known = dict(line.split("=", 1) for line in _lines(env) if "=" in line and not line.startswith("#"))
    lines = []
    for line in example:
        name = line.partition("=")[0]
        if name in GENERATED:
            line = f"{name}={known.get(name) or secrets.token_hex(24)}"  # digits need no quoting in URLs
        elif name in known:
            line = f"{name}={known[name]}"
        lines.append(line)
    own = set(known) - {line.partition("=")[0] for line in example}
    _write(env, "".join(f"{line}\n" for line in [*lines, *(f"{name}={known[name]}" for name in sorted(own))]), 0o600)

    # Containers read these files as users of their own, so the folder keeps others of this host away.
    files = folder / "secrets"
    files.mkdir(mode=0o700, exist_ok=True)
    token = files / "api_token"
    if not token.exists():
        _write(token, secrets.token_urlsafe(32), 0o644)
    users = files / "api_users.json"
    if not users.exists():
        digest = hashlib.sha256(token.read_bytes()).hexdigest()
        admin = {"token_sha256": digest, "user_id": "admin", "tier": "internal", "admin": True}
        _write(users, json.dumps([admin], indent=2), 0o644)
    print(f"{env} and {files} are complete; the token of the API is in {token}.")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _write(path: Path, text: str, mode: int) -> None:
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.chmod(mode)  # whatever the umask is
    new.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
