"""What the Dagster UI shows of a result: numbers, digests, tables and small pictures. Never raw text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from trendflow.contracts.manifest import content_digests
from trendflow.orchestration.inputs import open_frames
from trendflow.orchestration.report_step import report_location
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import log_failure
from trendflow.presentation.facts import shortfall_text
from trendflow.presentation.preview_plots import Preview
from trendflow.presentation.previews import preview_for, summary_rows
from trendflow.storage.object_store import ObjectNotFound

RowValue = str | int | float | bool | None


def _table(columns: list[str], rows: Sequence[Mapping[str, RowValue]]) -> MetadataValue[Any]:
    schema = TableSchema(columns=[TableColumn(name) for name in columns])
    return MetadataValue.table([TableRecord(dict(row)) for row in rows], schema=schema)


def result_metadata(run: RunContext, finished: Finished) -> dict[str, Any]:
    """Metadata of one materialisation. Pictures are drawn for fresh results only; a reused one names its origin."""
    meta = finished.meta
    found: dict[str, Any] = {
        "status": meta["status"],
        "origin": finished.origin,
        "cache_hit": finished.origin in ("cache", "resume"),
        "duration_ms": finished.duration_ms,
        "idempotency_key": meta["idempotency_key"] or "unknown",
        "content_digest": meta["content_digest"],
        "producer_version": meta["producer_version"],
        "schema_version": meta["schema_version"],
    }
    for key in ("empty_reason", "error_code", "error"):
        if meta[key] is not None:
            found[key] = meta[key]
    if meta["reused_from"]:
        found["reused_from"] = meta["reused_from"]["run_id"]
    if meta["warnings"]:
        found["warnings"] = ", ".join(meta["warnings"])
    if "sampling_shortfall" in meta["warnings"]:
        found["sampling_shortfall"] = shortfall_text(finished.arrays)
    schema = run.deployment.schemas.get(str(meta["schema_version"]))
    units = {name: feature.unit or "" for name, feature in schema.features.items()}
    rows = [
        {"feature": name, "value": value, "unit": unit} for name, value, unit in summary_rows(finished.arrays, units)
    ]
    if rows:
        found["features"] = _table(["feature", "value", "unit"], rows)
    try:
        found |= {name: MetadataValue.md(text) for name, text in pictures(run, finished).items()}
    except Exception as exc:  # a picture that cannot be drawn must not cost the result it shows
        log_failure(f"the previews of {finished.component}", exc)
        found["preview_error"] = type(exc).__name__
    return found


# Components whose pictures show frames; the others draw curves only.
_SHOWS_FRAMES = frozenset({"segmenter", "core_object_detections", "core_face_landmarks"})


def pictures(run: RunContext, finished: Finished) -> dict[str, str]:
    """Small pictures of a result as Markdown, by name.

    Drawn once, when the result is computed, and kept in the run's render cache; a reused result brings them along.
    """
    store, meta = run.deployment.store, finished.meta
    key = f"render_cache/{run.run_path}/previews/{finished.component}.json"
    if finished.origin == "computed":
        drawn = {preview.name: _markdown(preview) for preview in _previews(run, finished)}
        store.put(key, json.dumps(drawn).encode())
        return drawn
    origin = run.run_path
    if meta["reused_from"] and finished.origin == "cache":
        origin = f"{run.identity.platform_id}/{run.identity.video_id}/{meta['reused_from']['run_id']}"
    try:
        stored = store.get(f"render_cache/{origin}/previews/{finished.component}.json")
    except ObjectNotFound:
        return {}
    if origin != run.run_path:
        store.put(key, stored)
    return dict(json.loads(stored))


def _markdown(preview: Preview) -> str:
    return f"![{preview.name}](data:{preview.mime};base64,{base64.b64encode(preview.data).decode()})"


def _previews(run: RunContext, finished: Finished) -> list[Preview]:
    if finished.status == "error":
        return []
    frames = open_frames(run, run.manifest()) if finished.component in _SHOWS_FRAMES else None
    found: list[Preview] = []
    for stem, (arrays, meta) in finished.artifacts.items():
        found += preview_for(stem, arrays, meta, frames)
    return found


def run_metadata(run: RunContext, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a closed run: one table row per component."""
    rows: list[Mapping[str, RowValue]] = [
        {
            "component": row["name"],
            "status": row["status"],
            "reason": row["empty_reason"] or row["error_code"] or "",
            "cache_hit": row["cache_hit"],
            "seconds": round(row["duration_ms"] / 1000, 3),
            "bytes": sum(artifact["size"] for artifact in row["artifacts"]),
            "content_digest": "".join(content_digests(row).values())[:12],
        }
        for row in manifest["components"]
    ]
    return {
        "components": _table(
            ["component", "status", "reason", "cache_hit", "seconds", "bytes", "content_digest"], rows
        ),
        "cache_hits": sum(1 for row in manifest["components"] if row["cache_hit"]),
        "warnings": ", ".join(manifest["run"]["warnings"]) or "none",
        "profile": run.profile_name,
        "config_hash": run.identity.config_hash,
        "manifest": f"result_store/{run.run_path}/manifest.json",
    }


def report_metadata(run: RunContext, key: str, size: int) -> dict[str, Any]:
    """Where the report of a run is, and the command that writes it anywhere else."""
    return {
        "report": MetadataValue.path(report_location(run.deployment.store, key)),
        "open_elsewhere": f"trendflow report {run.identity.partition_key} --output report.html",
        "bytes": size,
    }
