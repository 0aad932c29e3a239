"""What paths have in common: the parts and the user of a request, and the documentation of refusals."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from trendflow.service.failures import ErrorBody
from trendflow.service.parts import ServiceParts
from trendflow.service.users import User

_SENTENCES = {
    400: "The request breaks its contract.",
    401: "There is no valid token.",
    403: "The user may not do this.",
    404: "There is no such thing.",
    408: "The request took too long to arrive.",
    409: "The run id is taken.",
    413: "The body is too long.",
    416: "The range lies behind the end.",
    429: "Asked too often; `Retry-After` says when again.",
    500: "The service failed.",
    501: "This deployment does not have it.",
    503: "Not now; `Retry-After` says when again.",
}
_EVERYWHERE = (400, 401, 408, 413, 500, 503)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of the refusals of a path: these, and those that every path has."""
    return {
        status: {"model": ErrorBody, "description": _SENTENCES[status]} for status in sorted({*statuses, *_EVERYWHERE})
    }


def binary(description: str, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """Documentation of an answer that is bytes."""
    return {"description": description, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}


def _parts(request: Request) -> ServiceParts:
    found: ServiceParts = request.app.state.parts
    return found


def _user(request: Request) -> User:
    found: User = request.state.user
    return found


Parts = Annotated[ServiceParts, Depends(_parts)]
Caller = Annotated[User, Depends(_user)]
RunId = Annotated[str, Path(description="The id of the run.")]
