"""Who may ask: bearer tokens, of which the deployment holds digests only."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trendflow.contracts.errors import TrendFlowError

Tier = Literal["free", "premium", "internal"]


@dataclass(frozen=True)
class User:
    """A caller. `admin` may delete videos and clean up."""

    user_id: str
    tier: Tier = "free"
    admin: bool = False


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    user_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    tier: Tier = "free"
    admin: bool = False


_ENTRIES = TypeAdapter(Annotated[list[_Entry], Field(min_length=1)])


class Users:
    """The users of a deployment, by the sha256 of their tokens."""

    def __init__(self, by_digest: Iterable[tuple[str, User]]) -> None:
        self._known = [(bytes.fromhex(digest), user) for digest, user in by_digest]

    @classmethod
    def load(cls, path: Path) -> Users:
        """Read a JSON list of `{token_sha256, user_id, tier?, admin?}`. Raises `config_invalid`."""
        try:
            entries = _ENTRIES.validate_python(json.loads(path.read_bytes()))
        except OSError as exc:
            raise TrendFlowError("config_invalid", f"The file of API users cannot be read: {exc.strerror}.") from exc
        except ValidationError as exc:
            place = ".".join(map(str, exc.errors()[0]["loc"]))
            raise TrendFlowError("config_invalid", f"The file of API users is not valid at {place!r}.") from None
        except ValueError:
            raise TrendFlowError("config_invalid", "The file of API users is not JSON.") from None
        return cls((entry.token_sha256, User(entry.user_id, entry.tier, entry.admin)) for entry in entries)

    def __len__(self) -> int:
        return len(self._known)

    def of_token(self, token: bytes) -> User | None:
        """The user of a token. Takes the same time whichever token of the list it is, or none."""
        digest, found = sha256(token).digest(), None
        for known, user in self._known:
            if hmac.compare_digest(known, digest):
                found = user
        return found
