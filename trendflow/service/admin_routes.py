"""Deletion of videos and retention: for administrators, where the deployment has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from trendflow.contracts.identity import validate_video_id
from trendflow.service.answers import Caller, Parts, refusals
from trendflow.service.failures import Refusal, not_found
from trendflow.service.users import User

router = APIRouter()


class DeletionAsked(BaseModel):
    """The deletion was noted; the report tells how far it is."""

    request_id: str
    report_url: str


class CleanupRequest(BaseModel):
    """With `dry_run` nothing is removed, only told."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    dry_run: bool = False


@router.delete(
    "/videos/{platform_id}/{video_id}",
    status_code=202,
    response_model=DeletionAsked,
    responses=refusals(403, 404, 501),
)
def delete_video(platform_id: str, video_id: str, parts: Parts, user: Caller) -> DeletionAsked:
    """Delete a video with everything that came from it. Asking again gives the same request."""
    _require_admin(user)
    validate_video_id(platform_id, video_id)
    if parts.erasure is None:
        raise _absent("deletion")
    request_id = parts.erasure.request(platform_id, video_id, by=user.user_id)
    return DeletionAsked(request_id=request_id, report_url=f"/api/v1/deletions/{request_id}")


@router.get("/deletions/{request_id}", responses=refusals(403, 404, 501))
def deletion_report(request_id: str, parts: Parts, user: Caller) -> dict[str, Any]:
    """What a deletion removed so far."""
    _require_admin(user)
    if parts.erasure is None:
        raise _absent("deletion")
    found = parts.erasure.report(request_id)
    if found is None:
        raise not_found("There is no deletion of this id.")
    return dict(found)


@router.post("/admin/retention/cleanup", responses=refusals(403, 501))
def clean_up(wanted: CleanupRequest, parts: Parts, user: Caller) -> dict[str, Any]:
    """Remove now what is older than it is kept, or tell what would go."""
    _require_admin(user)
    if parts.retention is None:
        raise _absent("retention")
    report: Mapping[str, Any] = parts.retention.cleanup(dry_run=wanted.dry_run)
    return dict(report)


def _require_admin(user: User) -> None:
    if not user.admin:
        raise Refusal(403, "input_constraint_violated", "Only an administrator may do this.")


def _absent(what: str) -> Refusal:
    return Refusal(501, "config_invalid", f"This deployment has no {what}.")
