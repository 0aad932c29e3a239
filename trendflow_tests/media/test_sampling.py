from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.sampling import (
    ComponentSampling,
    candidate_frames,
    drop_lost,
    duration_budget,
    has_large_gap,
    master_grid,
    nearest,
    plan_frames,
    subset,
)


@pytest.mark.parametrize(
    ("duration", "expected"),
    # D / gap(D) at the nodes of the curve, and below its first node where the gap is 0.25 s.
    [(0.1, 1), (5, 20), (30, 120), (60, 240), (300, 300), (600, 300), (1200, 343), (3600, 600), (21600, 600)],
)
def test_duration_budget_at_the_nodes_of_the_curve(duration: float, expected: int) -> None:
    assert duration_budget(duration) == expected


def test_duration_budget_is_log_log_linear_between_nodes() -> None:
    middle = np.sqrt(60 * 300)  # the geometric mean of two nodes has the geometric mean of their gaps
    assert duration_budget(middle) == round(middle / np.sqrt(0.25 * 1.0))


@pytest.mark.parametrize(
    ("duration", "frames", "expected"),
    [
        (30.0, 720, {"core_clip": 200, "cut_detection": 400}),  # B = 120 is below both minima
        (139.4, 1394, {"core_clip": 270, "cut_detection": 400}),
        (1100.0, 27500, {"core_clip": 337, "cut_detection": 400}),
        (8.3, 249, {"core_clip": 200, "cut_detection": 249}),  # fewer source frames than the minimum
        (5.0, 125, {"core_clip": 125, "cut_detection": 125}),
    ],
)
def test_sizes_of_known_videos(duration: float, frames: int, expected: dict[str, int]) -> None:
    components = [
        ComponentSampling("core_clip", 200, 400, 800, "primary"),
        ComponentSampling("cut_detection", 400, 800, 1500),
    ]
    plan = plan_frames(np.arange(frames) * duration / frames, duration, components, source_fps=frames / duration)
    assert {name: len(found) for name, found in plan.indices.items()} == expected
    assert {name for name, found in plan.shortfall.items()} == {
        name for name in expected if expected[name] < plan.budgets[name][0]
    }


budgets = st.tuples(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60)).map(
    lambda t: (t[0], t[0] + t[1], t[0] + t[1] + t[2])
)


@st.composite
def timelines(draw: st.DrawFn) -> np.ndarray:
    steps = draw(st.lists(st.integers(1, 400), min_size=0, max_size=150))
    return np.concatenate([[0], np.cumsum(steps)]) / 100.0


@st.composite
def component_sets(draw: st.DrawFn) -> list[ComponentSampling]:
    low = draw(st.integers(1, 50))
    group = [
        ComponentSampling(f"member{k}", low - draw(st.integers(0, low - 1)), low + 10, low + 60 + k, "primary")
        for k in range(draw(st.integers(1, 3)))
    ]
    alone = [ComponentSampling(f"alone{k}", *draw(budgets)) for k in range(draw(st.integers(0, 2)))]
    children = [
        ComponentSampling(f"child{k}", *draw(budgets), parent="primary") for k in range(draw(st.integers(0, 2)))
    ]
    return draw(st.permutations([*group, *alone, *children]))


@given(timelines(), component_sets(), st.floats(0.5, 60.0))
def test_plans_obey_the_policy(times: np.ndarray, components: list[ComponentSampling], fps: float) -> None:
    duration = float(times[-1]) + 0.04
    rate = len(times) / duration
    plan = plan_frames(times, duration, components, source_fps=rate, analysis_fps=fps)
    union, budget, available = plan.union_source, duration_budget(duration), plan.candidates

    assert np.all(np.diff(union) > 0)
    assert union[0] >= 0
    assert union[-1] < len(times)
    assert available <= len(times)
    assert set(plan.indices) == {item.name for item in components}
    primary = next(plan.indices[item.name] for item in components if item.group)
    for item in components:
        found = plan.indices[item.name]
        assert found.dtype == np.int32
        assert len(found) >= 1
        assert np.all(np.diff(found) > 0)
        assert found[0] >= 0
        assert found[-1] < len(union)
        if item.group:
            assert np.array_equal(found, primary)
        elif item.parent:
            assert set(found) <= set(primary)
            assert len(found) == min(len(primary), min(max(min(item.target, budget), item.min), item.max))
        else:
            assert len(found) == min(available, min(max(min(item.target, budget), item.min), item.max))
        short = len(found) < item.min
        assert (item.name in plan.shortfall) == short
        if short:
            reason = plan.shortfall[item.name]
            assert (reason.wanted_min, reason.got) == (item.min, len(found))
            if len(times) < item.min:
                assert reason.cause == "source_frames"
            elif available < item.min:
                assert reason.cause == "analysis_fps"
            else:
                assert reason.cause == "parent_cap"
    assert max(len(found) for found in plan.indices.values()) == len(union)


