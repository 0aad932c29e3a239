"""Which videos of a deployment were deleted, and the refusal of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.storage.tombstones import Tombstones, tombstone_key

if TYPE_CHECKING:
    from trendflow.config import Settings
    from trendflow.storage.object_store import ObjectStore


def tombstones(deployment: Deployment) -> Tombstones:
    """The deleted videos of the deployment. Errors as `Tombstones.load`."""
    return load_tombstones(deployment.store, deployment.settings)


def load_tombstones(store: ObjectStore, settings: Settings) -> Tombstones:
    """The deleted videos of a store, told by the key of the settings. Errors as `Tombstones.load`."""
    key = settings.tombstone_key
    return Tombstones.load(store, None if key is None else key.get_secret_value().encode())


def require_not_deleted(deployment: Deployment, platform_id: str, video_id: str) -> None:
    """Raises `input_constraint_violated` for a deleted video; errors as `Tombstones.load`."""
    if (platform_id, video_id) in tombstones(deployment):
        raise _refusal()


def is_deleted(deployment: Deployment, platform_id: str, video_id: str) -> bool:
    """Whether this video was deleted, for whoever asks often: one look for its tombstone. False without the key."""
    key = deployment.settings.tombstone_key
    if key is None:
        return False
    return deployment.store.exists(tombstone_key(platform_id, video_id, key.get_secret_value().encode()))


def require_still_wanted(deployment: Deployment, platform_id: str, video_id: str) -> None:
    """As `require_not_deleted`, for whoever asked before."""
    if is_deleted(deployment, platform_id, video_id):
        raise _refusal()


def _refusal() -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", "The video was deleted here and is not processed again.")
