"""Turns what a component gave, or how it failed, into a result to be stored: meta, digests, validation, timing."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER
from trendflow.contracts.keys import model_signature
from trendflow.contracts.manifest import RUN_TIME_UP
from trendflow.contracts.meta import build_meta, error_meta, restamp_meta
from trendflow.contracts.schema import validate_artifact
from trendflow.models.batching import BatchRunner
from trendflow.orchestration import cache
from trendflow.orchestration.cache import stem_of
from trendflow.orchestration.limits import ended_the_run
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished

log = logging.getLogger(__name__)

LOW_VALID_NAN_SHARE = 0.6


class Stamper:
    """Follows one component through its attempts and makes `Finished` values of what they come to.

    `parts` (the key) and `runner` (the batches) are set as soon as an attempt has them, because an error artifact
    records them too.
    """

    def __init__(self, run: RunContext, component: str, started_at: str | None = None, retries: int = 0) -> None:
        self.run, self.component, self.retries = run, component, retries
        self.started_at = started_at or utc_now()
        self._started = self._attempt_started = time.monotonic()
        self.parts: cache.KeyParts | None = None
        self.runner: BatchRunner | None = None
        self._earlier_oom_attempts: list[dict[str, int]] = []

    def retry(self) -> None:
        """Begin another attempt. Batches that did not fit in the last one stay on record."""
        self._earlier_oom_attempts = self._oom_attempts()
        self.parts = self.runner = None
        self.retries += 1
        self._attempt_started = time.monotonic()

    def reuse(self, candidate: cache.Candidate) -> Finished:
        """Re-stamp an accepted candidate, or keep it when it is this run's own."""
        resumed = candidate.run_path == self.run.run_path
        now = utc_now()
        artifacts: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
        for stem, (arrays, meta) in candidate.artifacts.items():
            if not resumed:
                source = {
                    "run_id": candidate.run_id,
                    "created_at": meta["created_at"],
                    "sha256": next(a["sha256"] for a in candidate.row["artifacts"] if stem_of(a) == stem),
                }
                meta = restamp_meta(meta, self.run.identity, created_at=now, reused_from=source)
            artifacts[stem] = (arrays, meta)
        log.info("%s component=%s", "resume_from_checkpoint" if resumed else "cache_hit", self.component)
        return self._finished(artifacts, "resume" if resumed else "cache", candidate.row.get("notes"))

    def computed(
        self,
        artifact: Artifact,
        parts: cache.KeyParts,
        given: ComponentInputs | None = None,
    ) -> Finished:
        """Stamp and validate a fresh artifact; `given` is what the component got, None for the Segmenter.

        Raises `artifact_validation_failed`.
        """
        planned = self.run.planned_signature(self.component)
        if model_signature(artifact.models_used) != planned:
            raise TrendFlowError(
                "artifact_validation_failed", f"{self.component} used other models than the run resolved for it."
            )
        node = self.run.deployment.graph.components[self.component]
        schemas = {self.component: node.schema_version, **node.extra_artifacts}
        members = {self.component: artifact, **artifact.extra}
        if set(members) != set(schemas):
            raise TrendFlowError(
                "artifact_validation_failed", f"{self.component} did not return its declared artifacts."
            )
        created_at = utc_now()
        stamped = {}
        notes = [artifact.notes] if artifact.notes else []
        for stem, member in members.items():
            if sparse := _mostly_missing(self.run, schemas[stem], member):
                member = replace(member, warnings=tuple(dict.fromkeys((*member.warnings, "low_valid_ratio"))))
                notes.append(f"Mostly missing: {', '.join(sparse)}.")
            stamped[stem] = self._stamp(stem, member, schemas[stem], parts, created_at, given)
        return self._finished(stamped, "computed", " ".join(notes) or None)

    def _stamp(
        self,
        stem: str,
        artifact: Artifact,
        schema_version: str,
        parts: cache.KeyParts,
        created_at: str,
        given: ComponentInputs | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        run = self.run
        arrays = {name: np.asarray(array) for name, array in artifact.arrays.items()}
        total_frames = None if given is None else _union_size(given)
        optional = _reference_meta(parts) | _frame_size(given)
        if artifact.models_used:
            optional |= self._batches()
        if total_frames is not None and "frame_indices" in arrays:
            optional["total_frames"] = total_frames  # the bound that later checks hold the indices against
        meta = build_meta(
            run.identity,
            artifact,
            producer=self.component,
            producer_version=parts.producer_version,
            schema_version=schema_version,
            idempotency_key=parts.key,
            input_digest=parts.input_digest,
            content_digest=content_digest(
                self.component, schema_version, artifact.status, artifact.empty_reason, arrays
            ),
            created_at=created_at,
            optional=optional,
        )
        problems = validate_artifact(run.deployment.schemas, arrays, meta, total_frames=total_frames)
        if problems:
            raise TrendFlowError(
                "artifact_validation_failed",
                f"{stem} does not match {schema_version}: {problems[0]}",
                problems=problems,
            )
        return arrays, meta

    def failed(self, error: TrendFlowError) -> Finished:
        """The error artifact: meta and nothing else."""
        spec = self.run.deployment.registry[self.component].spec
        meta = error_meta(
            self.run.identity,
            error,
            producer=self.component,
            producer_version=spec.producer_version,
            schema_version=spec.schema_version,
            idempotency_key=self.parts.key if self.parts else None,
            input_digest=self.parts.input_digest if self.parts else None,
            optional=(_reference_meta(self.parts) if self.parts else {}) | self._batches(),
        )
        return self._finished({self.component: ({}, meta)}, "error", RUN_TIME_UP if ended_the_run(error) else None)

    def _batches(self) -> dict[str, Any]:
        """How the models of the component were run, as far as they were."""
        attempts = self._oom_attempts()
        used = self.runner is not None and (self.runner.effective_batch_size is not None or self.runner.attempts)
        found: dict[str, Any] = {}
        if self.runner is not None and used:
            found["batching"] = self.runner.record(self.retries)
        if attempts:
            found["resource_metrics"] = {"oom_attempts": attempts}
        return found

    def _oom_attempts(self) -> list[dict[str, int]]:
        return [*self._earlier_oom_attempts, *(self.runner.attempts if self.runner else ())]

    def _finished(self, artifacts: Any, origin: Any, notes: str | None = None) -> Finished:
        now = time.monotonic()
        return Finished(
            component=self.component,
            artifacts=artifacts,
            origin=origin,
            started_at=self.started_at,
            finished_at=utc_now(),
            duration_ms=round((now - self._started) * 1000, 1),
            attempt_ms=round((now - self._attempt_started) * 1000, 1),
            retry_count=self.retries,
            notes=notes,
        )


def _union_size(given: ComponentInputs) -> int | None:
    segmenter = given.upstream.get(SEGMENTER)
    return None if segmenter is None else len(segmenter.arrays["union_timestamps_sec"])


def _frame_size(given: ComponentInputs | None) -> dict[str, Any]:
    """Size of the frames that the component read, if it read any."""
    if given is None or given.samples is None:
        return {}
    return {"analysis_width": given.video.analysis_width, "analysis_height": given.video.analysis_height}


def _reference_meta(parts: cache.KeyParts) -> dict[str, Any]:
    """`db_digest`: the sha256 of every reference file read. Without it nobody could say later which file changed."""
    return {"db_digest": dict(parts.reference)} if parts.reference else {}


def _mostly_missing(run: RunContext, schema_version: str, artifact: Artifact) -> list[str]:
    """The model-facing float arrays of an `ok` artifact that are more than 60 % NaN.

    Features that are absent by configuration, with their reason stated, do not count.
    """
    if artifact.status != "ok":
        return []
    absent = artifact.meta.get("absent_features", {})
    schema = run.deployment.schemas.get(schema_version)
    found = []
    for name, values in artifact.arrays.items():
        declared, array = schema.fields.get(name), np.asarray(values)
        if declared is None or declared.tier != "model_facing" or array.dtype.kind != "f":
            continue
        if name == "feature_values":
            names = np.asarray(artifact.arrays["feature_names"]).tolist()
            array = array[[not any(feature.startswith(prefix) for prefix in absent) for feature in names]]
        if array.size and np.isnan(array).mean() > LOW_VALID_NAN_SHARE:
            found.append(name)
    return found
