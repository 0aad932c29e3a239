"""Which videos were deleted: objects under a keyed hash of their ids, so that the store itself names nobody."""

from __future__ import annotations

import hmac
from collections.abc import Container
from hashlib import sha256

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore

ROOT = "tombstones"


def tombstone_key(platform_id: str, video_id: str, secret: bytes) -> str:
    """Object key of the tombstone of a video: HMAC-SHA256 of `<platform_id>/<video_id>` under the deployment's key."""
    return f"{ROOT}/{hmac.new(secret, f'{platform_id}/{video_id}'.encode(), sha256).hexdigest()}.json"


class Tombstones(Container[tuple[str, str]]):
    """The deleted videos of a store as (platform_id, video_id)."""

    def __init__(self, keys: frozenset[str], secret: bytes) -> None:
        self._keys, self._secret = keys, secret

    @classmethod
    def load(cls, store: ObjectStore, secret: bytes | None) -> Tombstones:
        """Raises `config_invalid` when there are tombstones but no key to tell whose they are."""
        keys = frozenset(info.key for info in store.list(ROOT))
        if keys and not secret:
            raise TrendFlowError(
                "config_invalid", "Videos were deleted from this store; set TRENDFLOW_TOMBSTONE_KEY to leave them out."
            )
        return cls(keys, secret or b"")

    def __contains__(self, video: object) -> bool:
        if not self._keys or not isinstance(video, tuple):
            return False
        platform_id, video_id = video
        return tombstone_key(platform_id, video_id, self._secret) in self._keys
