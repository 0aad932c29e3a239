"""The state of a run from the moment it is accepted."""

from __future__ import annotations

import contextlib

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER
from trendflow.contracts.identity import RunIdentity
from trendflow.orchestration.deployment import Deployment
from trendflow.state.errors import IllegalTransition
from trendflow.state.run_manager import Planned, RunManager


def plan_of(deployment: Deployment, profile: str) -> list[Planned]:
    """The enabled components of a profile as the state of its runs lists them."""
    graph = deployment.graph
    chosen = graph.profile(profile).components
    return [
        Planned(node.name, node.processor, chosen[node.name].required, tuple(graph.active_deps(profile, node.name)))
        for node in graph.enabled(profile)
    ]


def accept(deployment: Deployment, identity: RunIdentity, profile: str, *, holder: str) -> None:
    """Make the run `pending`. One that has a state keeps it."""
    with contextlib.suppress(IllegalTransition):  # accepted before, by a submission that died or by somebody else
        RunManager.create(deployment.states, identity, profile, plan_of(deployment, profile), holder=holder)


def refuse(deployment: Deployment, identity: RunIdentity, profile: str, error: TrendFlowError, *, holder: str) -> None:
    """End a run that cannot be made, so that its state says why. One that has ended stays as it is."""
    try:
        plan = plan_of(deployment, profile)
    except TrendFlowError:  # of a profile that is gone only this is known of every run
        plan = [Planned(SEGMENTER, SEGMENTER, required=True)]
    with contextlib.suppress(IllegalTransition):
        RunManager.create(deployment.states, identity, profile, plan, holder=holder)
    manager = RunManager.open(deployment.states, identity.run_path, holder=holder, only_if=("pending", "queued"))
    if manager is not None:
        manager.fail(error)
