"""The application: paths, refusals, the gate before them, and what lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig

from trendflow import __version__
from trendflow.alarms.book import AlarmBook
from trendflow.service import admin_routes, failures, operation_routes, run_routes, submission_routes
from trendflow.service.event_stream import Streams
from trendflow.service.gate import OPEN_PATH, Gate
from trendflow.service.health import HealthMetrics
from trendflow.service.metrics_feed import MetricsFeed
from trendflow.service.parts import ServiceParts
from trendflow.service.rate_limits import RateLimits
from trendflow.service.webhook_dispatch import WebhookDispatch
from trendflow.storage.result_store import ResultStore

PREFIX = "/api/v1"

# The framework's own telemetry would put texts of exceptions, which may quote a request, into logs and spans.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(
    parts: ServiceParts,
    *,
    webhooks: WebhookDispatch | None = None,
    metric_sources: Sequence[Callable[[], None]] = (),
) -> FastAPI:
    """The service as an ASGI application. `metric_sources` are called before metrics are told."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if webhooks is not None:
                tasks.start_soon(webhooks.run)
            yield
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="TrendFlow",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    alarms = AlarmBook(parts.store, parts.schemas)
    feed = MetricsFeed(parts.metrics, parts.states, ResultStore(parts.store), alarms, parts.components)
    health = HealthMetrics(parts.metrics, parts.checks)
    app.state.parts = parts
    app.state.rate_limits = RateLimits(parts.states.clock)
    app.state.streams = Streams(parts.limits)
    app.state.metric_sources = (feed.refresh, health.refresh, *metric_sources)
    for router in (submission_routes.router, run_routes.router, admin_routes.router):
        app.include_router(router, prefix=PREFIX)
    app.include_router(operation_routes.router)
    failures.install(app)
    app.add_middleware(Gate, users=parts.users, max_body_bytes=parts.limits.max_body_bytes)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way of changing its document
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: the framework's, with the token, and with 400 where the framework says 422."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas.update(submission_routes.request_schemas())
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if path != OPEN_PATH:
                    operation["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema
