"""The way down from the model asked for: complete, in order, and never silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.chain import INPUTS, TIERS, Candidate, Decision, decide

NEEDS = {"v2": ("first_snapshot", "shot_tokens"), "v1": ("first_snapshot", "audio"), "baseline": ("first_snapshot",)}
ALL = {tier: Candidate(needs) for tier, needs in NEEDS.items()}

candidates = st.dictionaries(
    st.sampled_from(TIERS),
    st.builds(Candidate, st.lists(st.sampled_from(INPUTS), unique=True).map(tuple), st.none()),
)


def test_the_model_asked_for_answers_when_it_can() -> None:
    assert decide("v2", ALL, set(INPUTS)) == Decision("v2", "v2", ())
    assert decide("v2", ALL, set(INPUTS)).status == "ok"


def test_every_step_down_says_why() -> None:
    found = decide("v2", {"v1": ALL["v1"], "baseline": ALL["baseline"]}, {"first_snapshot"})
    assert [step.as_dict() for step in found.path] == [
        {"from": "v2", "to": "v1", "reason": "model_not_available", "missing": []},
        {"from": "v1", "to": "baseline", "reason": "inputs_missing", "missing": ["audio"]},
    ]
    assert (found.used, found.status) == ("baseline", "degraded")


def test_without_a_first_snapshot_nothing_answers() -> None:
    found = decide("baseline", ALL, {"audio", "shot_tokens", "feature_vector"})
    assert (found.used, found.status) == (None, "unavailable")
    assert [step.as_dict() for step in found.path] == [
        {"from": "baseline", "to": None, "reason": "inputs_missing", "missing": ["first_snapshot"]}
    ]


def test_a_model_of_other_versions_gives_way_to_the_next_and_is_refused_as_the_last() -> None:
    other = Candidate((), "It was trained on something else.")
    found = decide("v1", {"v1": other, "baseline": ALL["baseline"]}, {"first_snapshot"})
    assert (found.used, found.path[0].reason) == ("baseline", "versions_differ")
    with pytest.raises(TrendFlowError, match="trained on something else") as caught:
        decide("v1", {"v1": other}, {"first_snapshot"})
    assert caught.value.error_code == "model_spec_invalid"


@given(st.sampled_from(TIERS), candidates, st.sets(st.sampled_from(INPUTS)))
def test_the_best_applicable_model_answers_and_the_path_leads_to_it(
    requested: str, models: dict[str, Candidate], present: set[str]
) -> None:
    found = decide(requested, models, present)
    below = TIERS[TIERS.index(requested) :]
    applicable = [tier for tier in below if tier in models and present.issuperset(models[tier].needs)]
    assert found.used == next(iter(applicable), None)
    passed = below if found.used is None else below[: below.index(found.used)]
    assert [step.origin for step in found.path] == list(passed)
    assert [step.to for step in found.path] == [*passed[1:], found.used][: len(passed)]
    for step in found.path:
        assert (step.reason == "inputs_missing") == bool(step.missing)
        assert present.isdisjoint(step.missing)


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(TrendFlowError, match="v3"):
        decide("v3", ALL, set(INPUTS))
