"""Renders the run report into the render cache."""

from __future__ import annotations

from trendflow.orchestration.inputs import frames_available, open_frames
from trendflow.orchestration.runs import RunContext
from trendflow.presentation.report import render_report
from trendflow.presentation.run_view import load_run_view, with_thumbnails
from trendflow.storage.object_store import ObjectStore


def report_key(run_path: str) -> str:
    return f"render_cache/{run_path}/report.html"


def write_report(run: RunContext) -> tuple[str, int]:
    """Render the report of a run and store it. Returns its key and its size in bytes."""
    results, manifest = run.deployment.results, run.manifest()
    view = load_run_view(results, run.run_path, required=run.required, registry=run.deployment.schemas)
    # Frames expire and reused runs never had any; thumbnails that were drawn once stay in the render cache.
    frames = (lambda: open_frames(run, manifest)) if frames_available(run, manifest) else None
    html = render_report(with_thumbnails(view, run.deployment.store, frames)).encode("utf-8")
    key = report_key(run.run_path)
    run.deployment.store.put(key, html)
    return key, len(html)


def report_location(store: ObjectStore, key: str) -> str:
    """Where a person finds a page: a file on a local store, else its key."""
    path = store.local_path(key)
    return key if path is None else str(path)
