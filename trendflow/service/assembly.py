"""The service of a deployment: its parts from the settings."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial

import uvicorn
from pydantic import SecretStr

from trendflow.config import Settings, ensure_home
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph
from trendflow.metrics.gpu import GpuMetrics
from trendflow.metrics.host import HostMetrics
from trendflow.orchestration.acceptance import accept
from trendflow.orchestration.deleted import is_deleted
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.model_server import needs_model_server, require_model_server
from trendflow.orchestration.processes import this_process
from trendflow.orchestration.queue.board import Board, living
from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.retention_step import CleanUpHere, deletion_desk
from trendflow.orchestration.runs import measured_costs, resolve_profile
from trendflow.orchestration.submitting import open_desk, required_components
from trendflow.orchestration.waiting_text import BrokerHandOver, waiting_texts
from trendflow.service.app import create_app
from trendflow.service.estimates import Estimates
from trendflow.service.health import Check, disk_check, queue_check, store_check
from trendflow.service.metrics import Metrics
from trendflow.service.parts import ComponentPlace, ServiceParts
from trendflow.service.server import make_server
from trendflow.service.users import Users
from trendflow.service.webhook_dispatch import WebhookDispatch
from trendflow.service.webhook_sender import WebhookSender
from trendflow.submission.message import Message

log = logging.getLogger(__name__)


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
    settings, metrics = deployment.settings, Metrics()
    opened = open_desk(deployment, deployment.store.observed(metrics))
    broker, texts = settings.broker_url, waiting_texts(settings)
    return ServiceParts(
        store=opened.store,
        states=opened.states,
        inbox=opened.inbox,
        desk=opened.desk,
        schemas=deployment.schemas,
        profiles=opened.profiles,
        begin_log=lambda message: _begin_log(deployment, message),
        required=lambda profile: required_components(deployment.graph, profile),
        components=component_places(deployment.graph),
        users=users,
        metrics=metrics,
        checks=(
            queue_check(None if broker is None else broker.get_secret_value()),
            store_check(opened.store),
            Check("models", lambda: _models(deployment)),
            *_model_server_checks(deployment),
            disk_check(settings.home, opened.limits.min_free_gb),
        ),
        estimates=Estimates(
            lambda: measured_costs(deployment),
            lambda: _living_workers(settings),
            lambda profile: planned_components(deployment.graph, profile),
        ),
        hand_over=None if texts is None else BrokerHandOver(texts),
        uploads=settings.uploads,
        is_deleted=partial(is_deleted, deployment),
        erasure=deletion_desk(deployment),
        retention=CleanUpHere(deployment),
    )


def planned_components(graph: ComponentGraph, profile: str) -> list[str]:
    """Components of a profile; none of a profile that this release does not have."""
    return [node.name for node in graph.enabled(profile)] if profile in graph.profiles else []


def component_places(graph: ComponentGraph) -> dict[str, ComponentPlace]:
    """Processor and kind of every component."""
    return {name: ComponentPlace(node.processor, node.kind) for name, node in graph.components.items()}


def _living_workers(settings: Settings) -> int | None:
    """How many workers were heard lately; None without a queue."""
    if settings.broker_url is None:
        return None
    with closing(Board(settings.broker_url.get_secret_value())) as board:
        return len(living(board.workers(), Rhythm().silent_s))


def _secret(key: SecretStr | None) -> bytes | None:
    return None if key is None else key.get_secret_value().encode()


def _begin_log(deployment: Deployment, message: Message) -> None:
    profile = message.profile or deployment.settings.profile
    accept(deployment, message.identity, profile, holder=this_process())


def _models(deployment: Deployment) -> str:
    """Weights of the profile that is used when a submission names none. Devices are the workers' matter: this process
    may run on a host without any.
    """
    found = resolve_profile(deployment, deployment.settings.profile, executed_here=False)
    return f"weights of {len(found)} roles of profile {deployment.settings.profile} verified"


def _model_server_checks(deployment: Deployment) -> list[Check]:
    """That the model server is ready for that profile; none for one that executes nothing there."""
    settings = deployment.settings
    if not needs_model_server(deployment, settings.profile):
        return []
    from trendflow.models.triton.connection import TritonConnection
    from trendflow.models.triton.state import endpoint

    # No tensor goes through it.
    connection = TritonConnection(lambda: endpoint(settings.triton_url, settings.triton_dir), shared_memory=False)

    def ready() -> str:
        return f"{require_model_server(deployment, settings.profile, connection)} models of the server are ready"

    return [Check("triton", ready)]


def _webhooks(parts: ServiceParts, key: SecretStr | None) -> WebhookDispatch | None:
    secret = _secret(key)
    if secret is None:
        log.info("no webhooks are sent: TRENDFLOW_WEBHOOK_KEY is not set")
        return None
    return WebhookDispatch(parts.store, parts.states, parts.inbox, WebhookSender(secret, parts.states.clock))
