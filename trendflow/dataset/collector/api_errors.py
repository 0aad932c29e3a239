"""Failures of the YouTube Data API in the terms of the error taxonomy."""

from __future__ import annotations

import http.client
import json
from typing import Any

import httplib2
from googleapiclient.errors import Error, HttpError

from trendflow.contracts.errors import TrendFlowError

QUOTA = "quota"
"""`detail.kind` of a `rate_limited` that lasts until the quota of the next day: trying again today is of no use."""

_DAY_SPENT = frozenset({"quotaExceeded", "dailyLimitExceeded", "dailyLimitExceededUnreg"})
_TOO_FAST = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
_KEY_REFUSED = frozenset(
    {
        "keyInvalid",
        "keyExpired",
        "API_KEY_INVALID",
        "API_KEY_SERVICE_BLOCKED",
        "accessNotConfigured",
        "SERVICE_DISABLED",
        "ipRefererBlocked",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "forbidden",
    }
)

FAILURES = (Error, OSError, http.client.HTTPException, httplib2.error.HttpLib2Error, ValueError)
"""What a request may raise; ValueError is a body that is no JSON."""


def as_api_error(exc: Exception) -> TrendFlowError:
    """The typed form of one of `FAILURES`. It quotes nothing of the request or of the answer but the reason's name.

    `detail.retry_after` holds the seconds the server asked for, where it did.
    """
    if isinstance(exc, HttpError):
        return _from_status(exc)
    if isinstance(exc, TimeoutError):
        return TrendFlowError("timeout", "The YouTube Data API did not answer in time.")
    return TrendFlowError("network_error", "The YouTube Data API could not be reached.", type=type(exc).__name__)


def _from_status(exc: HttpError) -> TrendFlowError:
    status, reasons = int(exc.resp.status), _reasons(exc.content)
    detail: dict[str, Any] = {"status": status, "reason": reasons[0] if reasons else None}
    retry_after = str(exc.resp.get("retry-after", ""))
    if retry_after.isdigit():
        detail["retry_after"] = float(retry_after)
    if _TOO_FAST & set(reasons):
        return TrendFlowError("rate_limited", "The YouTube Data API is asked too often.", **detail)
    if _DAY_SPENT & set(reasons):
        return TrendFlowError(
            "rate_limited", "The YouTube Data API reports that today's quota is used up.", **detail, kind=QUOTA
        )
    if status == 429:
        return TrendFlowError("rate_limited", "The YouTube Data API is asked too often.", **detail)
    if status >= 500:
        return TrendFlowError("network_error", f"The YouTube Data API fails with status {status}.", **detail)
    if status == 404:
        return TrendFlowError("source_unavailable", "The YouTube Data API does not know what was asked for.", **detail)
    if status in (401, 403) or _KEY_REFUSED & set(reasons):
        return TrendFlowError(
            "config_invalid", "The YouTube Data API refuses the key; look at TRENDFLOW_YOUTUBE_API_KEY.", **detail
        )
    return TrendFlowError("internal_error", f"The YouTube Data API refuses a request with status {status}.", **detail)


def _reasons(content: bytes) -> list[str]:
    """Names of reasons in both places where Google's errors carry them; none when the body is something else."""
    try:
        error = json.loads(content)["error"]
        entries = [*error.get("errors", []), *error.get("details", [])]
        return [entry["reason"] for entry in entries if isinstance(entry.get("reason"), str)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