@given(st.integers(1, 300), st.data())
def test_subsets_are_increasing_and_span_their_parent(parent: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, parent))
    found = subset(n, parent)
    assert len(found) == n
    assert np.all(np.diff(found) > 0)
    assert found[0] == 0
    if n > 1:
        assert found[-1] == parent - 1
        exact = np.arange(n) * (parent - 1) / (n - 1)
        assert np.all(np.abs(found - exact) <= 0.5 + 1e-9)


@given(timelines(), st.data())
def test_the_master_grid_takes_the_nearest_free_frame(times: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(times)))
    chosen = master_grid(times, n)
    assert np.all(np.diff(chosen) > 0)
    if n == 1:
        assert chosen.tolist() == [0]
        return
    last = -1
    for k, position in enumerate(chosen):
        target = k * times[-1] / (n - 1)
        best = int(np.argmin(np.abs(times - target)))  # argmin takes the first, that is the earlier, of equals
        assert abs(times[position] - target) == pytest.approx(
            abs(times[min(max(best, last + 1), len(times) - n + k)] - target)
        )
        last = int(position)


def test_ties_go_to_the_earlier_frame() -> None:
    assert nearest(np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.5, -1.0, 9.0])).tolist() == [0, 1, 0, 2]


def test_a_lower_analysis_rate_keeps_the_frames_nearest_to_its_grid() -> None:
    times = np.arange(101) / 25.0
    assert candidate_frames(times, 25.0, 5.0).tolist() == list(range(0, 101, 5))
    assert len(candidate_frames(times, 25.0, None)) == 101
    assert len(candidate_frames(times, 25.0, 30.0)) == 101


def test_contradicting_group_budgets_are_refused() -> None:
    components = [ComponentSampling("a", 10, 20, 30, "primary"), ComponentSampling("b", 40, 50, 60, "primary")]
    with pytest.raises(TrendFlowError, match="config_invalid"):
        plan_frames(np.arange(100.0), 100.0, components, source_fps=1.0)


def test_a_member_stands_for_its_group_as_parent() -> None:
    """The graph names a component as parent; its group is what is sampled."""
    plans = [
        plan_frames(
            np.arange(900) / 30,
            30.0,
            [ComponentSampling("clip", 20, 100, 200, "primary"), ComponentSampling("pacing", 5, 30, 50, parent=parent)],
            source_fps=30.0,
        )
        for parent in ("clip", "primary")
    ]
    for name in ("clip", "pacing"):
        np.testing.assert_array_equal(plans[0].indices[name], plans[1].indices[name])
    assert set(plans[0].indices["pacing"]) < set(plans[0].indices["clip"])


def test_an_unknown_parent_is_refused() -> None:
    with pytest.raises(TrendFlowError, match="config_invalid"):
        plan_frames(np.arange(9.0), 9.0, [ComponentSampling("a", 1, 2, 3, parent="primary")], source_fps=1.0)


@given(timelines(), component_sets(), st.data())
def test_lost_frames_leave_consistent_sets(
    times: np.ndarray, components: list[ComponentSampling], data: st.DataObject
) -> None:
    plan = plan_frames(times, float(times[-1]) + 0.04, components, source_fps=1.0)
    kept = data.draw(st.lists(st.booleans(), min_size=len(plan.union_source), max_size=len(plan.union_source)))
    served = [int(n) if keep else None for n, keep in zip(plan.union_source, kept, strict=True)]
    after = drop_lost(plan, served)
    assert after.union_source.tolist() == [n for n in served if n is not None]
    for item in components:
        wanted = [served[k] for k in plan.indices[item.name]]
        found = after.union_source[after.indices[item.name]].tolist()
        assert found == [n for n in wanted if n is not None]
        assert (item.name in after.shortfall) == (len(found) < item.min)
        if item.name in after.shortfall and item.name not in plan.shortfall:
            assert after.shortfall[item.name].cause == "decode_loss"


def test_gaps_above_six_seconds_are_reported() -> None:
    times = np.array([0.0, 6.0, 12.0, 18.1])
    assert not has_large_gap(times, {"a": np.array([0, 1, 2])})
    assert has_large_gap(times, {"a": np.array([0, 1, 2]), "b": np.array([2, 3])})
    assert has_large_gap(times, {"a": np.array([0, 2])})
