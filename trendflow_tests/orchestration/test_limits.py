"""Limits: how long work may take, and how often it is tried when the store or the network fails."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import update_run
from trendflow.orchestration import limits, resources, segmenter_step
from trendflow.orchestration.deadline import OutOfTime, run_within
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.limits import RunClock, run_limit_s, time_limit
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import run_component, run_status
from trendflow.storage import local_backend
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.retry import ContentionPolicy, RetryPolicy, is_exhausted
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Execute, Here, Submit, statuses

AT_ONCE = RetryPolicy(waits=(0.0, 0.0, 0.0))
TRIES = 4  # the first one and three more


def spin(seconds: float) -> None:
    """Work that reports nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


PATIENCE_S = 300.0


def spin_on(stop: Callable[[], bool] = lambda: False) -> None:
    """Work that never ends by itself, within the patience of a test."""
    end = time.monotonic() + PATIENCE_S
    while not stop():
        if time.monotonic() > end:
            raise AssertionError("nothing stopped this work")


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_work_in_time_gives_its_result_or_its_own_error() -> None:
    assert run_within(30, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run_within(30, lambda: 1 / 0)


def stubborn() -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(Exception):  # as careless library code does; what stops it must not be an Exception
            spin_on()


@pytest.mark.parametrize("work", [spin_on, stubborn])
def test_work_that_never_reports_is_stopped(work: Callable[[], None]) -> None:
    started = time.monotonic()
    with pytest.raises(OutOfTime):
        run_within(0.05, work)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_work_that_swallows_the_first_attempt_to_stop_it_is_stopped_by_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trendflow.orchestration.deadline._REPEAT_S", 0.05)
    swallowed: list[BaseException] = []

    def swallow_once() -> None:
        try:
            spin_on()
        except BaseException as exc:
            swallowed.append(exc)
        spin_on()

    with pytest.raises(OutOfTime):
        run_within(0.5, swallow_once)
    assert len(swallowed) == 1


def test_a_result_that_came_too_late_does_not_count() -> None:
    def late() -> int:
        try:
            spin_on()
        except BaseException:
            return 7
        return 0

    with pytest.raises(OutOfTime):
        run_within(0.5, late)


def test_it_holds_in_any_thread_and_leaves_the_others_alone() -> None:
    outcome: list[str] = []
    stopped = threading.Event()

    def other() -> None:
        try:
            run_within(0.05, spin_on)
        except OutOfTime:
            outcome.append("stopped")
        stopped.set()

    thread = threading.Thread(target=other)
    thread.start()
    spin_on(stopped.is_set)
    thread.join()
    assert outcome == ["stopped"]


def test_nothing_is_raised_once_the_work_is_over() -> None:
    """Work that ends just when its time is up: either outcome is right, an exception in what follows never is."""
    outcomes = set()
    for number in range(400):
        try:
            run_within(0.002, partial(spin, 0.002 * number / 200))
            outcomes.add("done")
        except OutOfTime:
            outcomes.add("stopped")
        spin(0.0002)
    spin(0.05)
    assert outcomes == {"done", "stopped"}


# --- limits of components and runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "limit"), [(None, 7200), (0.0, 7200), (1200.0, 7200), (1200.5, 7203), (1800.0, 10800)]
)
def test_a_run_may_take_two_hours_or_six_times_its_video(duration: float | None, limit: float) -> None:
    assert run_limit_s(duration) == limit


