"""Paths of one run: status, events, manifest, artifacts, report, cancellation."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from trendflow.contracts.canonical import canonical_json, sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest
from trendflow.service.answers import Caller, Parts, RunId, binary, refusals
from trendflow.service.content import quoted, serve, serve_bytes
from trendflow.service.event_stream import EventResponse, Streams, follow, is_over
from trendflow.service.failures import Refusal, not_found
from trendflow.service.parts import ServiceParts
from trendflow.service.run_lookup import FoundRun, find_run, manifest_key, request_cancel, status_of
from trendflow.service.run_report import component_report
from trendflow.state.status import etag
from trendflow.storage.object_store import ObjectNotFound
from trendflow.storage.result_store import ResultStore

router = APIRouter()

_PRIVATE = "raw_text"
"""Retention class of what is never handed out."""
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The caller has this version."}}
_STATUS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The status document.", "content": {"application/json": {"schema": {"type": "object"}}}},
    **_UNCHANGED,
    206: {"description": "A range of it.", "content": {"application/json": {}}},
    **refusals(404, 416),
}
_PARTIAL: dict[int | str, dict[str, Any]] = {206: binary("A range of bytes.")}


class CancelAsked(BaseModel):
    """The run was asked to stop, unless it had ended."""

    run_id: str
    status: str
    status_url: str


@router.get("/runs/{run_id}", response_class=Response, responses=_STATUS, operation_id="read_run")
@router.get("/runs/{run_id}/status", response_class=Response, responses=_STATUS, operation_id="read_status")
def status(run_id: RunId, request: Request, parts: Parts, user: Caller) -> Response:
    """The status document (`run_status_v1`). Polling every 2 to 5 seconds with `If-None-Match` is enough."""
    document = status_of(parts, find_run(parts, user, run_id))
    return serve_bytes(request, canonical_json(document), etag=quoted(etag(document)), media_type="application/json")


@router.get(
    "/runs/{run_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Events `status stage component log`.", "content": {"text/event-stream": {}}},
        204: {"description": "The run has ended and there is nothing more."},
        **refusals(404, 429),
    },
)
async def events(
    run_id: RunId,
    request: Request,
    parts: Parts,
    user: Caller,
    last_event_id: Annotated[str | None, Header(description="Sequence number after which to go on.")] = None,
) -> Response:
    """The log of the run as server-sent events, until the run ends. Resumable by `Last-Event-ID`."""
    after = _sequence(last_event_id)
    run = await run_in_threadpool(find_run, parts, user, run_id)
    if await run_in_threadpool(_is_over, parts, run, after):
        return Response(status_code=204)  # tells an EventSource to stop asking
    streams: Streams = request.app.state.streams
    streams.enter(run.run_path, user.user_id)
    content = follow(parts.states, run.run_path, after, parts.limits, streams.limiter)
    return EventResponse(streams, run.run_path, user.user_id, content)


@router.head("/runs/{run_id}/manifest", include_in_schema=False)
@router.get(
    "/runs/{run_id}/manifest",
    response_class=Response,
    responses={
        200: {"description": "manifest.json as stored.", "content": {"application/json": {}}},
        206: {"description": "A range of it.", "content": {"application/json": {}}},
        **_UNCHANGED,
        **refusals(404, 416),
    },
)
def manifest(run_id: RunId, request: Request, parts: Parts, user: Caller) -> Response:
    """The manifest of the run (`manifest_v1`)."""
    run = find_run(parts, user, run_id)
    data = _manifest_bytes(parts, run)
    return serve_bytes(request, data, etag=quoted(sha256_hex(data)), media_type="application/json")


@router.head("/runs/{run_id}/artifacts/{path:path}", include_in_schema=False)
@router.get(
    "/runs/{run_id}/artifacts/{path:path}",
    response_class=Response,
    responses={200: binary("The file."), **_PARTIAL, **_UNCHANGED, **refusals(404, 416)},
)
def artifact(run_id: RunId, path: str, request: Request, parts: Parts, user: Caller) -> Response:
    """An artifact that the manifest names, whole or by range. Its tag is its sha256."""
    run = find_run(parts, user, run_id)
    row = _artifact_row(_manifest(parts, run), path)
    if row is None:
        raise not_found("The run has no artifact of this path.").of_run(run_id)
    key = f"{ResultStore(parts.store).run_folder(run.run_path)}/{row['path']}"
    size = parts.store.head(key).size
    if size != row["size"]:
        raise TrendFlowError("artifact_validation_failed", "The artifact has another size than its manifest says.")
    return serve(
        request,
        lambda start, length: parts.store.get_range(key, start, length),
        size=size,
        etag=quoted(row["sha256"]),
        media_type="application/octet-stream",
    )


@router.get("/runs/{run_id}/report", responses=refusals(404))
def report(run_id: RunId, parts: Parts, user: Caller) -> dict[str, Any]:
    """What the components measured: modality > group > component > metric."""
    run = find_run(parts, user, run_id)
    return component_report(ResultStore(parts.store), run.run_path, _manifest(parts, run), parts.components)


@router.post("/runs/{run_id}/cancel", status_code=202, response_model=CancelAsked, responses=refusals(404))
def cancel(run_id: RunId, parts: Parts, user: Caller) -> CancelAsked:
    """Ask the run to stop. Asking again changes nothing."""
    run = find_run(parts, user, run_id)
    request_cancel(parts, run)
    status = status_of(parts, run)["status"]
    return CancelAsked(run_id=run_id, status=status, status_url=f"/api/v1/runs/{run_id}/status")


def _sequence(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not (header.isascii() and header.isdigit() and len(header) <= 12):
        raise Refusal(400, "input_constraint_violated", "Last-Event-ID is the number of an event.", field="id")
    return int(header)


def _is_over(parts: ServiceParts, run: FoundRun, after: int) -> bool:
    """Whether the caller has the event with which the run ended, and everything after it."""
    if after == 0:
        return False
    recorded = parts.states.events(run.run_path)
    return is_over(recorded) and recorded[-1].seq <= after


def _manifest_bytes(parts: ServiceParts, run: FoundRun) -> bytes:
    try:
        return parts.store.get(manifest_key(parts, run))
    except ObjectNotFound:
        raise not_found("The run has no manifest yet.").of_run(run.run_id) from None


def _manifest(parts: ServiceParts, run: FoundRun) -> Manifest:
    found = ResultStore(parts.store).read_manifest(run.run_path)
    if found is None:
        raise not_found("The run has no manifest yet.").of_run(run.run_id)
    return found


def _artifact_row(manifest: Manifest, path: str) -> dict[str, Any] | None:
    """Only what the manifest names is handed out, so no path leads anywhere else."""
    for component in manifest["components"]:
        for row in component["artifacts"]:
            if row["path"] == path and row["retention_class"] != _PRIVATE:
                return dict(row)
    return None
