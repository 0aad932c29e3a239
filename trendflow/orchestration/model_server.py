"""The model server that a profile needs, for those who take runs or answer for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import resolve_profile

if TYPE_CHECKING:
    from trendflow.models.triton.connection import TritonConnection


def needs_model_server(deployment: Deployment, profile: str) -> bool:
    """Whether the profile executes a model there. False for a profile that is not there any more."""
    found = deployment.graph.profiles.get(profile)
    return found is not None and "triton" in found.runtimes.values()


def require_model_server(deployment: Deployment, profile: str, connection: TritonConnection | None = None) -> int:
    """Check that the server has every model that the profile executes there; returns their number.

    Asks through the deployment's own connection when none is given. Raises what `TritonConnection.require` does, and of
    weights that this host has to have what `resolve_profile` does.
    """
    found = resolve_profile(deployment, profile, executed_here=False).values()
    served = {model.entry.name: model.entry for model in found if model.runtime == "triton"}
    for entry in served.values():
        (connection or deployment.triton).require(entry)
    return len(served)
