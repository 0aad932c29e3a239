"""The one wrapper around every component: reuse, execution, retries, storage and the manifest row; the end of a run.

`run_component` gives back a `Finished` value, which a `Stamper` makes; `persist` stores one. Between the two stands
Dagster's IO manager.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from trendflow.contracts.canonical import utc_now
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.manifest import (
    CANCELLED,
    RUN_TIME_UP,
    DerivedStatus,
    component_row_from_meta,
    ends_run,
    find_row,
    skip_component,
    update_run,
    upsert_row,
)
from trendflow.contracts.manifest import run_status as manifest_status
from trendflow.logs import log_context, places
from trendflow.orchestration import cache, inputs, segmenter_step
from trendflow.orchestration.costs import PeakRss, note_cost
from trendflow.orchestration.deleted import require_still_wanted
from trendflow.orchestration.limits import ended_the_run, time_limit
from trendflow.orchestration.progress import ProgressEvent, emit
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.stamper import Stamper
from trendflow.orchestration.work import Finished
from trendflow.storage.retry import is_exhausted

log = logging.getLogger(__name__)

# Waits before a repetition of a whole component (seconds); storage and network calls have their own. `retries` says how
# often what is repeated, in all layers.
RETRY_WAITS = (1.0, 2.0, 4.0)
# A model server is back within a second or stays away; its requests have no repetition of their own.
MODEL_SERVER_WAIT = 1.0


def run_component(run: RunContext, component: str, sleep: Callable[[float], None] = time.sleep) -> Finished:
    """Reuse or compute one component of a run.

    Never raises for a failing component: the failure comes back as a `Finished` with origin `error`, so that it is
    stored like every result.
    """
    with log_context(component=component):
        finished = _run(run, component, sleep)
        outcome = finished.status if finished.origin == "computed" else finished.origin
        took = {"outcome": outcome, "duration_ms": round(finished.duration_ms)}
        log.info("the component ended", extra={**took, "error_code": finished.meta.get("error_code")})
    emit(ProgressEvent(component, "done", outcome=outcome))
    return finished


def _run(run: RunContext, component: str, sleep: Callable[[float], None]) -> Finished:
    emit(ProgressEvent(component, "running"))
    stamper = Stamper(run, component)
    while True:
        try:
            with PeakRss() as memory:
                finished = _attempt(run, component, stamper, sleep)
            note_cost(run, finished, memory.peak_mb)
            return finished
        except KeyboardInterrupt:
            raise
        except Exception as exc:  # every failure of a component must end as a typed, stored error
            error = as_typed(exc)
            if error.error_code == "internal_error":
                log_failure(f"the component {component}", exc)
            if stamper.retries < error.rule.max_retries and not (is_exhausted(error) or ended_the_run(error)):
                wait = _wait(error, stamper.retries)
                run.recorder.retry_scheduled(component, error.error_code, wait)
                sleep(wait)
                stamper.retry()
                log.warning("another attempt: %s", error, extra={"attempt": stamper.retries})
                continue
            return stamper.failed(error)


def _wait(error: TrendFlowError, retries: int) -> float:
    """Seconds before the next attempt, after `retries` of them."""
    if error.error_code in ("triton_unavailable", "triton_timeout"):
        return MODEL_SERVER_WAIT
    return RETRY_WAITS[min(retries, len(RETRY_WAITS) - 1)] * random.uniform(1.0, 1.25)


def log_failure(what: str, exc: BaseException) -> None:
    """Log where an unexpected exception came from, without its message: that may quote what a video says or shows."""
    extra = {"error_code": as_typed(exc).error_code, "error_type": type(exc).__name__, "places": places(exc)}
    log.error("%s failed with %s", what, type(exc).__name__, extra=extra)


def _attempt(run: RunContext, component: str, stamper: Stamper, sleep: Callable[[float], None]) -> Finished:
    manifest = run.manifest()
    limit = time_limit(run, component, manifest)
    if component == segmenter_step.NAME:
        return segmenter_step.run_segmenter(run, stamper, limit)
    source_sha256 = manifest["run"]["source"]["sha256"]
    upstream = cache.upstream_digests(run, component, manifest)
    parts = stamper.parts = cache.key_parts(run, component, source_sha256, upstream)
    candidate = cache.find_candidate(run, component, parts.key)
    if candidate is not None:
        return stamper.reuse(candidate)
    module = run.deployment.registry[component].module
    if module is None:
        raise TrendFlowError("config_invalid", f"{component} has no code.")
    run.recorder.started(component)
    component_inputs = inputs.build_inputs(run, component, manifest, sleep)
    stamper.runner = component_inputs.runner
    artifact = limit.enforce(lambda: module.run(component_inputs))
    return stamper.computed(artifact, parts, component_inputs)


def store(run: RunContext, finished: Finished) -> dict[str, Any]:
    """Persist a result; when that fails, persist the failure. Returns the row that stands.

    Raises only when the store takes neither.
    """
    try:
        row = persist(run, finished)
    except Exception as exc:
        if finished.origin == "error":
            run.recorder.unstored(finished.component, as_typed(exc))
            raise
        with log_context(component=finished.component):
            log_failure("storing the result", exc)
        stamper = Stamper(run, finished.component, finished.started_at, finished.retry_count)
        return store(run, stamper.failed(as_typed(exc)))
    run.recorder.finished(row, finished.origin)
    return row


def persist(run: RunContext, finished: Finished) -> dict[str, Any]:
    """Store artifacts, then the manifest row, then the index entry. Returns the row.

    The order makes a crash harmless: an object that no manifest row names does not exist for the system. Of a run whose
    video was deleted meanwhile nothing is stored: raises `input_constraint_violated`, or `dependency_missing` when the
    manifest is gone.
    """
    results = run.deployment.results
    require_still_wanted(run.deployment, run.identity.platform_id, run.identity.video_id)
    known = find_row(run.manifest(), finished.component)
    if finished.origin == "resume":
        if known is None:
            raise TrendFlowError("artifact_validation_failed", "A resumed result vanished from the manifest.")
        return known
    component = finished.component
    stems = [stem for stem in finished.artifacts if stem != component] + [component]  # the main artifact last
    written = {stem: results.write_or_adopt(run.run_path, component, stem, *finished.artifacts[stem]) for stem in stems}
    artifact, meta = written.pop(component)
    row = component_row_from_meta(
        meta,
        kind=run.deployment.graph.components[component].kind,
        artifacts=[artifact, *(extra for extra, _ in written.values())],
        started_at=finished.started_at,
        finished_at=finished.finished_at,
        duration_ms=finished.duration_ms,
        retry_count=finished.retry_count,
        notes=finished.notes,
    )
    results.update_manifest(run.run_path, lambda manifest: upsert_row(manifest, row))
    if finished.status in ("ok", "empty"):
        _index(run, row, finished)
    return row


def _index(run: RunContext, row: dict[str, Any], finished: Finished) -> None:
    index, key = run.deployment.index, row["idempotency_key"]
    refuted = run.refuted.pop(key, None)
    entry = {"run_path": run.run_path, "component": finished.component, "created_at": finished.finished_at}
    index.record(key, entry, refuted=refuted)


def blocked_by(run: RunContext, component: str) -> str | None:
    """Why `component` cannot run: a hard dependency failed or was skipped. None when nothing stands in its way."""
    manifest = run.manifest()
    skipped = {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]}
    for name in run.deployment.graph.components[component].hard:
        row = find_row(manifest, name)
        if row is not None and row["status"] == "error":
            return _why(row)
        if row is None and name in skipped:
            return str(skipped[name])
    return None


def _why(failed: Mapping[str, Any]) -> str:
    """What others are skipped for that a failed row stopped."""
    return RUN_TIME_UP if failed["notes"] == RUN_TIME_UP else f"{failed['name']} failed with {failed['error_code']}"


def skip(run: RunContext, component: str, because: str) -> None:
    """Record that a component does not run. It gets no row and no artifact."""
    run.deployment.results.update_manifest(run.run_path, lambda manifest: skip_component(manifest, component, because))
    run.recorder.skipped(component, because)
    emit(ProgressEvent(component, "done", outcome="skipped"))


def finalise(run: RunContext, because: str | None = None) -> dict[str, Any]:
    """Write what only the end of a run knows: skipped components, warnings and the finishing time.

    `because`: why components did not run that nothing else stopped. A cancellation is no reason any more when the run
    went on after it.
    """

    counted = run.recorder.retries  # rows know of the last attempt alone

    def close(manifest: dict[str, Any]) -> dict[str, Any]:
        rows = {row["name"]: row for row in manifest["components"]}
        skipped = {entry["name"] for entry in manifest["run"]["skipped"] if entry["because"] != CANCELLED}
        failed = sorted((row for row in rows.values() if row["status"] == "error"), key=lambda row: row["finished_at"])
        cause = next((row for row in failed if ends_run(row, run.required)), None)
        reason = because or (_why(cause) if cause else "not executed")
        for node in run.enabled:
            if node.name not in rows and node.name not in skipped:
                manifest = skip_component(manifest, node.name, reason)
        warnings = {code for row in rows.values() for code in row["warnings"]}
        if any(not run.is_required(row["name"]) for row in failed):
            warnings.add("partial_failure")
        retries = sum(row["retry_count"] for row in rows.values()) if counted is None else counted
        return update_run(manifest, warnings=sorted(warnings), finished_at=utc_now(), retry_count=retries)

    manifest = run.deployment.results.update_manifest(run.run_path, close)
    for entry in manifest["run"]["skipped"]:
        run.recorder.skipped(entry["name"], entry["because"])
    return manifest


def run_status(run: RunContext, manifest: Mapping[str, Any]) -> DerivedStatus:
    """The run's status under its own profile: which components it requires decides."""
    return manifest_status(manifest, run.required)


def run_error(run: RunContext, manifest: Mapping[str, Any]) -> TrendFlowError | None:
    """What ended the run: a failure, a required component that could not run, or a cancellation. None without any."""
    for row in manifest["components"]:
        if ends_run(row, run.required):
            return TrendFlowError(row["error_code"], row["error"])
    if run_status(run, manifest) == "cancelled":
        return TrendFlowError("cancelled", "The run was cancelled.")
    skipped = {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]}
    # In graph order the first is the one that its own dependency stopped; the others were skipped because of it.
    for name in run.required:
        if skipped.get(name, CANCELLED) != CANCELLED:
            return skipped_error(name, skipped[name])
    return None


def skipped_error(component: str, because: str) -> TrendFlowError:
    """The error of a run whose required `component` cannot run."""
    return TrendFlowError("dependency_missing", f"{component} was skipped: {because}.", kind="artifact")
