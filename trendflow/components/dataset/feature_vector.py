"""One flat, named vector per run: everything the components of the profile say to a model.

A column is `<component>__<key>__<statistic>`; the set of columns and their order follow from the profile and the
schemas, so all runs of one profile can be stacked. What a component did not measure, because it failed,
found its subject absent or could not know, is NaN with `feature_present_mask` false and its reason in
`absent_features`.

Method: the statistic is `value` for a scalar feature. An array enters by those of `mean`, `std`, `min`, `max`, `p50`
and `p90`, over its finite values, that its row in the table of its component names under "in the vector". Features
and arrays that are not model-facing have no column. An embedding is copied; of `frame_embeddings` it is the mean over
the frames.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, Declaration, Upstream
from trendflow.components.dataset._columns import EMBEDDINGS, ArtifactReader, Column, columns_of
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError

SPEC = ComponentSpec(
    name="feature_vector",
    producer_version="1.0.0",
    schema_version="feature_vector_npz_v1",
    hard=("segmenter",),
    soft="all",
    reads=("declarations",),
)

PROVENANCE = (
    "prov_component",
    "prov_schema_version",
    "prov_producer_version",
    "prov_content_digest",
    "prov_source_kind",
    "prov_observed_at",
)

_NO_RESULT = "{} gave no result"

# Times by name and not by value: a run knows neither, and a vector that is reused must not carry a clock. They are
# columns of the dataset. A document counts from its capture, and so does what rests on it; the document of a run is
# captured when the run is created, which a dataset holds as document_observed_at.
_OBSERVED_AT = {"media": "publish_time", "document": "captured_at", "derived": "captured_at"}


def run(inputs: ComponentInputs) -> Artifact:
    """Gather scalars, statistics and embeddings of all enabled components.

    Raises `dependency_missing` (no declarations) or `artifact_validation_failed` (an upstream artifact that is not of
    the declared version, or that holds a feature without a column).
    """
    started = time.perf_counter()
    declarations = inputs.need_declarations()
    columns = columns_of(declarations)
    readers = {name: _reader(found, declarations[name]) for name, found in inputs.upstream.items()}
    features: dict[str, float] = {}
    absent: dict[str, str] = {}
    for column in columns:
        reader = readers.get(column.component)
        value = float("nan") if reader is None else reader.value(column)
        features[column.name] = value
        if not np.isfinite(value):
            absent[column.name] = _reason(reader, column.component, column.key)
    vectors: dict[str, np.ndarray] = {}
    for name, (component, key) in EMBEDDINGS.items():
        if component not in declarations:
            continue
        reader = readers.get(component)
        vector = None if reader is None else reader.vector(key)
        if vector is None:
            absent[name] = _reason(reader, component, key)
        else:
            vectors[name] = vector
    arrays = feature_arrays(features)
    return Artifact(
        arrays={
            **arrays,
            "feature_present_mask": np.isfinite(arrays["feature_values"]),
            **vectors,
            **_provenance(columns, declarations, inputs.upstream),
        },
        meta={"absent_features": absent},
        stage_timings_ms={"gather": (time.perf_counter() - started) * 1e3},
    )


def _reader(upstream: Upstream, declared: Declaration) -> ArtifactReader:
    found = (upstream.meta["schema_version"], upstream.meta["producer_version"])
    if found != (declared.schema.schema_version, declared.producer_version):
        raise TrendFlowError(
            "artifact_validation_failed", f"The result of {upstream.name} is not of the version this run computes."
        )
    return ArtifactReader(upstream, declared.schema)


def _reason(reader: ArtifactReader | None, component: str, key: str) -> str:
    return _NO_RESULT.format(component) if reader is None else reader.why_missing(key)


def _provenance(
    columns: list[Column], declarations: Mapping[str, Declaration], upstream: Mapping[str, Upstream]
) -> dict[str, np.ndarray]:
    """`prov_*` <U [F], one row per column. The content digest of a component without a result is the empty string."""
    rows = {
        name: {
            "prov_component": name,
            "prov_schema_version": known.schema.schema_version,
            "prov_producer_version": known.producer_version,
            "prov_content_digest": upstream[name].meta["content_digest"] if name in upstream else "",
            "prov_source_kind": known.source_kind,
            "prov_observed_at": _OBSERVED_AT[known.source_kind],
        }
        for name, known in declarations.items()
    }
    return {key: np.array([rows[column.component][key] for column in columns], dtype=np.str_) for key in PROVENANCE}
