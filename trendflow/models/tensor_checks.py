"""Holds the arrays of one inference against the catalogue entry, the same way for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensors import BATCH, TensorSpec, mismatch


def check_inputs(entry: CatalogueEntry, inputs: Mapping[str, np.ndarray], *, limited: bool = True) -> dict[str, int]:
    """The sizes the symbolic dimensions take. Raises `model_spec_invalid` on a wrong name, dtype, shape or batch.

    Without `limited` a batch may exceed the entry's maximum; the caller splits it.
    """
    expected = {spec.name for spec in entry.inputs}
    if set(inputs) != expected:
        raise _spec_invalid(entry, f"was given the inputs {sorted(inputs)} instead of {sorted(expected)}")
    symbols: dict[str, int] = {}
    for spec in entry.inputs:
        problem = mismatch(spec, inputs[spec.name], symbols)
        if problem:
            raise _spec_invalid(entry, f"input {problem}")
    batch = symbols.get(BATCH, 1)
    if limited and batch > entry.max_batch_size:
        raise _spec_invalid(entry, f"accepts batches up to {entry.max_batch_size}, not {batch}")
    return symbols


def check_outputs(
    entry: CatalogueEntry,
    outputs: Mapping[str, Any],
    symbols: dict[str, int],
    *,
    error_code: str = "artifact_validation_failed",
) -> None:
    """Raises `error_code` on an output that is missing, misshapen or not finite where it must be."""
    for spec in entry.outputs:
        problem = _problem(spec, outputs.get(spec.name), symbols)
        if problem:
            raise TrendFlowError(error_code, f"{entry.name}: output {problem}.", entry=entry.name)


def _problem(spec: TensorSpec, value: object, symbols: dict[str, int]) -> str | None:
    if not isinstance(value, np.ndarray):
        return f"{spec.name!r} is no tensor"
    if problem := mismatch(spec, value, symbols):
        return problem
    if spec.finite and value.dtype.kind == "f" and not np.isfinite(value).all():
        return f"{spec.name!r} has values that are not finite"
    return None


def _spec_invalid(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("model_spec_invalid", f"{entry.name} {problem}.", entry=entry.name)
