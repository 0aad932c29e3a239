"""Whether a model may be asked about a run: it must have learned from features that the same programs computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.metadata_features import METADATA_COLUMNS
from trendflow.dataset.table.synthetic import is_synthetic
from trendflow.inference.encoding import column_of
from trendflow.inference.run_inputs import RunInputs


def spec_of(spec: Mapping[str, Any], manifest: Mapping[str, Any]) -> FeatureSpec:
    """The feature spec of a model. Raises `model_spec_invalid` when it is not the one the model was trained with."""
    found = FeatureSpec.from_document(spec)
    if found.hash != manifest["dataset"]["feature_spec_hash"]:
        raise TrendFlowError(
            "model_spec_invalid", "The feature spec beside the model is not the one it was trained with."
        )
    return found


def content_columns(features: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of the feature vector that a model reads, embeddings once; the rest is metadata."""
    columns = dict.fromkeys(column_of(feature) for feature in features)
    return tuple(name for name in columns if name not in METADATA_COLUMNS)


def difference(manifest: Mapping[str, Any], features: tuple[str, ...], run: RunInputs) -> str | None:
    """The first way in which the run differs from what the model was trained on, as a sentence; None when it fits.

    A model of metadata alone fits every run. For any other, versions, schemas and models are compared of the components
    whose columns it reads, and `config_hash`, which covers the parameters of every component, also of those it does not
    read. A component that failed has no models behind it: its values are missing, which the model knows how to read.
    """
    columns = content_columns(features)
    if not columns or run.content is None:
        return None
    trained, layout = manifest["dataset"], run.content.layout
    told = (
        ("feature schema", trained["feature_schema_version"], layout.schema_version),
        ("sampling policy", trained["sampling_policy_version"], run.sampling_policy_version),
    )
    for what, expected, found in told:
        if expected != found:
            return f"The model was trained on {what} {expected}, the run has {found}."
    held = {*layout.names, *run.content.embeddings}
    for name in sorted({column.partition("__")[0] for column in columns}):
        if name not in run.components:
            return f"The model reads {name}, which the run does not have."
        computed = run.components[name]
        for what, key, value in (
            ("version", "producer_versions", computed.producer_version),
            ("schema", "schema_versions", computed.schema_version),
            ("models", "model_signatures", computed.signature),
        ):
            known = (trained.get(key) or {}).get(name)
            if known is None and key != "model_signatures":
                return f"The model does not say which {what} of {name} it was trained on."
            if known and value and value != known:
                return f"The model was trained on {name} with {what} {_short(known)}, the run has {_short(value)}."
    absent = [column for column in columns if column not in held and column.count("__") == 2]
    if absent:
        return f"The model reads {absent[0]}, which the feature vector does not have."
    if trained["config_hash"] != run.config_hash:  # the same programs, but other parameters
        expected, found = _short(trained["config_hash"]), _short(run.config_hash)
        return f"The model was trained on configuration {expected}, the run has {found}."
    return None


def _short(value: str | None) -> str:
    """Digests as far as a person compares them."""
    return (value or "unknown")[:40]


def require_allowed(manifest: Mapping[str, Any], run: RunInputs, allow_synthetic: bool) -> bool:
    """Whether the forecast is SYNTHETIC. Raises `model_spec_invalid` where it would be and that is not allowed."""
    invented = bool(manifest["synthetic"]) or is_synthetic([str(manifest["training_run_id"])])
    if invented and not allow_synthetic:
        raise TrendFlowError(
            "model_spec_invalid", "The model was trained on SYNTHETIC data; it says nothing about real videos."
        )
    if run.test_models and not allow_synthetic:
        raise TrendFlowError(
            "model_spec_invalid", "The run was computed with models of random weights or fixtures, which mean nothing."
        )
    return invented or bool(run.test_models) or is_synthetic([run.video_id])
