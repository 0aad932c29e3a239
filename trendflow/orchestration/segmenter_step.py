"""The Segmenter as a step of a run: ingest, the plan of reuse, decoding, and the frames in the store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendflow.contracts.canonical import utc_now, utc_text
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER as NAME
from trendflow.contracts.graph import frame_budget
from trendflow.contracts.manifest import find_row, update_run
from trendflow.media import frames_store
from trendflow.media.ingest import LocalSource, fetch
from trendflow.media.limits import MediaLimits
from trendflow.media.sampling import ComponentSampling
from trendflow.media.segmenter import SegmentRequest, probe, segment
from trendflow.orchestration import cache
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.inputs import progress_of, reads_media
from trendflow.orchestration.limits import TimeLimit, run_limit_s
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.scratch import scratch_dir
from trendflow.orchestration.work import Finished
from trendflow.storage.retry import exhausted

if TYPE_CHECKING:
    from trendflow.orchestration.stamper import Stamper

log = logging.getLogger(__name__)


def run_segmenter(run: RunContext, stamper: Stamper, limit: TimeLimit) -> Finished:
    """Fetch the source, then reuse an earlier segmentation or decode.

    An earlier one is reused only when its frames, or those of another run with the same result, can still be used, or
    when no component that has to be computed reads frames or audio.
    """
    done = find_row(run.manifest(), NAME)
    if done is None or done["status"] == "error":
        run.recorder.started(NAME)  # fetching belongs to its work, and only then its key is known
    source = _ingest(run)
    parts = stamper.parts = cache.key_parts(run, NAME, source.sha256, {})
    earlier = cache.candidates(run, NAME, parts.key)
    candidate = next(earlier, None)
    if candidate is not None:
        if not _frames_needed(run, source.sha256, candidate) or any(
            _bring_frames(run, holder) for holder in (candidate, *_same_result(earlier, candidate))
        ):
            _take_over(run, candidate)
            return stamper.reuse(candidate)
        log.info("the frames of the reusable segmentation are gone; decoding again")
    reference = candidate or cache.find_candidate(run, NAME, parts.key, even_if_forced=True)
    run.recorder.started(NAME)
    finished = _decode(run, stamper, source, parts, limit)
    if reference is not None and reference.digests != finished.digests:
        raise TrendFlowError(
            "artifact_validation_failed",
            "Decoding the same source again gave other frames or audio; the Segmenter is not deterministic.",
            earlier=dict(reference.digests),
            now=finished.digests,
        )
    return finished


def _same_result(others: Iterator[cache.Candidate], candidate: cache.Candidate) -> Iterator[cache.Candidate]:
    # The digest of the frames is part of the result, so equal results have equal frames.
    return (other for other in others if other.digests == candidate.digests)


def _take_over(run: RunContext, candidate: cache.Candidate) -> None:
    """Carry what only the earlier run's manifest says of the source into this run's."""
    if candidate.run_path == run.run_path:
        return
    duration, steps = candidate.run["source"]["duration_sec"], candidate.run["preprocessing"]

    def record(manifest: dict[str, Any]) -> dict[str, Any]:
        source = {**manifest["run"]["source"], "duration_sec": duration}
        return update_run(manifest, source=source, preprocessing=steps)

    run.deployment.results.update_manifest(run.run_path, record)


def media_limits(deployment: Deployment, profile: str) -> MediaLimits:
    settings = deployment.settings
    params = deployment.registry.params(profile, NAME)
    return MediaLimits(
        min_duration_sec=settings.min_duration_sec,
        max_duration_sec=settings.max_duration_sec,
        max_source_bytes=settings.max_source_bytes,
        av_drift_max_sec=params["av_drift_max_sec"],
        segmenter_timeout_sec=deployment.graph.components[NAME].timeout_s,
    )


def refuse_wrong_duration(deployment: Deployment, profile: str, source: Path) -> None:
    """Check the duration that a local file declares, so that a hopeless one never becomes a run.

    Raises `input_constraint_violated`. What cannot be opened passes: why it cannot is for a run to record.
    """
    limits = media_limits(deployment, profile)
    try:
        declared = probe(source, limits)["declared_duration_sec"]
    except TrendFlowError as error:
        if error.error_code not in ("video_unreadable", "video_file_corrupted"):
            raise
        return
    if declared is not None:
        limits.check_duration(declared)


def _ingest(run: RunContext) -> LocalSource:
    try:
        source = fetch(
            run.request["video_source"]["locator"],
            scratch_dir(run) / "source",
            limits=media_limits(run.deployment, run.profile_name),
            progress=progress_of(run, NAME),
        )
    except TrendFlowError as error:
        if error.error_code != "storage_unavailable":  # a full disk is the one failure that fetching tries only once
            exhausted(error)
        raise

    known = run.manifest()["run"]["source"]["sha256"]
    if known is not None and known != source.sha256:
        raise TrendFlowError(
            "input_constraint_violated", "The source changed since this run began; submit it as a new run."
        )

    def record(manifest: dict[str, Any]) -> dict[str, Any]:
        block = dict(manifest["run"]["source"])
        block.update(type=run.request["video_source"]["type"], sha256=source.sha256, bytes=source.bytes)
        resolved = {role: model.as_row() for role, model in run.resolved.items()}
        # A new attempt begins: what the last one said about the end of the run no longer holds.
        return update_run(manifest, source=block, resolved_models=resolved, finished_at=None, skipped=[])

    run.deployment.results.update_manifest(run.run_path, record)
    return source


def _record_frames(run: RunContext, expires_at: str) -> None:
    block = {"store_key": frames_store.frames_key(run.run_path), "expires_at": expires_at}
    run.deployment.results.update_manifest(run.run_path, lambda manifest: update_run(manifest, frames_dir=block))


def _expiry(run: RunContext) -> str:
    return utc_text(datetime.now(UTC) + timedelta(days=run.deployment.settings.frames_ttl_days))


def _frames_needed(run: RunContext, source_sha256: str, candidate: cache.Candidate) -> bool:
    """True when some enabled component will have to be computed and reads frames or audio.

    Walks the graph in topological order with the digests the candidate would give; a component whose upstream has to
    be computed first counts as one to compute.
    """
    known: dict[str, Mapping[str, str]] = {NAME: candidate.digests}
    graph = run.deployment.graph
    for node in run.enabled:
        if node.name == NAME:
            continue
        deps = graph.active_deps(run.profile_name, node.name)
        found = None
        if all(dep in known for dep in deps):
            upstream = {dep: known[dep] for dep in deps}
            found = cache.find_candidate(run, node.name, cache.key_parts(run, node.name, source_sha256, upstream).key)
        if found is not None:
            known[node.name] = found.digests
        elif reads_media(node):
            return True
    return False


def _bring_frames(run: RunContext, holder: cache.Candidate) -> bool:
    """Make the frames of an earlier run this run's own. False when they are incomplete, damaged or expired.

    They must last as long as this run may take: components read them until its end.
    """
    store, block = run.deployment.store, holder.run["frames_dir"]
    needed_sec = run_limit_s(holder.run["source"]["duration_sec"])
    if block is None or frames_store.is_expired(block["expires_at"], margin_sec=needed_sec):
        return False
    try:
        if not frames_store.is_complete(store, holder.run_path):
            return False
        if holder.run_path != run.run_path:
            frames_store.copy(store, holder.run_path, run.run_path, run.identity, created_at=utc_now())
            _record_frames(run, block["expires_at"])
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        log.warning("cache_check_failed component=%s object=frames error_code=%s", NAME, error.error_code)
        run.recorder.cache_check_failed(NAME, error.error_code)
        return False
    return True


def samplings(run: RunContext) -> list[ComponentSampling]:
    """Frame budgets of the enabled visual components."""
    found = []
    for node in run.enabled:
        budget = frame_budget(node, run.profile.components[node.name])
        if budget is not None and node.sampling is not None:
            low, target, high = budget
            found.append(ComponentSampling(node.name, low, target, high, node.sampling.group, node.sampling.parent))
    return found


def families(run: RunContext) -> dict[str, list[str]]:
    """Audio family → enabled components that read it."""
    found: dict[str, list[str]] = {}
    for node in run.enabled:
        if node.sampling is not None and node.sampling.family is not None:
            found.setdefault(node.sampling.family, []).append(node.name)
    return found


def segment_request(run: RunContext, source: LocalSource, frames_dir: Path) -> SegmentRequest:
    """What this run asks of the Segmenter for `source`."""
    params = run.deployment.registry.params(run.profile_name, NAME)
    return SegmentRequest(
        identity=run.identity,
        source=source.path,
        source_sha256=source.sha256,
        components=samplings(run),
        families=families(run),
        scratch=frames_dir,
        limits=media_limits(run.deployment, run.profile_name),
        created_at=utc_now(),
        analysis_short_side=params["analysis_short_side"],
        analysis_height=params["analysis_height"],
        analysis_width=params["analysis_width"],
        analysis_fps=params["analysis_fps"],
        audio_sample_rate=params["audio_sample_rate"],
        dense_thumbnails=run.deployment.registry.dense_thumbnails(run.profile_name),
        warnings=source.warnings,
    )


def _decode(
    run: RunContext, stamper: Stamper, source: LocalSource, parts: cache.KeyParts, limit: TimeLimit
) -> Finished:
    scratch: Path = scratch_dir(run)
    # An attempt starts in an empty folder, so whatever a killed one left behind cannot be mistaken for a result.
    shutil.rmtree(scratch / "frames", ignore_errors=True)
    request = segment_request(run, source, scratch / "frames")
    segmented = limit.enforce(lambda: segment(request, progress=progress_of(run, NAME)))
    finished = stamper.computed(segmented.artifact, parts)  # validated before the first byte is uploaded
    frames_store.upload(run.deployment.store, run.run_path, segmented.frames_dir)
    if run.deployment.store.local_path(frames_store.frames_key(run.run_path)) is not None:
        shutil.rmtree(scratch)  # a local store is read in place; keeping a second copy would only fill the disk
    _record_frames(run, _expiry(run))

    def record(manifest: dict[str, Any]) -> dict[str, Any]:
        block = {**manifest["run"]["source"], "duration_sec": segmented.source.duration_sec}
        return update_run(manifest, source=block, preprocessing=list(segmented.preprocessing))

    run.deployment.results.update_manifest(run.run_path, record)
    return finished
