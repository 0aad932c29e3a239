"""The log on its own: gaps, damage at its end and before it, the export, and folding."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import Fenced, IllegalTransition
from trendflow.state.events import EventCodec
from trendflow.state.journal import parse_export
from trendflow.state.replay import no_run, replay_run
from trendflow.state.retention import fold_run
from trendflow.state.store import StateStore, view_of
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import (
    COMPONENTS,
    FOLDER,
    IDENTITY,
    PATH,
    PLAN,
    SCHEMAS,
    BreakingStore,
    Crash,
    accepted,
    begun,
    finished,
    numbers,
    opened,
    states_in,
    texts,
)

EXPORT = f"{FOLDER}/state_events.jsonl"
CODEC = EventCodec(SCHEMAS)


def key(seq: int) -> str:
    return f"{FOLDER}/events/{seq:012d}.json"


def ended(states: StateStore) -> None:
    manager = begun(states)
    for name in COMPONENTS:
        finished(manager, name)
    manager.succeed()


def without_files(store: ObjectStore) -> None:
    """Remove all checkpoints: only the log is left."""
    for info in list(store.list(FOLDER)):
        if "state" in info.key.rpartition("/")[2] and info.key != EXPORT:
            store.delete(info.key)


def test_events_are_numbered_objects_of_canonical_json(states: StateStore, store: ObjectStore) -> None:
    begun(states)
    assert numbers(store) == list(range(1, len(numbers(store)) + 1))
    for seq in numbers(store):
        data = store.get(key(seq))
        document = json.loads(data)
        assert document["seq"] == seq
        assert data == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        assert not list(SCHEMAS.document_validator("state_event_v1").iter_errors(document))
    assert texts(states.events(PATH))[:2] == ["manager_started run", f"run_status {PATH} pending"]


def test_a_torn_last_event_counts_as_absent_at_every_byte(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.component_started("segmenter")
    last = max(numbers(store))
    whole = states.events(PATH)
    before = view_of(replay_run(no_run(), whole[:-1]))
    data = store.get(key(last))
    for cut in range(len(data)):
        store.put(key(last), data[:cut])
        assert states.read_run(PATH) == before
    store.put(key(last), data)
    assert states.read_run(PATH) == view_of(replay_run(no_run(), whole)) != before


@pytest.mark.parametrize("torn", [1, 2])
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_the_next_manager_voids_what_is_torn(states: StateStore, store: ObjectStore, cut: int, torn: int) -> None:
    begun(states)
    last = max(numbers(store))
    for seq in range(last - torn + 1, last + 1):
        store.put(key(seq), store.get(key(seq))[:cut])
    manager = opened(states, "worker-2")
    events = states.events(PATH)
    first_new = next(event for event in events if event.seq == last + 1)
    assert (first_new.type, first_new.data["void"]) == ("recovered", list(range(last - torn + 1, last + 1)))
    assert [event.seq for event in events] == [*range(1, last - torn + 1), *range(last + 1, max(numbers(store)) + 1)]
    manager.close()
    assert states.read_run(PATH) == manager.view == view_of(replay_run(no_run(), events))


def test_a_file_that_leads_the_log_is_not_believed(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.component_started("core_clip")
    manager.component_started("cut_detection")
    manager.close()
    store.put(key(max(numbers(store))), b"")
    before = states.read_run(PATH)
    assert before is not None
    assert before.components["cut_detection"]["status"] == "waiting"
    # Nor after the log went on: the number that the files end with is void now.
    opened(states, "worker-2")
    after = states.read_run(PATH)
    assert after is not None
    assert after.components["cut_detection"]["status"] == "waiting"


def test_a_manager_that_lives_takes_notice_of_what_is_voided(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.component_started("core_clip")
    manager.component_started("cut_detection")
    store.put(key(max(numbers(store))), b"")
    states.request_cancel(PATH)
    manager.follow()
    assert manager.view.components["cut_detection"]["status"] == "waiting"
    assert manager.cancel_requested


@pytest.mark.parametrize("harm", [lambda store, at: store.put(at, b"{"), lambda store, at: store.delete(at)])
def test_damage_before_a_readable_event_is_an_error(
    states: StateStore, store: ObjectStore, harm: Callable[[ObjectStore, str], object]
) -> None:
    begun(states)
    without_files(store)
    harm(store, key(3))
    for read in (lambda: states.read_run(PATH), lambda: opened(states), lambda: states.events(PATH)):
        with pytest.raises(TrendFlowError) as caught:
            read()
        assert caught.value.error_code == "artifact_validation_failed"


def test_an_event_under_a_wrong_number_cannot_be_read(states: StateStore, store: ObjectStore) -> None:
    begun(states)
    last = max(numbers(store))
    store.put(key(last + 1), store.get(key(last)))
    assert states.events(PATH)[-1].seq == last


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"schema_version":"run_state_v1"}'])
def test_a_damaged_file_is_passed_over(states: StateStore, store: ObjectStore, damage: bytes) -> None:
    manager = begun(states)
    manager.close()
    for name in ("run_state", "state_visual"):
        store.put(f"{FOLDER}/{name}.json", damage)
        assert states.read_run(PATH) == manager.view
    opened(states).close()
    assert json.loads(store.get(f"{FOLDER}/run_state.json"))["last_seq"] == max(numbers(store))


def test_a_file_of_another_run_is_passed_over(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.close()
    other = {**json.loads(store.get(f"{FOLDER}/run_state.json")), "status": "queued"}
    other["run"] = {**other["run"], "run_id": "run-2"}
    store.put(f"{FOLDER}/run_state.json", json.dumps(other).encode())
    assert states.read_run(PATH) == manager.view


def test_the_export_holds_the_log_and_drops_a_torn_last_line(states: StateStore, store: ObjectStore) -> None:
    ended(states)
    events = states.events(PATH)
    data = store.get(EXPORT)
    assert parse_export(data, CODEC) == events
    *_, before, last, _ = data.split(b"\n")
    for cut in range(len(last)):
        assert parse_export(before + b"\n" + last[:cut], CODEC) == events[-2:-1]
    assert parse_export(before + b"\n" + last, CODEC) == events[-2:]
    with pytest.raises(TrendFlowError, match="no event"):
        parse_export(before[:-1] + b"\n" + last, CODEC)


def test_a_folded_run_reads_as_before_and_can_go_on(states: StateStore, store: ObjectStore) -> None:
    ended(states)
    view, events = states.read_run(PATH), states.events(PATH)
    assert fold_run(states, PATH, holder="upkeep") == len(events)
    assert numbers(store) == []
    assert (states.read_run(PATH), states.events(PATH)) == (view, events)
    assert states.events(PATH, after=events[-3].seq) == events[-2:]
    without_files(store)
    assert states.read_run(PATH) == view
    manager = opened(states, "worker-2")
    assert min(numbers(store)) == events[-1].seq + 1
    manager.begin(worker="worker-2", device=None, resolved_models={})
    manager.succeed()
    assert states.events(PATH)[: len(events)] == events
    assert [event.seq for event in states.events(PATH)] == list(range(1, max(numbers(store)) + 1))
    assert parse_export(store.get(EXPORT), CODEC) == states.events(PATH)


def test_a_number_that_was_voided_is_absent_from_the_export_too(states: StateStore, store: ObjectStore) -> None:
    begun(states)
    torn = max(numbers(store))
    store.put(key(torn), b"{")
    opened(states, "worker-2").cancel()
    events, view = states.events(PATH), states.read_run(PATH)
    assert torn not in [event.seq for event in events]
    fold_run(states, PATH, holder="upkeep")
    assert numbers(store) == []
    without_files(store)
    assert (states.events(PATH), states.read_run(PATH)) == (events, view)


def test_a_run_that_lives_is_not_folded(states: StateStore, store: ObjectStore) -> None:
    begun(states)
    before = numbers(store)
    assert fold_run(states, PATH, holder="upkeep") == 0
    assert numbers(store) == before


def test_files_that_lag_are_brought_up_before_folding(states: StateStore, store: ObjectStore) -> None:
    ended(states)
    without_files(store)
    assert fold_run(states, PATH, holder="upkeep") > 0
    assert numbers(store) == []
    assert json.loads(store.get(f"{FOLDER}/run_state.json"))["last_seq"] == states.events(PATH)[-1].seq


def test_a_fold_may_stop_anywhere(store: ObjectStore) -> None:
    states = states_in(store)
    ended(states)
    view, events = states.read_run(PATH), states.events(PATH)
    for left in range(len(events) - 1, 0, -1):
        with pytest.raises(Crash):  # after the export and one removal
            fold_run(states_in(BreakingStore(store, 2, Crash(), before=True)), PATH, holder="upkeep")
        assert len(numbers(store)) == left
        if left % 6 == 1:
            assert (states.read_run(PATH), states.events(PATH)) == (view, events)
    assert fold_run(states, PATH, holder="upkeep") == 1


def test_an_event_of_a_writer_from_before_the_fold_is_not_part_of_the_log(
    states: StateStore, store: ObjectStore
) -> None:
    ended(states)
    events = states.events(PATH)
    late = store.get(key(5))
    fold_run(states, PATH, holder="upkeep")
    store.put(key(5), late.replace(events[4].event_id.encode(), b"0" * 32))
    assert states.events(PATH) == events
    view = states.read_run(PATH)
    assert view is not None
    assert view.run["status"] == "success"


def test_a_run_exists_once(states: StateStore) -> None:
    accepted(states)
    with pytest.raises(IllegalTransition):
        accepted(states)


def test_nothing_outside_the_contract_is_written(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    before = numbers(store)
    for bad in (
        lambda: manager.warning("odd"),
        lambda: manager.flag("picture_ready", by="segmenter"),
        lambda: manager.oom_reduced("core_clip", 1, 1),
        lambda: manager.costs_recorded(0),
    ):
        with pytest.raises(TrendFlowError) as caught:
            bad()
        assert caught.value.error_code == "artifact_validation_failed"
    with pytest.raises(TrendFlowError, match="not a component"):
        manager.component_started("tempo_extractor")
    assert numbers(store) == before
    assert len(PLAN) == len(states.read_run(PATH).components)
    assert IDENTITY.as_dict() == manager.view.run["run"]


def test_a_writer_that_was_away_while_its_run_was_folded_notices_it(states: StateStore, store: ObjectStore) -> None:
    away = begun(states)
    asker = states_in(store)
    manager = opened(states, "worker-2")
    manager.cancel()
    events = states.events(PATH)
    fold_run(states, PATH, holder="upkeep")
    for attempt in (lambda: away.component_started("segmenter"), away.follow):
        with pytest.raises(Fenced):
            attempt()
    assert not asker.request_cancel(PATH)
    assert (states.events(PATH), numbers(store)) == (events, [])


def test_a_writer_whose_run_was_removed_does_not_bring_it_back(states: StateStore, store: ObjectStore) -> None:
    away = begun(states)
    store.delete_prefix(FOLDER)
    with pytest.raises(Fenced):
        away.component_started("segmenter")
    assert list(store.list(FOLDER)) == []
    assert states.read_run(PATH) is None
