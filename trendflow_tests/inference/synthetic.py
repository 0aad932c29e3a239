"""SYNTHETIC models and first snapshots: gradient boosting on a made-up law, in the files of a training run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.snapshots.tables import empty_metadata
from trendflow.dataset.table.content_features import Content, Layout
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.metadata_features import AGE
from trendflow.dataset.table.selection import ComponentVersion
from trendflow.inference.first_snapshot import FirstSnapshot
from trendflow.inference.run_inputs import RunInputs
from trendflow_tests.inference.manifests import QUANTILES, SHA, manifest, model_path

SCHEMAS = SchemaRegistry.load()
CUTS = "cut_detection__cuts_per_minute__value"
LOUDNESS = "loudness_extractor__loudness_integrated_lufs__value"
METADATA = ("views_0", "likes_0", AGE, "language")
CONTENT = (CUTS, LOUDNESS)
SUBSCRIBERS = "channel_subscribers_0"
PUBLISHED = datetime(2026, 3, 1, 12, tzinfo=UTC)
T0 = PUBLISHED + timedelta(hours=10)
SIGNATURE = "cd" * 32
COMPONENTS = {
    "cut_detection": ComponentVersion("module", "1.2.0", "cut_detection_npz_v2", SIGNATURE),
    "loudness_extractor": ComponentVersion("audio", "2.0.0", "loudness_extractor_npz_v3", SIGNATURE),
}
_LEVELS = {"language": ("de", "en")}
_ROWS = 240
_ROUNDS = 8


def spec(content: bool) -> FeatureSpec:
    document = dict(FeatureSpec.load().document)
    document["components"] = [{"name": name} for name in COMPONENTS] if content else []
    return FeatureSpec.from_document(document)


def write_model(
    folder: Path,
    *,
    content: bool = True,
    channel: bool = False,
    synthetic: bool = False,
    offset: float = 0.1,
    falling: bool = False,
) -> Path:
    """A training run folder with six heads of LightGBM, each trained for a blink on a SYNTHETIC law.

    `synthetic=False` leaves out the label, so that the ways of a real model can be tested; the data are made up still.
    `falling`: the later the horizon, the less a video has gained, which no count can do. `channel`: it reads the
    subscribers of the channel.
    """
    features = (*METADATA, *(CONTENT if content else ()), *((SUBSCRIBERS,) if channel else ()))
    rng = np.random.default_rng(3)
    views = rng.lognormal(6, 2, _ROWS)
    columns = [views, 0.03 * views * rng.random(_ROWS), rng.uniform(1, 100, _ROWS), rng.integers(0, 4, _ROWS)]
    columns += [rng.gamma(2, 3, _ROWS), rng.normal(-18, 4, _ROWS)] if content else []
    columns += [rng.lognormal(8, 2, _ROWS)] if channel else []
    matrix = np.column_stack(columns)
    files: dict[str, bytes] = {}
    for target, start in (("views", matrix[:, 0]), ("likes", matrix[:, 1])):
        for days in (7, 14, 21):
            y = np.log1p(start * (28 - days if falling else days) / 20) + 0.3 * rng.normal(size=_ROWS)
            files[model_path(target, days)] = _fit(matrix, y, {"objective": "regression"})
            for name, level in zip(QUANTILES, (0.1, 0.5, 0.9), strict=True):
                options = {"objective": "quantile", "alpha": level}
                files[model_path(target, days, name)] = _fit(matrix, y, options)
    chosen = spec(content)
    documents = {"metrics": _metrics(synthetic), "feature_spec": chosen.to_yaml()}
    names = {"metrics": "metrics.json", "feature_spec": "feature_spec.yaml"}
    digests = {name: sha256_hex(data) for name, data in (*files.items(), *documents.items())}
    used = COMPONENTS if content else {}
    made = manifest(
        synthetic=synthetic,
        features=features,
        levels=_LEVELS,
        digests=digests,
        offset=offset,
        feature_spec_hash=chosen.hash,
        producer_versions={name: found.producer_version for name, found in used.items()},
        schema_versions={name: found.schema_version for name, found in used.items()},
        model_signatures={name: found.signature for name, found in used.items()},
    )
    files |= {names[name]: data for name, data in documents.items()}
    files["training_run_manifest.json"] = json.dumps(made).encode()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _fit(matrix: np.ndarray, y: np.ndarray, options: Mapping[str, Any]) -> bytes:
    fixed = {"num_threads": 1, "verbose": -1, "num_leaves": 6, "min_data_in_leaf": 10, "learning_rate": 0.3, "seed": 1}
    data = lightgbm.Dataset(matrix, y, categorical_feature=[3])
    made: str = lightgbm.train({**fixed, **options}, data, _ROUNDS).model_to_string()
    return made.encode()


def _metrics(synthetic: bool) -> bytes:
    part = {"value": 0.81, "low": 0.74, "high": 0.88, "n": 120, "n_channels": 60}
    few = {**part, "n": 12, "n_channels": 9}
    coverage = {"nominal": 0.8, "overall": part, "buckets": {"<24h": part, "1-30d": few, ">30d": part}}
    heads = [f"{target}_{days}d" for target in ("views", "likes") for days in (7, 14, 21)]
    return json.dumps({"synthetic": synthetic, "heads": {head: {"coverage": coverage} for head in heads}}).encode()


def snapshot(**changes: Any) -> FirstSnapshot:
    """A page and its first counters; `changes` replace values of either."""
    ids = {"platform_id": "upload", "video_id": "made-up"}
    page = {"publish_time": PUBLISHED, "captured_at": T0, "language": "en", "title": "A title?", "source": "test"}
    video = {**ids, **empty_metadata(), **page}
    counters = {"views": 1200.0, "likes": 40.0, "comments": 3.0}
    unknown = dict.fromkeys(("channel_subscribers", "channel_views", "channel_videos"), float("nan"))
    first = {**ids, "t0": T0, **counters, **unknown}
    for name, value in changes.items():
        (first if name in first else video)[name] = value
    return FirstSnapshot(video, first)


def content(values: Sequence[float] = (12.0, -16.0), names: Sequence[str] = CONTENT) -> Content:
    components = tuple(name.partition("__")[0] for name in names)
    known = [COMPONENTS[name] for name in components]
    layout = Layout(
        schema_version="feature_vector_npz_v1",
        names=tuple(names),
        components=components,
        schema_versions=tuple(found.schema_version for found in known),
        producer_versions=tuple(found.producer_version for found in known),
        source_kinds=("media",) * len(names),
        observed_at=("publish_time",) * len(names),
    )
    return Content(layout, np.array(values, dtype=np.float32), {})


def run_inputs(**changes: Any) -> RunInputs:
    made = RunInputs(
        platform_id="upload",
        video_id="made-up",
        run_id="run-1",
        created_at="2026-03-01T23:00:00.000Z",
        sampling_policy_version="sampling_v1",
        config_hash=SHA,
        duration_seconds=62.0,
        components=COMPONENTS,
        test_models=(),
        content=content(),
        frames=120,
        audio_segments=14,
        warnings=("sampling_shortfall",),
    )
    return dataclasses.replace(made, **changes)
