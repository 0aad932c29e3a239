"""Whatever is done to a run: the states are those of a naive model, and every way to read the log gives the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.schema import validate_document
from trendflow.state.documents import Documents
from trendflow.state.errors import IllegalTransition
from trendflow.state.events import Event
from trendflow.state.replay import apply_to_run, no_run, replay_run
from trendflow.state.run_manager import RunManager
from trendflow.state.status import overall_progress, status_document
from trendflow.state.store import view_of
from trendflow_tests.state import naive
from trendflow_tests.state.runs import (
    COMPONENTS,
    PATH,
    PLAN,
    SCHEMAS,
    SLOW,
    FixedClock,
    accepted,
    begun,
    finished,
    memory,
    opened,
    states_in,
)

Act = Callable[[RunManager, naive.NaiveRun], None]


def both(real: Callable[[RunManager], Any], model: Callable[[naive.NaiveRun], Any]) -> Act:
    """Do the same to both; they agree on whether it may be done."""

    def act(manager: RunManager, run: naive.NaiveRun) -> None:
        try:
            model(run)
            refused = False
        except naive.Refused:
            refused = True
        try:
            real(manager)
        except IllegalTransition:
            assert refused
        else:
            assert not refused

    return act


def paths(name: str) -> list[str]:
    return [f"{name}/{name}.npz"]


def acts_on(name: str) -> list[tuple[str, Act]]:
    return [
        (f"start {name}", both(lambda m: m.component_started(name), lambda n: n.started(name))),
        (f"progress {name}", both(lambda m: m.component_progress(name, 1, 3), lambda n: None)),
        (f"more progress {name}", both(lambda m: m.component_progress(name, 2, 3), lambda n: None)),
        (f"retry {name}", both(lambda m: m.retry_scheduled(name, "timeout", 1.0), lambda n: n.retried(name))),
        (f"fail {name}", both(lambda m: m.component_failed(name, SLOW, paths(name)), lambda n: n.failed(name))),
        (f"skip {name}", both(lambda m: m.component_skipped(name, "no input"), lambda n: n.skipped(name))),
        *(
            (
                f"finish {name} {status} {hit}",
                both(
                    lambda m, s=status, h=hit: m.component_finished(name, s, paths(name), cache_hit=h),
                    lambda n, s=status, h=hit: n.finished(name, s, h),
                ),
            )
            for status in ("success", "empty")
            for hit in (False, True)
        ),
    ]


BEGIN = {"worker": "worker-1", "device": "cuda:0", "resolved_models": {"image_encoder": {"entry": "net@1"}}}
RUN_ACTS: list[tuple[str, Act]] = [
    ("queue", both(lambda m: m.queued(), lambda n: n.queued())),
    ("begin", both(lambda m: m.begin(**BEGIN), lambda n: n.begin())),
    ("succeed", both(lambda m: m.succeed(), lambda n: n.succeed())),
    ("fail", both(lambda m: m.fail(SLOW), lambda n: n.end_badly("error"))),
    ("cancel", both(lambda m: m.cancel(), lambda n: n.end_badly("cancelled"))),
    ("flag", both(lambda m: m.flag("frames_ready", by="segmenter"), lambda n: None)),
    ("warn", both(lambda m: m.warning("av_drift"), lambda n: None)),
]
COMPONENT_ACTS = [act for name in COMPONENTS for act in acts_on(name)]
# Most acts on components mean something only while the run is running, so it mostly begins.
histories = st.lists(
    st.one_of(
        st.sampled_from(COMPONENT_ACTS),
        st.sampled_from(COMPONENT_ACTS),
        st.sampled_from(COMPONENT_ACTS),
        st.sampled_from(RUN_ACTS),
    ),
    max_size=25,
)


def plain(documents: Documents) -> Any:
    """As stored and read back; documents of processors that the run lacks are never stored."""
    kept = {name: value for name, value in documents.items() if name == "run" or value["components"]}
    return json.loads(canonical_json(kept))


@settings(max_examples=40)
@given(histories, st.booleans(), st.data())
def test_states_are_those_of_the_model_and_replay_agrees(history: Any, running: bool, data: st.DataObject) -> None:
    clock = FixedClock()
    states = states_in(memory(), clock)
    manager, model = accepted(states), naive.NaiveRun({planned.name: planned.required for planned in PLAN})
    for name, act in ([("begin", RUN_ACTS[1][1])] if running else []) + history:
        clock.seconds += data.draw(st.sampled_from((0.1, 3.0)), label="seconds")
        if data.draw(st.integers(0, 9), label="takeover") == 0:
            manager = opened(states)
        act(manager, model)
        view = manager.view
        assert (name, view.run["status"], view.run["attempt"]) == (name, model.run, model.attempt)
        assert {key: row["status"] for key, row in view.components.items()} == model.state
        for processor, document in view.processors.items():
            rows = [(row["status"], row["required"]) for row in document["components"].values()]
            assert document["processor"]["status"] == naive.processor(rows)
            assert view.run["processors"][processor]["status"] == naive.processor(rows)
        assert view.run["progress"]["done"] == sum(state in naive.ENDS for state in model.state.values())
    check_replay(states.events(PATH), plain(manager._view.documents), data)
    manager.close()
    assert states.read_run(PATH) == manager.view


def check_replay(events: list[Event], expected: Any, data: st.DataObject) -> None:
    """From nothing, and from files that each lag behind by as much as they like."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    steps = [no_run()]
    for event in events:
        steps.append(apply_to_run(steps[-1], event))
    assert plain(steps[-1]) == expected
    check_documents(steps)
    accepted_at = next(number for number, step in enumerate(steps) if step["run"]["status"] is not None)
    positions = st.integers(accepted_at, len(events))
    files = {
        name: plain({name: steps[data.draw(positions, label=name)][name]})[name]
        for name in ("run", "segmenter", "visual", "audio")
    }
    oldest = min(document["last_seq"] for document in files.values())
    assert plain(replay_run(files, [event for event in events if event.seq >= oldest])) == expected


