"""Of several managers of one run only the one that opened it last writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import Fenced, IllegalTransition
from trendflow.state.replay import no_run, replay_run
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore, view_of
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import (
    COMPONENTS,
    FOLDER,
    PATH,
    SLOW,
    BreakingStore,
    Crash,
    FixedClock,
    accepted,
    begun,
    finished,
    memory,
    numbers,
    opened,
    saved,
    states_in,
)


def test_a_manager_that_was_replaced_stops_and_writes_nothing(states: StateStore, store: ObjectStore) -> None:
    first = begun(states)
    first.component_started("core_clip")
    second = opened(states, "worker-2")
    before = {info.key: store.get(info.key) for info in store.list(FOLDER)}
    attempts = (
        lambda: first.component_started("segmenter"),
        lambda: first.component_progress("core_clip", 1, 2),
        lambda: first.component_finished("core_clip", "success", []),
        lambda: first.warning("av_drift"),
        lambda: first.fail(SLOW),
        lambda: first.checkpoint(),
        lambda: first.close(),
    )
    for attempt in attempts:
        with pytest.raises(Fenced) as caught:
            attempt()
        assert caught.value.error_code == "cancelled"
    assert {info.key: store.get(info.key) for info in store.list(FOLDER)} == before
    finished(second, "segmenter")
    assert saved(store, "state_segmenter")["epoch"] == 2


def test_a_checkpoint_of_a_later_manager_is_not_overwritten(states: StateStore, store: ObjectStore) -> None:
    first = begun(states)
    first.component_started("core_clip")
    opened(states, "worker-2").close()
    with pytest.raises(Fenced):
        # Without having read the log since: the file alone tells.
        first._files["visual"].checkpoint()
    assert saved(store, "state_visual")["epoch"] == 2


def test_a_file_never_goes_back(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    older = manager._view.documents["visual"]
    manager.component_started("core_clip")
    manager.close()
    newer = saved(store, "state_visual")
    states.run_log(PATH).checkpoints.write("visual", older)
    assert saved(store, "state_visual") == newer
    store.put(f"{FOLDER}/state_visual.json", b"{")
    states.run_log(PATH).checkpoints.write("visual", older)
    assert saved(store, "state_visual") == older


def test_opening_can_be_tied_to_the_status(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    before = numbers(store)
    assert RunManager.open(states, PATH, holder="sensor", only_if={"pending", "queued"}) is None
    assert numbers(store) == before
    manager.component_started("segmenter")
    assert RunManager.open(states, PATH, holder="sensor", only_if={"running"}) is not None


def test_a_run_without_state_cannot_be_opened(states: StateStore) -> None:
    with pytest.raises(TrendFlowError) as caught:
        opened(states)
    assert caught.value.error_code == "dependency_missing"
    assert states.read_run(PATH) is None


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["open", "start", "progress", "finish"])), max_size=14))
def test_any_interleaving_of_two_managers_keeps_one_truth(turns: list[tuple[int, str]]) -> None:
    """Only the one that opened last can write; what it says is exactly what the log says."""
    clock = FixedClock()
    states = states_in(memory(), clock)
    begun(states)
    managers: list[RunManager | None] = [None, None]
    holder: int | None = None
    for turn, (who, what) in enumerate(turns):
        clock.seconds += 3
        if what == "open":
            managers[who], holder = opened(states, f"worker-{turn}"), who
            continue
        manager = managers[who]
        if manager is None:
            continue
        before = len(states.events(PATH))
        try:
            if what == "start":
                manager.component_started("core_clip")
            elif what == "progress":
                manager.component_progress("core_clip", turn, 20)
            else:
                manager.component_finished("core_clip", "success", [])
        except Fenced:
            assert who != holder
            assert len(states.events(PATH)) == before
        except IllegalTransition:
            assert len(states.events(PATH)) == before
        else:
            if len(states.events(PATH)) > before:
                assert who == holder
    events = states.events(PATH)
    by_manager: dict[str, int] = {}
    for event in events:
        assert event.epoch >= by_manager.get(event.manager, 0)
        by_manager[event.manager] = event.epoch
    assert states.read_run(PATH) == view_of(replay_run(no_run(), events))
    if holder is not None:
        current = managers[holder]
        assert current is not None
        assert current.view == states.read_run(PATH)


class Interrupting(BreakingStore):
    """Before its write number `at` something else happens."""

    def __init__(self, store: ObjectStore, at: int, happens: Callable[[], object]) -> None:
        super().__init__(store, -1, Crash(), before=True)
        self._when, self._happens = at, happens

    def put_if_absent(self, key: str, data: Any) -> bool:
        if self.writes == self._when:
            self._happens()
        return super().put_if_absent(key, data)


@pytest.mark.parametrize("at", range(4))
def test_of_two_that_open_a_run_at_once_one_gets_all_of_it(at: int) -> None:
    store = memory()
    accepted(states_in(store))
    others: list[RunManager] = []
    interrupted = states_in(Interrupting(store, at, lambda: others.append(opened(states_in(store), "worker-2"))))
    if at == 0:  # the other one was faster, so this one replaces it
        winner = opened(interrupted)
    else:
        with pytest.raises(Fenced):
            opened(interrupted)
        winner = others[0]
    winner.begin(worker="worker-1", device=None, resolved_models={})
    for name in COMPONENTS:
        finished(winner, name)
    winner.succeed()
    assert len(others) == 1
    if at == 0:
        with pytest.raises(Fenced):
            others[0].warning("av_drift")


def test_a_manager_that_follows_learns_that_it_was_replaced(states: StateStore) -> None:
    manager = begun(states)
    manager.follow()
    assert RunManager.open(states, PATH, holder="worker-2") is not None
    with pytest.raises(Fenced):
        manager.follow()
