"""The service of a deployment: its parts from the settings."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from typing import Any

import uvicorn
from pydantic import SecretStr

from trendflow import __version__
from trendflow.config import Settings, ensure_home
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph
from trendflow.orchestration.acceptance import accept, this_process
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.retention_step import CleanUpHere, deletion_desk
from trendflow.orchestration.runs import resolve_profile
from trendflow.service.app import create_app
from trendflow.service.gpu_metrics import GpuMetrics
from trendflow.service.health import Check, disk_check, queue_check, store_check
from trendflow.service.host_metrics import HostMetrics
from trendflow.service.metrics import Metrics
from trendflow.service.parts import ComponentPlace, ServiceParts
from trendflow.service.server import make_server
from trendflow.service.users import Users
from trendflow.service.webhook_dispatch import WebhookDispatch
from trendflow.service.webhook_sender import WebhookSender
from trendflow.state.store import StateStore
from trendflow.submission.admission import Admission, SubmissionLimits
from trendflow.submission.desk import SubmissionDesk
from trendflow.submission.inbox import Inbox
from trendflow.submission.message import Message
from trendflow.submission.request import ProfileFacts, Profiles

log = logging.getLogger(__name__)

_VECTOR = "feature_vector"


def open_service(settings: Settings) -> uvicorn.Server:
    """The server of a deployment, to `run()`. Raises `config_invalid` for settings it cannot work with."""
    ensure_home(settings)
    if settings.api_users is None:
        raise TrendFlowError("config_invalid", "Set TRENDFLOW_API_USERS: without users nobody could ask.")
    deployment = open_deployment(settings)
    parts = make_parts(deployment, Users.load(settings.api_users))
    host, gpus = HostMetrics(parts.metrics, {"scratch": settings.home}), GpuMetrics.find(parts.metrics)
    sources = [host.refresh] if gpus is None else [host.refresh, gpus.refresh]
    app = create_app(parts, webhooks=_webhooks(parts, settings.webhook_key), metric_sources=sources)
    return make_server(
        app,
        settings.api_host,
        settings.api_port,
        certificate=settings.api_certificate,
        key=settings.api_certificate_key,
        client_authority=settings.api_client_authority,
    )


def make_parts(deployment: Deployment, users: Users) -> ServiceParts:
    """The parts of the service of this deployment."""
    settings, limits, metrics = deployment.settings, SubmissionLimits(), Metrics()
    store = deployment.store.observed(metrics)
    states = StateStore(store, deployment.schemas)
    inbox = Inbox(store, deployment.schemas, states.clock)
    admission = Admission(limits, lambda: shutil.disk_usage(settings.home).free)
    desk = SubmissionDesk(store, states, inbox, admission, limits=limits, deleted=lambda: tombstones(deployment))
    broker = settings.broker_url
    return ServiceParts(
        store=store,
        states=states,
        inbox=inbox,
        desk=desk,
        schemas=deployment.schemas,
        profiles=deployment_profiles(deployment),
        begin_log=lambda message: _begin_log(deployment, message),
        required=lambda profile: required_components(deployment.graph, profile),
        components=component_places(deployment.graph),
        users=users,
        metrics=metrics,
        checks=(
            queue_check(None if broker is None else broker.get_secret_value()),
            store_check(store),
            Check("models", lambda: _models(deployment)),
            disk_check(settings.home, limits.min_free_gb),
        ),
        erasure=deletion_desk(deployment),
        retention=CleanUpHere(deployment),
    )


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


def component_places(graph: ComponentGraph) -> dict[str, ComponentPlace]:
    """Processor and kind of every component."""
    return {name: ComponentPlace(node.processor, node.kind) for name, node in graph.components.items()}


def _secret(key: SecretStr | None) -> bytes | None:
    return None if key is None else key.get_secret_value().encode()


def _begin_log(deployment: Deployment, message: Message) -> None:
    profile = message.profile or deployment.settings.profile
    accept(deployment, message.identity, profile, holder=this_process())


def _models(deployment: Deployment) -> str:
    """Weights, devices and servers of the profile that is used when a submission names none."""
    found = resolve_profile(deployment, deployment.settings.profile)
    return f"{len(found)} roles of profile {deployment.settings.profile} ready"


def _webhooks(parts: ServiceParts, key: SecretStr | None) -> WebhookDispatch | None:
    secret = _secret(key)
    if secret is None:
        log.info("no webhooks are sent: TRENDFLOW_WEBHOOK_KEY is not set")
        return None
    return WebhookDispatch(parts.store, parts.states, parts.inbox, WebhookSender(secret, parts.states.clock))
