"""Accepting submissions in this deployment: one desk for the service, the command line and the scheduler."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from trendflow import __version__
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.admission import Admission, SubmissionLimits
from trendflow.submission.desk import SubmissionDesk
from trendflow.submission.inbox import Inbox
from trendflow.submission.request import ProfileFacts, Profiles

_VECTOR = "feature_vector"


@dataclass(frozen=True, eq=False)
class OpenDesk:
    """The desk with the parts that it shares with those who schedule and answer."""

    store: ObjectStore
    states: StateStore
    inbox: Inbox
    limits: SubmissionLimits
    admission: Admission
    desk: SubmissionDesk
    profiles: Profiles


def open_desk(deployment: Deployment, store: ObjectStore | None = None) -> OpenDesk:
    """The desk of this deployment. `store` replaces the deployment's own one, which it must be a view of."""
    chosen = deployment.store if store is None else store
    limits = submission_limits(deployment.settings)
    states = StateStore(chosen, deployment.schemas, deployment.states.clock)
    inbox = Inbox(chosen, deployment.schemas, states.clock)
    admission = Admission(limits, lambda: free_bytes(deployment.settings))
    desk = SubmissionDesk(chosen, states, inbox, admission, limits=limits, deleted=lambda: tombstones(deployment))
    return OpenDesk(chosen, states, inbox, limits, admission, desk, deployment_profiles(deployment))


def submission_limits(settings: Settings) -> SubmissionLimits:
    """The limits of accepting and handing over as the settings have them."""
    return SubmissionLimits(
        refuse_above=settings.submission_refuse_above,
        capacity=settings.submission_capacity,
        min_free_gb=settings.min_free_gb,
        window_sec=settings.submission_window_sec,
        cache_ttl_days=settings.cache_ttl_days,
    )


def free_bytes(settings: Settings) -> int:
    """Bytes that are free where scratch files lie, and in the store where that is a folder of this machine."""
    folders = [settings.home]
    url = urlsplit(settings.resolved_store_url)
    if url.scheme == "file":
        store = Path(url2pathname(url.path))
        folders.append(next(folder for folder in (store, *store.parents) if folder.exists()))
    return min(shutil.disk_usage(folder).free for folder in folders)


def deployment_profiles(deployment: Deployment) -> Profiles:
    """Profiles as the graph has them. A caller may change nothing of them: that takes a profile of its own."""

    def facts(name: str, overrides: Mapping[str, Any]) -> ProfileFacts:
        if name not in deployment.graph.profiles:
            raise TrendFlowError("config_invalid", "The deployment has no profile of this name.", field="profile")
        if overrides:
            raise TrendFlowError(
                "config_invalid",
                "The deployment changes nothing of its profiles.",
                fields=sorted(field for field in overrides if field.isidentifier())[:10],
            )
        return ProfileFacts(deployment.registry.config_hash(name), profile_versions(deployment.graph, name))

    return facts


def profile_versions(graph: ComponentGraph, name: str) -> dict[str, str]:
    """What a request has to state about the deployment, by its fields."""
    return {
        "profile_version": name,
        "feature_schema_version": graph.components[_VECTOR].schema_version,
        "pipeline_version": __version__,
        "sampling_policy_version": graph.profile(name).sampling_policy_version,
        "dataprocessor_version": __version__,
    }


def required_components(graph: ComponentGraph, profile: str) -> list[str]:
    """Components that a profile requires; none of a profile that this release does not have."""
    found = graph.profiles.get(profile)
    return [] if found is None else [name for name, entry in found.components.items() if entry.required]
