"""Many writers, one log: every number goes to one event, and every event gets a number."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state import child_work
from trendflow_tests.state.runs import PATH, memory, numbers, states_in

WRITERS = ("segmenter", "visual", "audio", "text")
EVENTS = 15


def check(store: ObjectStore, writers: tuple[str, ...], count: int) -> None:
    total = len(writers) * count
    assert numbers(store) == list(range(1, total + 1))
    events = states_in(store).events(PATH)
    assert len({event.event_id for event in events}) == total
    for writer in writers:
        mine = [event for event in events if event.manager == writer]
        assert [(event.subject, event.data["done"]) for event in mine] == [(writer, n) for n in range(count)]


def race_in_threads(store: ObjectStore, writers: tuple[str, ...], count: int) -> None:
    with ThreadPoolExecutor(len(writers)) as pool:
        list(pool.map(lambda writer: child_work.append_many(store, writer, count), writers))


def test_threads_on_memory() -> None:
    store = memory()
    race_in_threads(store, WRITERS, EVENTS)
    check(store, WRITERS, EVENTS)


def test_threads_on_s3(s3_store_url: str, s3_options: dict[str, str]) -> None:
    store = ObjectStore.open(f"{s3_store_url}/{uuid.uuid4().hex}", s3_options)
    race_in_threads(store, WRITERS, EVENTS)
    check(store, WRITERS, EVENTS)


def test_processes_on_a_folder(tmp_path: Path, processes: ForkServerContext) -> None:
    url, writers = tmp_path.as_uri(), WRITERS[:2]
    children = [
        processes.Process(target=child_work.append_many_to, args=(url, {}, writer, EVENTS)) for writer in writers
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    check(ObjectStore.open(url), writers, EVENTS)
