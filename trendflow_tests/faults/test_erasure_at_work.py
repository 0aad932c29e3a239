"""A video is deleted while its run waits in the queue, and while a worker executes it, which is held at the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from dagster import DagsterRunStatus

from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.retention_step import open_eraser
from trendflow.orchestration.runs import RunContext
from trendflow_tests.faults.house import Client
from trendflow_tests.faults.runs import assert_whole
from trendflow_tests.faults.search import Needles, in_broker, in_database, in_files, in_store
from trendflow_tests.orchestration.queue.stage import PATIENCE_S, wait_for
from trendflow_tests.s3_proxy import Fault, Request

pytestmark = pytest.mark.xdist_group("faults")


class Hold:
    """Holds the worker when it is about to store a result, until `release`."""

    def __init__(self) -> None:
        self._there, self._go = threading.Event(), threading.Event()

    def decide(self, request: Request) -> Fault | None:
        if request.method == "PUT" and "/tempo_extractor/" in request.path and not self._there.is_set():
            self._there.set()
            self._go.wait(PATIENCE_S)
        return None

    def wait(self) -> None:
        """Return when the worker is held."""
        assert self._there.wait(PATIENCE_S), "waited in vain for the worker"

    def release(self) -> None:
        self._go.set()


@contextmanager
def holding(client: Client) -> Iterator[Hold]:
    """The next run that is launched is held inside the block."""
    hold = Hold()
    client.house.proxy.decide = hold.decide
    try:
        yield hold
    finally:
        hold.release()


def left(client: Client, needles: Needles) -> dict[str, dict[str, set[str]]]:
    """Where something of it still stands, but for what it cost."""
    settings, site = client.house.environment, client.house.servers.site
    servers = [site.service_folder(name) for name in ("seaweedfs", "postgresql", "valkey")]
    found = {
        "store": in_store(client.deployment.store, needles),
        "database": in_database(settings["TRENDFLOW_DATABASE_URL"], needles),
        "broker": in_broker(settings["TRENDFLOW_BROKER_URL"], needles),
        "files": in_files(Path(settings["TRENDFLOW_HOME"]), needles, servers),
    }
    found["store"] = {key: kinds for key, kinds in found["store"].items() if not key.startswith("costs/")}
    return {place: kinds for place, kinds in found.items() if kinds}


def needles_of(run: RunContext, launched: str) -> Needles:
    return {"video": [run.identity.video_id], "run": [run.identity.run_id], "dagster run": [launched]}


def receipts(client: Client) -> set[str]:
    return {info.key for info in client.deployment.store.list("receipts")}


def takes_the_next(client: Client, clip: Path) -> None:
    """The worker lives, and finishes a run as if nothing had been."""
    run = client.submit(clip)
    assert client.ends(client.launch(run)) == DagsterRunStatus.SUCCESS
    assert_whole(run)


def test_while_its_run_waits_in_the_queue(client: Client, clip: Path) -> None:
    def never(seconds: float) -> None:
        raise AssertionError("there is nothing to wait for")

    before, gone = receipts(client), f"film-{uuid4()}"
    with holding(client) as hold:
        busy = client.submit(clip)
        first = client.launch(busy)
        hold.wait()
        waiting = client.submit(clip, gone)
        second = client.launch(waiting)
        assert client.status(second) == DagsterRunStatus.STARTING
        needles = needles_of(waiting, second)
        receipt = open_eraser(client.deployment, client.instance, never).erase("upload", gone)
        assert receipts(client) - before == {f"receipts/{receipt['tombstone_id']}.json"}
        assert client.instance.get_run_by_id(second) is None
        # Its message waits for a worker, and names the run that Dagster does not know any more.
        found = left(client, needles)
        assert set(found) == {"broker"}
        assert set.union(*found["broker"].values()) == {"dagster run"}
        hold.release()
        assert client.ends(first) == DagsterRunStatus.SUCCESS
    wait_for(lambda: not client.board.is_expected(second), "the message")
    wait_for(lambda: not client.board.unacknowledged(), "the acknowledgement")
    assert left(client, needles) == {}
    assert_whole(busy)
    takes_the_next(client, clip)


def test_while_a_worker_executes_its_run(client: Client, clip: Path) -> None:
    before, gone, looks = receipts(client), f"film-{uuid4()}", list[DagsterRunStatus]()
    with holding(client) as hold:
        run = client.submit(clip, gone)
        launched = client.launch(run)
        hold.wait()
        needles = needles_of(run, launched)

        def wait(seconds: float) -> None:
            """The first time the worker is still at work; then it may go on, and notices."""
            looks.append(client.status(launched))
            assert receipts(client) == before
            assert run.deployment.states.read_run(run.run_path) is not None
            hold.release()
            wait_for(lambda: client.instance.get_run_by_id(launched).is_finished, "the end of the run")  # type: ignore[union-attr]
            wait_for(lambda: launched not in client.board.running(), "the release of the run")

        receipt = open_eraser(client.deployment, client.instance, wait).erase("upload", gone)
    assert looks == [DagsterRunStatus.CANCELING]
    assert receipt["live_runs"] == 1
    assert receipts(client) - before == {f"receipts/{receipt['tombstone_id']}.json"}
    assert client.instance.get_run_by_id(launched) is None
    assert not [key for key in client.instance.get_dynamic_partitions(VIDEO_RUNS) if key.startswith(gone)]
    wait_for(lambda: not client.board.unacknowledged(), "the acknowledgement")
    assert left(client, needles) == {}
    takes_the_next(client, clip)
