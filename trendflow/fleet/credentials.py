"""Passwords and keys of the fleet's servers: generated once, in one file that only its owner may read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.files import write_atomically
from trendflow.fleet.service import Blueprint, secret_name

SECRETS = "secrets.json"

_BYTES = 24  # as hexadecimal digits: they stand in URLs and configuration files without quoting


def read_secrets(folder: Path) -> dict[str, str]:
    """The secrets by name; none when no fleet was ever started there.

    Raises `config_invalid` for a file that this user may not read, or that is damaged.
    """
    try:
        found = json.loads((folder / SECRETS).read_bytes())
    except FileNotFoundError:
        return {}
    except PermissionError as exc:
        raise TrendFlowError(
            "config_invalid", "The fleet of this home belongs to another user of this machine.", file=SECRETS
        ) from exc
    except (OSError, ValueError) as exc:
        raise _damaged() from exc
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _damaged()
    return found


def assign_secrets(
    folder: Path, blueprints: Iterable[Blueprint], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The secrets in `folder`, after those that were missing were stored: as `given`, or generated."""
    kept = read_secrets(folder)
    names = [
        name
        for blueprint in blueprints
        for name in (
            *(secret_name(blueprint.name, purpose) for purpose in blueprint.secrets),
            *blueprint.shared_secrets,
        )
    ]
    known = given or {}
    found = kept | {name: known.get(name) or secrets.token_hex(_BYTES) for name in names if name not in kept}
    if found != kept:
        write_atomically(folder / SECRETS, canonical_json(found))
    return found


def _damaged() -> TrendFlowError:
    return TrendFlowError("config_invalid", f"The file {SECRETS} of the fleet cannot be read.", file=SECRETS)
