"""POST /process: a video in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.answers import Caller, Parts, refusals
from trendflow.service.failures import Refusal, bad_request
from trendflow.service.parts import ServiceParts
from trendflow.service.rate_limits import RateLimits
from trendflow.service.users import User
from trendflow.service.webhook_target import parse_target
from trendflow.submission.drafts import draft_request
from trendflow.submission.inbox import Place
from trendflow.submission.items import Cached, Duplicate, Exists, Item, New, Refused, new_submission_id
from trendflow.submission.message import Message
from trendflow.submission.request import ProcessRequest, parse_request

router = APIRouter()


class Accepted(BaseModel):
    """The run of a request. `cached` says that it ended well before the request came."""

    run_id: str
    status: str
    status_url: str
    events_url: str
    cached: bool


def _request_body() -> dict[str, Any]:
    # The body is parsed by the contract's own parser, which names no values; the document is told about its form.
    schema = ProcessRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def request_schemas() -> dict[str, Any]:
    """Schemas that the body of a request refers to, by name."""
    found = ProcessRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    return dict(found.get("$defs", {}))


@router.post(
    "/process",
    status_code=202,
    response_model=Accepted,
    responses={200: {"model": Accepted, "description": "A fresh run exists."}, **refusals(409, 429)},
    openapi_extra=_request_body(),
)
async def process(request: Request, parts: Parts, user: Caller) -> Response:
    """Process a video, unless a fresh result exists."""
    body = await request.body()
    return await run_in_threadpool(_submit, request.app.state.rate_limits, parts, user, body)


def _submit(rates: RateLimits, parts: ServiceParts, user: User, body: bytes) -> Response:
    submission_id = new_submission_id(parts.states.clock.utc())
    try:
        wanted = parse_request(body)
        if wanted.callback_url is not None:
            parse_target(wanted.callback_url)
        message = draft_request(
            wanted, parts.profiles, parts.schemas, submission_id=submission_id, user_id=user.user_id
        )
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        raise bad_request(error) from None
    _require_upload(parts, message)
    taken = rates.take(user)
    item: Item | None = None
    try:
        _hand_over(parts, message, wanted)
        item = parts.desk.submit(submission_id, user.user_id, [message]).items[0]
    finally:
        if not isinstance(item, New):
            rates.give_back(user, taken)
    if wanted.video_document is not None and parts.hand_over is not None and isinstance(item, Cached | Refused):
        parts.hand_over.withdraw(message, wanted.video_document)
    if isinstance(item, Cached):
        # The answer's addresses must lead somewhere, also for a user whose run it is not.
        parts.inbox.know(Place(submission_id, 0, item.run_path), user.user_id)
    return _answer(item)


def _require_upload(parts: ServiceParts, message: Message) -> None:
    if message.source.type != "upload":
        return
    if parts.uploads is None:
        raise Refusal(400, "config_invalid", "This deployment takes no uploads.", field="upload_id")
    # The id has no dots and slashes: it leads nowhere else.
    if not (parts.uploads / message.source.locator).is_file():
        raise Refusal(400, "source_unavailable", "There is no upload of this id.", field="upload_id")


def _hand_over(parts: ServiceParts, message: Message, wanted: ProcessRequest) -> None:
    if wanted.snapshot is not None:
        # Numbers that a caller states would stand among those that the platform gave, and targets are made of them.
        raise Refusal(
            400,
            "config_invalid",
            "Snapshots are not taken with a video: they come from the collector or from an import.",
            field="snapshot",
        )
    document = wanted.video_document
    if document is None:
        return
    if parts.hand_over is None:
        raise Refusal(400, "config_invalid", "This deployment takes no document with a video.", field="document")
    parts.hand_over(message, document)


def _answer(item: Item) -> Response:
    match item:
        case New(message):
            return _accepted(202, message.identity.run_id, "pending", cached=False)
        case Cached(run_path, _):
            return _accepted(200, run_path.rpartition("/")[2], "success", cached=True)
        case Exists(run_id):
            raise Refusal(409, "input_constraint_violated", "A run of this id exists already.").of_run(run_id)
        case Refused(error_code, error):
            raise Refusal(400, error_code, error)
        case Duplicate():
            raise TrendFlowError("internal_error", "A submission of one item cannot repeat itself.")


def _accepted(code: int, run_id: str, status: str, *, cached: bool) -> Response:
    base = f"/api/v1/runs/{run_id}"
    answer = Accepted(
        run_id=run_id, status=status, status_url=f"{base}/status", events_url=f"{base}/events", cached=cached
    )
    return JSONResponse(answer.model_dump(), code, {"Location": answer.status_url})
