"""The run manifest (`manifest_v1`) as pure functions: documents in, new documents out.

Storage writes the result by compare-and-swap and may have to apply a function again to a newer document, so every
function here returns a new manifest and applying one twice gives the same manifest as applying it once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.vocab import COMPONENT_KINDS, WARNINGS, ComponentKind

MANIFEST_SCHEMA_VERSION = "manifest_v1"

SOURCE_FIELDS = ("type", "sha256", "bytes", "duration_sec")
BATCHING_FIELDS = ("effective_batch_size", "retries_total", "oom_retries", "queue_wait_ms", "gpu_mem_peak_mb")
ARTIFACT_FIELDS = ("path", "type", "size", "sha256", "content_digest", "schema_version", "retention_class")
COPIED_FROM_META = (
    "status",
    "empty_reason",
    "error",
    "error_code",
    "producer_version",
    "schema_version",
    "models_used",
    "model_signature",
    "idempotency_key",
    "device_used",
    "cache_hit",
    "reused_from",
    "warnings",
)
"""Row fields that exist once, in the artifact's meta; the row repeats them and never decides them."""

_UPDATABLE_RUN_FIELDS = frozenset(
    {
        "finished_at",
        "source",
        "document_digest",
        "resolved_models",
        "preprocessing",
        "frames_dir",
        "warnings",
        "skipped",
        "retry_count",
    }
)
_KIND_ORDER = {kind: position for position, kind in enumerate(get_args(ComponentKind))}

Manifest = dict[str, Any]
Row = dict[str, Any]
DerivedStatus = Literal["pending", "running", "success", "error", "cancelled"]
"""The statuses of a run that its manifest alone can tell apart."""

CANCELLED = "cancelled"
"""What components are skipped for that did not come to run because the run was cancelled. Nothing else is called so."""

RUN_TIME_UP = "the time of the run was up"
"""The note of a failure that no component is to blame for. It ends the run, also where the component is optional."""


def new_manifest(
    identity: RunIdentity,
    created_at: str,
    profile: str,
    source: Mapping[str, Any],
    *,
    document_digest: str | None = None,
    resolved_models: Mapping[str, Mapping[str, Any]] | None = None,
    retry_count: int = 0,
) -> Manifest:
    """The manifest of a run that has just started.

    `source` holds `type` (`youtube_url`, `upload`, `local_path`) and, as far as known, `sha256`, `bytes` and
    `duration_sec`; missing ones are null until `update_run` fills them in.
    """
    return {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "run": {
            **identity.as_dict(),
            "created_at": created_at,
            "updated_at": created_at,
            "finished_at": None,
            "profile": profile,
            "source": _source(source),
            "document_digest": document_digest,
            "resolved_models": {role: dict(model) for role, model in (resolved_models or {}).items()},
            "preprocessing": [],
            "frames_dir": None,
            "warnings": [],
            "skipped": [],
            "retry_count": retry_count,
        },
        "components": [],
    }


def component_row_from_meta(
    meta: Mapping[str, Any],
    *,
    kind: str,
    artifacts: Sequence[Mapping[str, Any]],
    started_at: str,
    finished_at: str,
    duration_ms: float,
    retry_count: int = 0,
    notes: str | None = None,
) -> Row:
    """The manifest row of a component, from the meta of its main artifact.

    This is the only function that carries status, reason and error from an artifact to the manifest. `artifacts` are
    the rows that the `ResultStore` returned, the main artifact first.
    """
    name = meta["producer"]
    if kind not in COMPONENT_KINDS:
        raise TrendFlowError("artifact_validation_failed", f"Component kind {kind!r} is unknown.")
    if not artifacts:
        raise TrendFlowError("artifact_validation_failed", f"The row of {name} needs its artifact.")
    for artifact in artifacts:
        if set(artifact) != set(ARTIFACT_FIELDS):
            raise TrendFlowError("artifact_validation_failed", f"An artifact row of {name} has wrong fields.")
    batching = meta.get("batching") or {}
    return {
        "name": name,
        "kind": kind,
        **{field: meta[field] for field in COPIED_FROM_META},
        "started_at": started_at,
        "finished_at": finished_at,
        "duration_ms": duration_ms,
        "artifacts": [dict(artifact) for artifact in artifacts],
        "batching": {field: batching.get(field) for field in BATCHING_FIELDS},
        "retry_count": retry_count,
        "notes": notes,
    }


