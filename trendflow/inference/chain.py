"""Which model answers: decided from what is there, before any model runs, and every step down is written up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError

TIERS = ("v2", "v1", "baseline")
"""From the most demanding model to the one that works with the least."""

FIRST_SNAPSHOT, FEATURE_VECTOR, SHOT_TOKENS, AUDIO = "first_snapshot", "feature_vector", "shot_tokens", "audio"
INPUTS = (FIRST_SNAPSHOT, FEATURE_VECTOR, SHOT_TOKENS, AUDIO)

MODEL_NOT_AVAILABLE, INPUTS_MISSING, VERSIONS_DIFFER = "model_not_available", "inputs_missing", "versions_differ"
REASONS = (MODEL_NOT_AVAILABLE, INPUTS_MISSING, VERSIONS_DIFFER)


@dataclass(frozen=True)
class Candidate:
    """A model that is there: inputs it cannot do without, and how the run differs from its training, if it does."""

    needs: tuple[str, ...]
    difference: str | None = None


@dataclass(frozen=True)
class Step:
    """One step down. `to` is None where no model is left."""

    origin: str
    to: str | None
    reason: str
    missing: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return {"from": self.origin, "to": self.to, "reason": self.reason, "missing": list(self.missing)}


@dataclass(frozen=True)
class Decision:
    """`used` is None where no model is applicable."""

    requested: str
    used: str | None
    path: tuple[Step, ...]

    @property
    def status(self) -> str:
        """`prediction_status`: ok, degraded or unavailable."""
        if self.used is None:
            return "unavailable"
        return "degraded" if self.path else "ok"


def decide(requested: str, candidates: Mapping[str, Candidate], present: Collection[str]) -> Decision:
    """Go down from `requested` to the first model that is there, has its inputs and fits the run.

    `candidates`: tier → model; `present`: the inputs that are there. Raises `config_invalid` for an unknown tier, and
    `model_spec_invalid` where a model that does not fit the run is the last that could have answered: falling silent
    would hide that it has to be trained again.
    """
    if requested not in TIERS:
        raise TrendFlowError("config_invalid", f"A model is one of {', '.join(TIERS)}, not {requested!r}.")
    left = TIERS[TIERS.index(requested) :]
    steps: list[tuple[str, str, tuple[str, ...]]] = []
    refused: str | None = None
    for tier in left:
        candidate = candidates.get(tier)
        obstacle = _obstacle(candidate, present)
        if obstacle is None:
            return Decision(requested, tier, _linked(steps, tier))
        if obstacle[0] == VERSIONS_DIFFER and candidate is not None:
            refused = candidate.difference
        steps.append((tier, *obstacle))
    if refused is not None:
        raise TrendFlowError("model_spec_invalid", refused)
    return Decision(requested, None, _linked(steps, None))


def _obstacle(candidate: Candidate | None, present: Collection[str]) -> tuple[str, tuple[str, ...]] | None:
    if candidate is None:
        return MODEL_NOT_AVAILABLE, ()
    missing = tuple(name for name in candidate.needs if name not in present)
    if missing:
        return INPUTS_MISSING, missing
    return None if candidate.difference is None else (VERSIONS_DIFFER, ())


def _linked(steps: Sequence[tuple[str, str, tuple[str, ...]]], used: str | None) -> tuple[Step, ...]:
    ends = [*(tier for tier, _, _ in steps[1:]), used]
    return tuple(Step(tier, ends[place], reason, missing) for place, (tier, reason, missing) in enumerate(steps))
