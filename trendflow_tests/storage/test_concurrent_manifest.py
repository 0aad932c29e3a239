"""Eight processes, one manifest, fifty updates each: nothing may be lost."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext

from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.storage import child_work
from trendflow_tests.storage.conftest import SharedStore
from trendflow_tests.storage.runs import first_manifest, make_identity

WRITERS, UPDATES = 8, 50


def test_concurrent_writers_lose_nothing(shared_store: SharedStore, processes: ForkServerContext) -> None:
    url, options = shared_store
    identity = make_identity()
    results = ResultStore(ObjectStore.open(url, options))
    results.create_manifest(first_manifest(identity))
    children = [
        processes.Process(target=child_work.update_many_times, args=(url, options, identity.run_path, writer, UPDATES))
        for writer in range(WRITERS)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * WRITERS
    manifest = results.read_manifest(identity.run_path)
    assert manifest is not None
    names = [entry["name"] for entry in manifest["run"]["skipped"]]
    assert sorted(names) == sorted(
        f"writer_{writer}_{number}" for writer in range(WRITERS) for number in range(UPDATES)
    )
