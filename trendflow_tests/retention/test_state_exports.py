"""The exports of a run's state are removed with the state they were made of: by their age, and with the video."""

from __future__ import annotations

from datetime import timedelta

import pytest

from trendflow.retention.collect import GarbageCollector
from trendflow.retention.erasure import Eraser
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.retention.known import SECRET, contents
from trendflow_tests.retention.stored import all_keys, make_run, now, stamp
from trendflow_tests.state.runs import FOLDER, IDENTITY, SCHEMAS, begun, finished, states_in

EXPORTS = {f"{FOLDER}/state_events.jsonl", f"{FOLDER}/scheduler_runtime_report.json"}


@pytest.fixture
def store() -> ObjectStore:
    """A run that ended, with its artifacts and its state."""
    made = ObjectStore.open("memory://")
    assert make_run(made, IDENTITY.run_id, video_id=IDENTITY.video_id, ended=now()).run_path == IDENTITY.run_path
    manager = begun(states_in(made))
    for name in manager.view.components:
        finished(manager, name)
    manager.succeed()
    assert all_keys(made) >= EXPORTS
    return made


def test_they_are_removed_by_their_age(store: ObjectStore) -> None:
    for days, left in ((6, EXPORTS), (8, set())):
        collector = GarbageCollector(store, now=stamp(now() + timedelta(days=days)))
        collector.collect(collector.plan())
        assert all_keys(store) & EXPORTS == left
    assert ResultStore(store).read_manifest(IDENTITY.run_path) is not None, "the run itself stays"
    assert [key for key in all_keys(store) if key.startswith(FOLDER)] == [f"{FOLDER}/run_request.json"]


def test_they_are_removed_with_the_video(store: ObjectStore) -> None:
    video = IDENTITY.video_id.encode()
    assert {key for key, data in contents(store).items() if video in data} >= EXPORTS
    Eraser(store, SCHEMAS, SECRET).erase(IDENTITY.platform_id, IDENTITY.video_id)
    assert [key for key, data in contents(store).items() if video in data or video in key.encode()] == []
