"""Refusals: one body for every error of every path, `{error_code, class, message, detail, run_id?}`."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from trendflow.contracts.errors import ErrorClass, TrendFlowError
from trendflow.storage.object_store import ObjectNotFound
from trendflow.submission.admission import NotNow

log = logging.getLogger(__name__)

RETRY_AFTER_SEC = 5
"""When to ask again after an outage, where nothing better is known."""


class ErrorBody(BaseModel):
    """Why a request was not answered. `message` is one sentence, `detail` a map for machines; neither holds text."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    error_code: str
    error_class: ErrorClass = Field(alias="class")
    message: str
    detail: dict[str, Any]
    run_id: str | None = None


class Refusal(TrendFlowError):
    """An answer other than success that the path itself decides, with its HTTP status."""

    def __init__(self, status: int, error_code: str, message: str, **detail: Any) -> None:
        super().__init__(error_code, message, **detail)
        self.status = status
        self.headers: dict[str, str] = {}
        self.run_id: str | None = None

    def with_headers(self, **headers: str) -> Refusal:
        """The same with headers; underscores in names stand for dashes."""
        self.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return self

    def of_run(self, run_id: str) -> Refusal:
        self.run_id = run_id
        return self


def not_found(message: str = "There is nothing at this address.") -> Refusal:
    return Refusal(404, "dependency_missing", message, kind="resource")


def bad_request(error: TrendFlowError) -> Refusal:
    """An error about what the caller sent."""
    return Refusal(400, error.error_code, error.message, **error.detail)


def answer_of(error: TrendFlowError) -> JSONResponse:
    """The response to an error."""
    headers: dict[str, str] = {}
    run_id = None
    if isinstance(error, Refusal):
        status, headers, run_id = error.status, error.headers, error.run_id
    elif isinstance(error, NotNow):
        status, headers = 503, {"Retry-After": str(error.retry_after_sec)}
    elif isinstance(error, ObjectNotFound):
        return answer_of(not_found())
    elif error.error_class == "transient":
        status, headers = 503, {"Retry-After": str(RETRY_AFTER_SEC)}
    elif error.error_code == "input_constraint_violated":
        status = 400
    else:
        status = 500
    body = ErrorBody(
        error_code=error.error_code,
        error_class=error.error_class,
        message=error.message,
        detail=error.detail,
        run_id=run_id,
    )
    return JSONResponse(body.model_dump(exclude={"run_id"} if run_id is None else None), status, headers)


def unexpected(error: Exception) -> JSONResponse:
    """The response to a bug. The log gets the type and the places: the text of an exception may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    extra = {"error_code": "internal_error", "error_type": type(error).__name__}
    log.error("unexpected %s at %s", type(error).__name__, places, extra=extra)
    return answer_of(TrendFlowError("internal_error", "The service failed; its log says where."))


def install(app: FastAPI) -> None:
    """Give the framework's own refusals the same body."""

    async def typed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, TrendFlowError)
        return answer_of(error)

    async def framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return answer_of(_of_framework(error.status_code, error.headers or {}))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # Names of fields only: what they hold is the caller's text.
        fields = [".".join(str(part)[:64] for part in found["loc"]) for found in error.errors()[:10]]
        return answer_of(
            Refusal(400, "input_constraint_violated", f"The request is not valid at {fields[0]}.", fields=fields)
        )

    app.add_exception_handler(TrendFlowError, typed)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)


def _of_framework(status: int, headers: Mapping[str, str]) -> Refusal:
    if status == 404:
        return not_found()
    sentences = {405: "The address does not know this method."}
    message = sentences.get(status, "The request cannot be understood.")
    refusal = Refusal(status, "input_constraint_violated", message)
    refusal.headers.update(headers)
    return refusal