def upsert_row(manifest: Mapping[str, Any], row: Mapping[str, Any]) -> Manifest:
    """Insert or replace the row of one component.

    The attempt that started later wins, so a worker thought dead that writes after its successor changes nothing. A
    component with a row is not skipped, hence its name leaves `run.skipped`.
    """
    name = row["name"]
    current = find_row(manifest, name)
    if current is not None and current["started_at"] > row["started_at"]:
        return dict(manifest)
    rows = [*(other for other in manifest["components"] if other["name"] != name), dict(row)]
    skipped = [entry for entry in manifest["run"]["skipped"] if entry["name"] != name]
    return {**manifest, "run": {**manifest["run"], "skipped": skipped}, "components": _ordered(rows)}


def retract_row(manifest: Mapping[str, Any], name: str) -> Manifest:
    """Remove the row of a component whose artifact is about to be replaced."""
    return {**manifest, "components": [row for row in manifest["components"] if row["name"] != name]}


def skip_component(manifest: Mapping[str, Any], name: str, because: str) -> Manifest:
    """Record that a component did not run and why. A skipped component has no row."""
    skipped = [entry for entry in manifest["run"]["skipped"] if entry["name"] != name]
    skipped = sorted([*skipped, {"name": name, "because": because}], key=lambda entry: entry["name"])
    return {**retract_row(manifest, name), "run": {**manifest["run"], "skipped": skipped}}


def update_run(manifest: Mapping[str, Any], **fields: Any) -> Manifest:
    """Set fields of the run block. Identity, `created_at`, `updated_at` and the profile cannot be changed."""
    unknown = sorted(set(fields) - _UPDATABLE_RUN_FIELDS)
    if unknown:
        raise TrendFlowError("artifact_validation_failed", f"The run fields {unknown} cannot be updated.")
    if "source" in fields:
        fields["source"] = _source(fields["source"])
    return {**manifest, "run": {**manifest["run"], **fields}}


def add_run_warnings(manifest: Mapping[str, Any], codes: Iterable[str]) -> Manifest:
    """Add warning codes to the run, each once, in sorted order."""
    wanted = set(codes)
    if wanted - WARNINGS:
        raise TrendFlowError("artifact_validation_failed", f"Unknown warnings {sorted(wanted - WARNINGS)}.")
    return update_run(manifest, warnings=sorted(wanted | set(manifest["run"]["warnings"])))


def find_row(manifest: Mapping[str, Any], name: str) -> Row | None:
    """The row of a component, or None."""
    return next((row for row in manifest["components"] if row["name"] == name), None)


def ends_run(row: Mapping[str, Any], required: Collection[str]) -> bool:
    """Whether a row is a failure after which nothing of its run may start: of a required component, or by time."""
    return row["status"] == "error" and (row["name"] in required or row["notes"] == RUN_TIME_UP)


def run_status(manifest: Mapping[str, Any], required: Collection[str]) -> DerivedStatus:
    """The status of a run, derived from its rows; nothing sets it by hand.

    `required` names the components whose failure, or absence at the end, fails the run; those that the profile marks
    as optional may fail, unless it was the time limit of the run that stopped them. A run was cancelled when nothing
    failed it and components are missing for that reason.
    """
    if any(ends_run(row, required) for row in manifest["components"]):
        return "error"
    rows = {row["name"] for row in manifest["components"]}
    if manifest["run"]["finished_at"] is None:
        return "running" if rows else "pending"
    cancelled = {entry["name"] for entry in manifest["run"]["skipped"] if entry["because"] == CANCELLED}
    if any(name not in rows and name not in cancelled for name in required):
        return "error"
    return "cancelled" if cancelled else "success"


def artifact_path(component: str, stem: str, suffix: str = "npz") -> str:
    """Path of an artifact relative to its run folder."""
    return f"{component}/{stem}.{suffix}"


def content_digests(row: Mapping[str, Any]) -> dict[str, str]:
    """Content digest by artifact stem, the form `keys.data_version` and `keys.input_digest` take."""
    stems = (artifact["path"].rpartition("/")[2].rpartition(".")[0] for artifact in row["artifacts"])
    return dict(zip(stems, (artifact["content_digest"] for artifact in row["artifacts"]), strict=True))


def _ordered(rows: Iterable[Row]) -> list[Row]:
    # By kind, then name: the order must not tell which worker finished first.
    return sorted(rows, key=lambda row: (_KIND_ORDER[row["kind"]], row["name"]))


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(source) - set(SOURCE_FIELDS))
    if unknown:
        raise TrendFlowError("artifact_validation_failed", f"The source fields {unknown} are not in the contract.")
    return {field: source.get(field) for field in SOURCE_FIELDS}
