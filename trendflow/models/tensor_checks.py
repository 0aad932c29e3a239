"""Holds the arrays of one inference against the catalogue entry, the same way for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensors import BATCH, mismatch


def check_inputs(entry: CatalogueEntry, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes the symbolic dimensions take. Raises `model_spec_invalid` on a wrong name, dtype, shape or batch."""
    expected = {spec.name for spec in entry.inputs}
    if set(inputs) != expected:
        raise _spec_invalid(entry, f"was given the inputs {sorted(inputs)} instead of {sorted(expected)}")
    symbols: dict[str, int] = {}
    for spec in entry.inputs:
        problem = mismatch(spec, inputs[spec.name], symbols)
        if problem:
            raise _spec_invalid(entry, f"input {problem}")
    batch = symbols.get(BATCH, 1)
    if batch > entry.max_batch_size:
        raise _spec_invalid(entry, f"accepts batches up to {entry.max_batch_size}, not {batch}")
    return symbols


def check_outputs(entry: CatalogueEntry, outputs: Mapping[str, Any], symbols: dict[str, int]) -> None:
    """Raises `artifact_validation_failed` on an output that is missing, misshapen or not finite where it must be."""
    for spec in entry.outputs:
        value = outputs[spec.name]
        if not isinstance(value, np.ndarray):
            raise _bad_output(entry, f"output {spec.name!r} is no tensor")
        problem = mismatch(spec, value, symbols)
        if problem:
            raise _bad_output(entry, f"output {problem}")
        if spec.finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise _bad_output(entry, f"output {spec.name!r} has values that are not finite")


def _spec_invalid(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("model_spec_invalid", f"{entry.name} {problem}.", entry=entry.name)


def _bad_output(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", f"{entry.name}: {problem}.", entry=entry.name)
