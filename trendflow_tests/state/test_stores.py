"""A whole run, with a change of workers in the middle, on the stores of a real deployment."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from trendflow.state.errors import Fenced
from trendflow.state.retention import fold_run
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import COMPONENTS, PATH, begun, finished, numbers, opened, states_in


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "file":
        return ObjectStore.open(tmp_path.as_uri())
    url = request.getfixturevalue("s3_store_url")
    return ObjectStore.open(f"{url}/{uuid.uuid4().hex}", request.getfixturevalue("s3_options"))


def test_a_run_with_a_change_of_workers(store: ObjectStore) -> None:
    states = states_in(store)
    first = begun(states)
    finished(first, "segmenter")
    first.component_started("core_clip")
    second = opened(states, "worker-2")
    with pytest.raises(Fenced):
        first.component_finished("core_clip", "success", [])
    second.begin(worker="worker-2", device=None, resolved_models={})
    for name in COMPONENTS[1:]:
        finished(second, name)
    assert states.request_cancel(PATH)
    second.succeed()
    view, events = states.read_run(PATH), states.events(PATH)
    assert view == second.view
    assert [event.seq for event in events] == numbers(store)
    fold_run(states, PATH, holder="upkeep")
    assert numbers(store) == []
    assert (states.read_run(PATH), states.events(PATH)) == (view, events)