def test_a_component_that_never_reports_ends_in_a_timeout_after_its_tries(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    calls: list[int] = []

    def endless(inputs: ComponentInputs) -> Artifact:
        calls.append(1)
        spin_on()
        return value(0.0)

    add_probe(deployment, endless, timeout_s=1.0)  # enough to be called in, however busy the machine is
    run = submit(deployment, clip)
    found = execute(run)[NAME]
    assert (found.meta["error_code"], found.meta["error"]) == ("timeout", "probe took longer than 1 s.")
    assert (len(calls), found.retry_count) == (3, 2)
    assert statuses(run) == {"segmenter": "ok", NAME: "error"}
    # The process goes on: what runs next in this thread is not disturbed.
    nodes = deployment.graph.components
    assert isinstance(nodes, dict)
    nodes[NAME] = dataclasses.replace(nodes[NAME], resources={"timeout_s": 60})
    vars(deployment.registry[NAME].module)["run"] = lambda inputs: value(2.0)
    assert execute(run)[NAME].arrays["feature_values"].tolist() == [2.0]


def at(run: RunContext, seconds: float) -> RunContext:
    """The same run, `seconds` after its attempt began."""
    times = iter([0.0])
    clock = RunClock(now=lambda: next(times, seconds))
    clock.start()
    vars(run)["clock"] = clock
    return run


def test_the_smaller_of_both_limits_holds(deployment: Deployment, clip: Path, submit: Submit) -> None:
    run = submit(deployment, clip)
    own = deployment.graph.components["core_clip"].timeout_s
    assert own == 1800
    early = time_limit(at(run, 7200 - 1801), "core_clip", run.manifest())
    assert (early.scope, early.left_s) == ("component", 1800)
    late = time_limit(at(run, 7200 - 1799), "core_clip", run.manifest())
    assert (late.scope, late.limit_s, late.left_s) == ("run", 7200, 1799)
    with pytest.raises(TrendFlowError, match="timeout"):
        time_limit(at(run, 7200), "core_clip", run.manifest())

    def longer(manifest: dict[str, Any]) -> dict[str, Any]:
        return update_run(manifest, source={**manifest["run"]["source"], "duration_sec": 1800.0})

    manifest = deployment.results.update_manifest(run.run_path, longer)
    assert time_limit(at(run, 7200), "core_clip", manifest).scope == "component"


def test_the_decoder_obeys_the_limit_that_the_graph_gives_the_segmenter(deployment: Deployment) -> None:
    nodes = deployment.graph.components
    assert isinstance(nodes, dict)
    nodes["segmenter"] = dataclasses.replace(nodes["segmenter"], resources={"timeout_s": 123})
    assert segmenter_step.media_limits(deployment, "starter").segmenter_timeout_sec == 123


def test_what_is_left_when_the_run_is_over_its_limit_ends_in_a_timeout_without_being_tried(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    calls: list[int] = []

    def count(inputs: ComponentInputs) -> Artifact:
        calls.append(1)
        return value(1.0)

    add_probe(deployment, count)
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    found = execute(at(run, 7201), {NAME})[NAME]
    assert (found.meta["error_code"], found.meta["error"]) == ("timeout", "The run took longer than 7200 s.")
    assert (calls, found.retry_count) == ([], 0)
    assert run_status(run, run.manifest()) == "error"
    # Resuming is a new attempt with time of its own.
    run.clock.start()
    assert execute(at(run, 1), {NAME})[NAME].status == "ok"


def test_a_component_is_stopped_when_the_time_of_its_run_is_up(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    def endless(inputs: ComponentInputs) -> Artifact:
        spin_on()
        return value(0.0)

    add_probe(deployment, endless)
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    found = execute(at(run, 7200 - 0.1), {NAME})[NAME]
    assert (found.meta["error"], found.retry_count) == ("The run took longer than 7200 s.", 0)


def test_the_asset_run_starts_the_clock_and_obeys_it(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    monkeypatch.setattr(limits, "MIN_RUN_LIMIT_S", 0.0)
    monkeypatch.setattr(limits, "RUN_LIMIT_PER_SECOND", 0.0)
    assert here(run) == "error"
    row = run.manifest()["components"][0]
    assert (row["name"], row["error_code"]) == ("segmenter", "timeout")
    assert resources._run(deployment, run.identity.partition_key).clock.elapsed_s > 0


# --- one layer of retries ---------------------------------------------------------------------------------------------


class Outage:
    """Stands in for the network: counts requests and fails the first `failures` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *operations: str, failures: int = 10**9) -> None:
        self.requests = 0
        self.failures = failures
        for name in operations:
            monkeypatch.setattr(obstore, name, self._around(getattr(obstore, name)))

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def request(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            if self.requests <= self.failures:
                raise GenericError("the network is down")
            return real(*args, **kwargs)

        return request


@pytest.fixture
def remote(deployment: Deployment) -> Deployment:
    """A deployment on a remote kind of store that does not wait between its tries."""
    store = ObjectStore.open("memory://", retry=AT_ONCE)
    vars(deployment).update(store=store, results=ResultStore(store))
    return deployment


@pytest.mark.parametrize(
    ("operation", "call", "requests"),
    [
        ("get", lambda store, file: store.get("a/b"), TRIES),
        ("get", lambda store, file: store.get_with_etag("a/b"), TRIES),
        ("get", lambda store, file: store.get_file("a/b", file.with_name("copy")), TRIES),
        ("get_range", lambda store, file: store.get_range("a/b", 0, 4), TRIES),
        ("head", lambda store, file: store.head("a/b"), TRIES),
        ("head", lambda store, file: store.exists("a/b"), TRIES),
        ("head", lambda store, file: store.delete("a/b"), TRIES),
        ("delete", lambda store, file: store.delete("a/b"), TRIES),
        ("put", lambda store, file: store.put("a/b", b"x"), TRIES),
        ("put", lambda store, file: store.put_file("a/b", file), TRIES),
        ("put", lambda store, file: store.put_if_absent("a/c", b"x"), TRIES),
        ("put", lambda store, file: store.put_if_match("a/b", b"x", "0"), TRIES),
        ("copy", lambda store, file: store.copy("a/b", "a/c"), TRIES),
        ("list", lambda store, file: list(store.list("a")), TRIES),
        ("list", lambda store, file: store.delete_prefix("a"), TRIES),
        ("delete", lambda store, file: store.delete_prefix("a"), TRIES),
        ("list_with_delimiter", lambda store, file: store.folders("a"), TRIES),
    ],
)
def test_every_request_of_a_store_is_tried_four_times_and_says_so(
    operation: str,
    call: Callable[[ObjectStore, Path], object],
    requests: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"data")
    store = ObjectStore.open("memory://", retry=AT_ONCE)
    store.put("a/b", b"data")
    outage = Outage(monkeypatch, operation)
    with pytest.raises(TrendFlowError) as caught:
        call(store, file)
    assert caught.value.error_code == "storage_unavailable"
    assert is_exhausted(caught.value)
    assert outage.requests == requests


def test_a_store_that_always_fails_is_not_asked_again_by_the_wrapper(
    remote: Deployment, clip: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(remote, clip)
    outage = Outage(monkeypatch, "get")
    found = run_component(run, "segmenter", sleep=lambda seconds: pytest.fail("the wrapper waits to try again"))
    assert (found.meta["error_code"], found.retry_count) == ("storage_unavailable", 0)
    assert outage.requests == TRIES


def test_a_store_that_recovers_costs_no_try_of_the_component(
    remote: Deployment, clip: Path, submit: Submit, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_probe(remote, lambda inputs: value(1.0))
    run = submit(remote, clip)
    execute(run, {"segmenter"})
    outage = Outage(monkeypatch, "get", failures=TRIES - 1)
    found = run_component(run, NAME, sleep=lambda seconds: pytest.fail("the wrapper waits to try again"))
    assert (found.status, found.retry_count) == ("ok", 0)
    assert outage.requests > TRIES


def test_an_outage_that_nobody_tried_again_is_tried_again_by_the_wrapper(
    deployment: Deployment, clip: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(deployment, clip)
    calls: list[str] = []

    def get(self: object, key: str) -> bytes:
        calls.append(key)
        raise TrendFlowError("storage_unavailable", "The local store failed.")

    monkeypatch.setattr(local_backend.LocalBackend, "get", get)
    waits: list[float] = []
    found = run_component(run, "segmenter", sleep=waits.append)
    assert (found.meta["error_code"], found.retry_count) == ("storage_unavailable", 3)
    assert (len(calls), len(waits)) == (4, 3)


@pytest.mark.parametrize(
    ("code", "tries"), [("network_error", 1), ("rate_limited", 1), ("timeout", 1), ("storage_unavailable", 4)]
)
def test_what_fetching_tried_again_itself_is_not_tried_again(
    deployment: Deployment, clip: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch, code: str, tries: int
) -> None:
    """`ingest.fetch` repeats downloads with waits of its own; only a full disk it reports at once."""
    calls: list[int] = []

    def fetch(*args: object, **kwargs: object) -> None:
        calls.append(1)
        raise TrendFlowError(code, "It failed.")

    monkeypatch.setattr(segmenter_step, "fetch", fetch)
    found = run_component(submit(deployment, clip), "segmenter", sleep=lambda seconds: None)
    assert (found.meta["error_code"], len(calls)) == (code, tries)


def test_a_contended_manifest_counts_as_tried_again(
    deployment: Deployment, clip: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(deployment, clip)
    results = ResultStore(deployment.store, contention=ContentionPolicy(0.0, 0.0, limit=0.01))
    monkeypatch.setattr(local_backend.LocalBackend, "put_if_match", lambda self, key, data, etag: False)
    with pytest.raises(TrendFlowError) as caught:
        results.update_manifest(run.run_path, lambda manifest: update_run(manifest, retry_count=7))
    assert caught.value.error_code == "storage_unavailable"
    assert is_exhausted(caught.value)
