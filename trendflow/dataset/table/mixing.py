"""Runs that were computed by another program than the rest: other versions, other models, another device class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.selection import ComponentVersion, Refusal, RunChoice

_FIELDS = ("producer_version", "schema_version", "signature")
_REASONS = {
    "producer_version": "mixed_producer_version",
    "schema_version": "mixed_schema_version",
    "signature": "mixed_model_signature",
}


@dataclass(frozen=True)
class Versions:
    """What most runs were computed with: the sampling policy, the feature schema, and each component's version."""

    sampling_policy_version: str
    feature_schema_version: str
    components: Mapping[str, ComponentVersion]


def prevailing_versions(runs: Sequence[RunChoice], *, allow_mixed: bool = False) -> Versions:
    """The versions that more than half of the runs have.

    Raises `artifact_validation_failed` where none has that majority, unless mixing is allowed: then the most frequent
    counts, and of equally many the last in order.
    """

    def most(what: str, values: Counter[str]) -> str:
        found, count = max(values.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if 2 * count <= values.total() and len(values) > 1 and not allow_mixed:
            raise TrendFlowError(
                "artifact_validation_failed",
                f"The runs have no prevailing {what}: {_counted(values)}; process them again with one release.",
                what=what,
            )
        return found

    components: dict[str, ComponentVersion] = {}
    for name in sorted({name for run in runs for name in run.components}):
        held = [run.components[name] for run in runs if name in run.components]
        values = {
            field: most(f"{field} of {name}", Counter(value for found in held if (value := getattr(found, field))))
            for field in _FIELDS
        }
        components[name] = ComponentVersion(kind=held[0].kind, **values)
    return Versions(
        sampling_policy_version=most("sampling policy", Counter(run.sampling_policy_version for run in runs)),
        feature_schema_version=most("feature schema", Counter(run.vector_schema for run in runs)),
        components=components,
    )


def refuse_mixed(runs: Sequence[RunChoice], versions: Versions) -> list[Refusal]:
    """A refusal for every run that differs from `versions`, by the first difference."""
    found = ((run, _difference(run, versions)) for run in runs)
    return [Refusal(*run.video, run.run_id, *difference) for run, difference in found if difference is not None]


def _difference(run: RunChoice, versions: Versions) -> tuple[str, str] | None:
    if run.sampling_policy_version != versions.sampling_policy_version:
        return "mixed_sampling_policy_version", run.sampling_policy_version
    if run.vector_schema != versions.feature_schema_version:
        return "mixed_feature_schema_version", run.vector_schema
    for name, found in sorted(run.components.items()):
        expected = versions.components[name]
        for field in _FIELDS:
            value = getattr(found, field)
            # A component that failed has no models; its values are NaN whoever computed them.
            if value and value != getattr(expected, field):
                return _REASONS[field], f"{name} {value[:16]}"
    return None


def _counted(values: Counter[str]) -> str:
    return ", ".join(f"{value[:16]} ({count})" for value, count in sorted(values.items()))
