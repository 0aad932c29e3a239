"""One forecast: run and first snapshot in, prediction report out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trendflow.contracts.canonical import digest_of, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.inference.bundle import ModelBundle
from trendflow.inference.chain import FEATURE_VECTOR, FIRST_SNAPSHOT, TIERS, Candidate, decide
from trendflow.inference.compatibility import content_columns, difference, require_allowed, spec_of
from trendflow.inference.first_snapshot import FirstSnapshot, require_possible
from trendflow.inference.model_row import ModelRow, model_row
from trendflow.inference.outputs import comparator_outputs, explanations, interval_outputs, model_outputs
from trendflow.inference.report import REPORT_VERSION, require_valid
from trendflow.inference.run_inputs import RunInputs
from trendflow.inference.stages import StageLog

_BASELINE_FAMILIES = ("catboost", "hist_gradient_boosting", "lightgbm")


@dataclass(frozen=True)
class Request:
    """What is asked. `models`: tier → trained model; `requested`: the tier wanted, by default the highest there is.

    `snapshot` is None where the platform was not looked at.
    """

    job_id: str
    run: RunInputs
    snapshot: FirstSnapshot | None
    models: Mapping[str, ModelBundle]
    requested: str | None = None
    allow_synthetic: bool = False


def read_models(folders: Sequence[Path], schemas: SchemaRegistry) -> dict[str, ModelBundle]:
    """Training run folders by tier. Raises `config_invalid` for two of one tier, and what reading a bundle raises."""
    found: dict[str, ModelBundle] = {}
    for folder in folders:
        bundle = ModelBundle.read(folder, schemas)
        tier = tier_of(bundle.manifest)
        if tier in found:
            raise TrendFlowError("config_invalid", f"Two models of the tier {tier} were given; one can answer.")
        found[tier] = bundle
    return found


def tier_of(manifest: Mapping[str, Any]) -> str:
    """The tier of a trained model. Raises `model_spec_invalid` for a family of none."""
    if manifest["model_family"] in _BASELINE_FAMILIES:
        return TIERS[-1]
    raise TrendFlowError("model_spec_invalid", f"No tier knows the model family {manifest['model_family']!r}.")


def predict(request: Request, schemas: SchemaRegistry) -> dict[str, Any]:
    """The prediction report of one video.

    Raises `model_spec_invalid` for a model that does not fit the run or is SYNTHETIC without permission,
    `leakage_violation` for a feature that could not be known, `input_constraint_violated` for an impossible snapshot,
    `config_invalid` without any model.
    """
    started = utc_now()
    log = StageLog()
    requested = _requested(request)
    if request.snapshot is not None:
        require_possible(request.snapshot, datetime.fromisoformat(started))
    allowed = request.allow_synthetic
    # Every model is held to it, also those the chain would not come to.
    stamps = [require_allowed(model.manifest, request.run, allowed) for model in request.models.values()]
    with log.stage("DataCollection"):
        present = _present(request)
        decision = decide(requested, {tier: _candidate(request, tier) for tier in request.models}, present)
    bundle = None if decision.used is None else request.models[decision.used]
    answer = _Answer()
    if bundle is not None and request.snapshot is not None:
        answer = _answer(bundle, request.run, request.snapshot, log)
    document = {
        "report_version": REPORT_VERSION,
        "job_id": request.job_id,
        "platform_id": request.run.platform_id,
        "video_id": request.run.video_id,
        "run_ids": [request.run.run_id],
        "synthetic": any(stamps),
        "timestamps": {
            "data_collection_at": None if request.snapshot is None else _utc(request.snapshot.first["t0"]),
            "dataprocessor_run_created_at": request.run.created_at,
            "inference_started_at": started,
            "inference_finished_at": utc_now(),
        },
        "status": "success",
        "prediction_status": decision.status,
        "model_requested": _model(requested, request.models.get(requested)),
        "model_used": None if decision.used is None else _model(decision.used, bundle),
        "degraded_path": [step.as_dict() for step in decision.path],
        "stages": log.rows(),
        "models_used": [] if bundle is None else [model_used(bundle.manifest)],
        "inputs_summary": _inputs(request, answer.row),
        "outputs": answer.outputs,
        "comparators": answer.comparators,
        "interval": answer.interval,
        "explainability": answer.explainability,
    }
    require_valid(document, schemas)
    return document


@dataclass(frozen=True)
class _Answer:
    """What a model said; all None where none could."""

    row: ModelRow | None = None
    outputs: dict[str, Any] | None = None
    comparators: dict[str, Any] | None = None
    interval: dict[str, Any] | None = None
    explainability: dict[str, Any] | None = None


def _answer(bundle: ModelBundle, run: RunInputs, snapshot: FirstSnapshot, log: StageLog) -> _Answer:
    with log.stage("DataProcessor"):
        spec = spec_of(bundle.spec, bundle.manifest)
        row = model_row(snapshot, run, spec, bundle.encoding)
    with log.stage("Heads"):
        served = bundle.serve(row.table)
    with log.stage("Postprocess"):
        return _Answer(
            row=row,
            outputs=model_outputs(served, row.x0),
            comparators=comparator_outputs(bundle, row.table, row.x0),
            interval=interval_outputs(bundle, row.age_bucket),
            explainability=explanations(bundle, row.table),
        )


def _requested(request: Request) -> str:
    if not request.models:
        raise TrendFlowError("config_invalid", "A forecast needs at least one trained model.")
    return request.requested or next(tier for tier in TIERS if tier in request.models)


def _present(request: Request) -> set[str]:
    """Inputs of `chain` that are there. A snapshot without any count is none: there is nothing to start from."""
    held = set()
    first = None if request.snapshot is None else request.snapshot.first
    if first is not None and not all(math.isnan(first[name]) for name in ("views", "likes")):
        held.add(FIRST_SNAPSHOT)
    if request.run.content is not None:
        held.add(FEATURE_VECTOR)
    return held


def _candidate(request: Request, tier: str) -> Candidate:
    bundle = request.models[tier]
    features = bundle.encoding.features
    needs = (FIRST_SNAPSHOT, FEATURE_VECTOR) if content_columns(features) else (FIRST_SNAPSHOT,)
    return Candidate(needs, difference(bundle.manifest, features, request.run))


def _model(tier: str, bundle: ModelBundle | None) -> dict[str, Any]:
    manifest = {} if bundle is None else bundle.manifest
    return {
        "tier": tier,
        "training_run_id": manifest.get("training_run_id"),
        "model_family": manifest.get("model_family"),
        "model_version": manifest.get("model_version"),
        "dataset_fingerprint": manifest["dataset"]["dataset_fingerprint"] if manifest else None,
        "synthetic": manifest.get("synthetic"),
    }


def model_used(manifest: Mapping[str, Any]) -> dict[str, str]:
    """A trained model as one entry of `models_used`; the digest covers every model file."""
    files = {
        entry["path"] if "path" in entry else entry["model_path"]: entry["sha256"]
        for bundle in manifest["bundles"]
        for horizon in bundle["horizons"]
        for entry in (horizon, *horizon["quantile_models"].values())
    }
    family = str(manifest["model_family"])
    return {
        "model_name": str(manifest["training_run_id"]),
        "model_version": str(manifest["model_version"]),
        "weights_digest": digest_of(files),
        "runtime": "inprocess",
        "engine": family,
        "precision": "fp64",
        "device": "cpu",
    }


def _inputs(request: Request, row: ModelRow | None) -> dict[str, Any]:
    run = request.run
    told = row.warnings if row is not None else ()
    return {
        "frames_used": run.frames,
        "audio_segments_used": run.audio_segments,
        "comments_used": 0,
        "modalities_present": list(run.modalities),
        "features_total": None if row is None else row.features_total,
        "features_missing": None if row is None else row.features_missing,
        "age_hours": None if row is None else row.age_hours,
        "age_bucket": None if row is None else row.age_bucket,
        "x0_views": None if row is None else _or_none(row.x0["views"]),
        "x0_likes": None if row is None else _or_none(row.x0["likes"]),
        "warnings": [*run.warnings, *told],
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _utc(moment: Any) -> str:
    """A time of a table in the form of the contracts."""
    text: str = moment.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
