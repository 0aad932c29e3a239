"""Typed access to the processing facts of a catalogue entry. A missing or senseless fact is `model_spec_invalid`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from trendflow.components.base import ComponentInputs
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry

Group = Literal["preprocessing", "postprocessing"]


def need_model(inputs: ComponentInputs, role: str) -> ModelHandle:
    """The handle of a required role. Raises `dependency_missing` when no model serves it."""
    if role not in inputs.models:
        raise TrendFlowError("dependency_missing", f"No model is mapped to the role {role}.", kind="model", role=role)
    return inputs.models[role]


def fact(entry: CatalogueEntry, group: Group, name: str) -> Any:
    """`entry.preprocessing[name]` or `entry.postprocessing[name]`."""
    facts: dict[str, Any] = getattr(entry, group)
    if name not in facts:
        raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} does not state {group}.{name}.")
    return facts[name]


def choice(entry: CatalogueEntry, group: Group, name: str, allowed: tuple[str, ...]) -> str:
    """A fact that names one of the methods this code knows."""
    value = fact(entry, group, name)
    if value not in allowed:
        raise TrendFlowError(
            "model_spec_invalid", f"{group}.{name} of the entry {entry.name} is none of {', '.join(allowed)}."
        )
    return str(value)


def number(entry: CatalogueEntry, group: Group, name: str, low: float, high: float = float("inf")) -> float:
    """A numeric fact within `[low, high]`."""
    value = fact(entry, group, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise TrendFlowError(
            "model_spec_invalid", f"{group}.{name} of the entry {entry.name} is no number from {low:g} to {high:g}."
        )
    return float(value)