def check_documents(steps: list[Documents]) -> None:
    """Every state in between is a valid file, and progress falls only while the run recovers."""
    last = 0.0
    for step in steps[-1:] + steps[:: max(len(steps) // 5, 1)]:
        view = view_of(step)
        if view is not None:
            assert validate_document(SCHEMAS, "run_state_v1", view.run) == []
            assert validate_document(SCHEMAS, "run_status_v1", status_document(view)) == []
            for document in view.processors.values():
                assert validate_document(SCHEMAS, "state_processor_v1", document) == []
    for step in steps:
        view = view_of(step)
        if view is not None:
            progress = overall_progress(view)
            assert progress >= last or view.run["status"] == "recovering"
            last = progress


def one_long_log() -> list[Event]:
    clock = FixedClock()
    states = states_in(memory(), clock)
    manager = begun(states)
    for name in COMPONENTS:
        manager.component_started(name)
        manager.component_progress(name, 1, 2)
        manager.oom_reduced(name, 8, 4)
        manager.retry_scheduled(name, "out_of_memory", 2.0)
    manager = opened(states, "worker-2")
    manager.begin(**BEGIN)
    for name in COMPONENTS:
        finished(manager, name)
    states.request_cancel(PATH)
    manager.succeed()
    return states.events(PATH)


LOG = one_long_log()


@settings(max_examples=60)
@given(st.lists(st.sampled_from(LOG), max_size=60), st.data())
def test_any_log_can_be_replayed(events: list[Event], data: st.DataObject) -> None:
    """Events in an order that no manager ever wrote: what may not be is ignored, and nothing raises."""
    documents = no_run()
    for seq, event in enumerate(events, start=1):
        epoch = data.draw(st.integers(1, 2))
        documents = apply_to_run(documents, Event(**{**vars(event), "seq": seq, "epoch": epoch}))
    view = view_of(documents)
    if view is not None:
        assert validate_document(SCHEMAS, "run_state_v1", view.run) == []
        for document in view.processors.values():
            assert validate_document(SCHEMAS, "state_processor_v1", document) == []


@pytest.mark.parametrize("epoch", [1, 3])
def test_events_outside_the_epoch_in_force_are_ignored(epoch: int) -> None:
    """A manager of epoch 1 was replaced, one of epoch 3 never started; the log is that of epoch 2."""
    started = next(event for event in LOG if event.type == "component_status" and event.epoch == 2)
    upto = LOG[: started.seq - 1]
    before = replay_run(no_run(), upto)
    assert replay_run(before, [started]) != before
    stray = replay_run(before, [dataclasses.replace(started, epoch=epoch)])
    assert {name: {**document, "last_seq": started.seq} for name, document in before.items()} == stray
    # What that number might have said is not taken up later either.
    assert replay_run(stray, [started]) == stray


def test_an_event_that_a_document_holds_changes_nothing() -> None:
    documents = replay_run(no_run(), LOG)
    assert replay_run(documents, LOG) == documents
