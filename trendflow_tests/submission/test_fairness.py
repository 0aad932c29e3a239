"""Whose turn it is, for any arrivals."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trendflow.submission.fairness import Turns, keep_turns, kept_turns
from trendflow.submission.message import Priority
from trendflow_tests.state.runs import memory

ARRIVALS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40)
"""New messages of high, normal and low priority before each turn."""


def served(arrivals: list[tuple[int, ...]], restarts: bool) -> tuple[list[Priority], list[Counter[Priority]]]:
    """Who was served at each turn until nobody waited, and who waited then; with `restarts` by another process each."""
    store, turns, waiting = memory(), Turns(), Counter[Priority]()
    order: list[Priority] = []
    seen: list[Counter[Priority]] = []
    turn = 0
    while turn < len(arrivals) or waiting.total():
        high, normal, low = arrivals[turn] if turn < len(arrivals) else (0, 0, 0)
        waiting.update({"high": high, "normal": normal, "low": low})
        turn += 1
        chosen = turns.next(waiting)
        assert (chosen is None) == (waiting.total() == 0)
        if chosen is None:
            continue
        seen.append(waiting.copy())
        turns.served(chosen, waiting)
        waiting[chosen] -= 1
        order.append(chosen)
        if restarts:
            keep_turns(store, turns)
            turns = kept_turns(store)
    return order, seen


@given(ARRIVALS, st.booleans())
def test_who_waits_is_served_at_least_every_tenth(arrivals: list[tuple[int, ...]], restarts: bool) -> None:
    order, seen = served(arrivals, restarts)
    assert Counter(order) == Counter({n: sum(a[i] for a in arrivals) for i, n in enumerate(("high", "normal", "low"))})
    for start in range(len(order) - 9):
        for name in ("normal", "low"):
            if all(waiting[name] for waiting in seen[start : start + 10]):
                assert name in order[start : start + 10]


@given(ARRIVALS)
def test_the_urgent_go_first_otherwise(arrivals: list[tuple[int, ...]]) -> None:
    """Of ten turns in a row at most one is low and two are normal because they waited long."""
    order, seen = served(arrivals, restarts=False)
    first = [next(name for name in ("high", "normal", "low") if waiting[name]) for waiting in seen]
    for start in range(2, len(order) - 9):
        turns = range(start, start + 10)
        assert sum(order[turn] != first[turn] for turn in turns) <= 3


def test_a_full_house() -> None:
    turns, waiting = Turns(), Counter[Priority]({"high": 100, "normal": 100, "low": 100})
    order = []
    for _ in range(40):
        chosen = turns.next(waiting)
        assert chosen is not None
        turns.served(chosen, waiting)
        order.append(chosen)
    assert order[:2] == ["low", "normal"]
    assert Counter(order)["high"] >= 30


def test_looking_ahead_changes_nothing() -> None:
    turns, waiting = Turns({"low": 0, "normal": 0}), Counter[Priority]({"high": 100, "low": 100})
    ahead = turns.copy()
    for _ in range(9):
        ahead.served("high", waiting)
    assert (ahead.next(waiting), turns.next(waiting)) == ("low", "high")


def test_turns_that_cannot_be_read_are_fresh_ones() -> None:
    store = memory()
    for damaged in (b"{", b"[]", b'{"low": "x"}', b'{"low": true}'):
        store.put("submissions/_turns.json", damaged)
        assert kept_turns(store).passed == Turns().passed
