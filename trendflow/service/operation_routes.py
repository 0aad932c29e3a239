"""Unversioned paths for whoever runs the deployment: liveness, readiness, metrics."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import JSONResponse

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.answers import Parts, refusals
from trendflow.service.health import run_checks

log = logging.getLogger(__name__)
router = APIRouter()


class Live(BaseModel):
    status: str


class CheckLine(BaseModel):
    """`error_code` is null when all is well."""

    name: str
    error_code: str | None
    text: str


class Readiness(BaseModel):
    status: str
    checks: list[CheckLine]


@router.get("/health/live", response_model=Live)
async def live() -> Live:
    """The process answers."""
    # In the event loop: a process whose threads all wait for a slow store lives, and must not be restarted.
    return Live(status="ok")


@router.get(
    "/health",
    response_model=Readiness,
    responses={**refusals(), 503: {"model": Readiness, "description": "Not ready."}},
)
def health(parts: Parts) -> Response:
    """Everything that processing needs, one line per check."""
    findings = run_checks(parts.checks)
    ready = all(finding.error_code is None for finding in findings)
    lines = [CheckLine(name=found.name, error_code=found.error_code, text=found.text) for found in findings]
    answer = Readiness(status="ready" if ready else "not_ready", checks=lines)
    return JSONResponse(answer.model_dump(), 200 if ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {}}}, **refusals()},
)
def metrics(request: Request, parts: Parts) -> Response:
    """Metrics of the deployment, its host and this process."""
    for source in request.app.state.metric_sources:
        try:
            source()
        except TrendFlowError as error:
            if error.error_class != "transient":
                raise
            log.warning("metrics are not up to date: %s", error.error_code)  # an outage must not hide the host's
    return Response(parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)
