"""`trendflow gc` and `delete`: what goes by its age, and what goes on request."""

from __future__ import annotations

import json
from typing import Any

from trendflow.commands.console import human_bytes, out, table
from trendflow.commands.process import prepare_dagster_home
from trendflow.config import load_settings
from trendflow.contracts.identity import platform_of, validate_video_id
from trendflow.orchestration.deployment import open_deployment


def gc(dry_run: bool, as_json: bool) -> int:
    """Remove what is older than it is kept, or say what would go."""
    from trendflow.orchestration.retention_step import clean_up_here

    settings = load_settings()
    prepare_dagster_home(settings)
    done = clean_up_here(open_deployment(settings), dry_run=dry_run)
    if as_json:
        _print_json({**done.report, "partitions": done.partitions})
        return 0
    rows = [
        [reason, str(found["objects"]), human_bytes(found["bytes"])]
        for reason, found in done.report["removed"].items()
        if found["objects"]
    ]
    title = "would be removed" if dry_run else "removed"
    out.print(table(title, ["why", "objects", "bytes"], rows, right=("objects", "bytes")))
    out.print(
        f"{done.partitions} partitions, {done.report['temporary_files']} temporary files, "
        f"{done.report['deletions']} requested deletions, {done.report['spared']} objects spared"
    )
    return 0


def delete(video_id: str, reason: str) -> int:
    """Erase a video and print the receipt."""
    from trendflow.orchestration.retention_step import delete_here

    platform_id = _platform(video_id)
    settings = load_settings()
    prepare_dagster_home(settings)
    _print_json(delete_here(open_deployment(settings), platform_id, video_id, reason))
    return 0


def lift(video_id: str) -> int:
    """Let a deleted video be submitted again."""
    from trendflow.orchestration.retention_step import lift_here

    platform_id = _platform(video_id)
    settings = load_settings()
    prepare_dagster_home(settings)
    lifted = lift_here(open_deployment(settings), platform_id, video_id)
    out.print("The video may be submitted again." if lifted else "The video was not deleted here.")
    return 0


def _platform(video_id: str) -> str:
    platform_id = platform_of(video_id)
    validate_video_id(platform_id, video_id)
    return platform_id


def _print_json(document: dict[str, Any]) -> None:
    out.print(json.dumps(document, indent=2), highlight=False, markup=False, soft_wrap=True)
