"""The object store fails in the middle of real runs: what passes is made up for, what stays is explained."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from dagster import DagsterInstance

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.definitions import build_definitions
from trendflow.fleet import seaweedfs
from trendflow.fleet.seaweedfs import SEAWEEDFS
from trendflow.models.pool import ModelPool
from trendflow.orchestration import recorder, resources, wrapper
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.launch import process_here
from trendflow.orchestration.queue.names import ERROR_CODE_TAG
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import RunContext
from trendflow.storage import s3_options as client_options
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.retry import RetryPolicy
from trendflow_tests.faults.runs import assert_ended_alike, assert_whole, kinds_of_objects, rows
from trendflow_tests.faults.servers import running
from trendflow_tests.orchestration.runs import AUDIO, Submit, digests, only, with_profile
from trendflow_tests.s3_proxy import PASSING, Fault, Request, S3Proxy, proxy_of

AT_ONCE = RetryPolicy(waits=(0.0, 0.0, 0.0))
TRIES = 4
DOWN_S = 30.0

Make = Callable[..., RunContext]
Process = Callable[[RunContext], str]


@pytest.fixture
def proxy(s3_options: dict[str, str]) -> Iterator[S3Proxy]:
    with proxy_of(s3_options["endpoint"]) as made:
        yield made


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come one right after the other."""
    monkeypatch.setattr(recorder, "_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))


@pytest.fixture
def make(tmp_path: Path, models_dir: Path, pool: ModelPool, clip: Path, submit: Submit) -> Make:
    """A run of the smallest profile, submitted to a prefix of the store which no other test knows."""

    def made(url: str, options: dict[str, str], retry: RetryPolicy | None = AT_ONCE) -> RunContext:
        url = f"{url}/{uuid4().hex}"
        settings = Settings(
            home=tmp_path / "home", models=models_dir, store_url=url, store_options=options, onnx_threads=1
        )
        deployment = Deployment(settings)
        vars(deployment).update(pool=pool, store=ObjectStore.open(url, options, retry=retry))
        with_profile(deployment, only(*AUDIO))
        return submit(deployment, clip)

    return made


@pytest.fixture
def process(dagster_home: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Processes a run through Dagster in this process. How it ended, or the code of what it failed of."""

    def processed(run: RunContext) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(resources.TrendFlowResource, "deployment", property(lambda self: run.deployment))
            job = build_definitions(run.deployment).resolve_job_def(PROCESS_VIDEO)
            try:
                return process_here(job, run.identity.partition_key)
            except TrendFlowError as error:
                return error.error_code

    return processed


@pytest.fixture
def shaky(make: Make, proxy: S3Proxy, s3_store_url: str, s3_options: dict[str, str], no_waits: None) -> RunContext:
    """A run whose store is behind the proxy."""
    return make(s3_store_url, {**s3_options, "endpoint": proxy.endpoint})


@dataclass(frozen=True)
class Undisturbed:
    """What the same run comes to without any fault."""

    digests: dict[str, dict[str, str]]
    objects: set[str]


@pytest.fixture(scope="module")
def known() -> dict[str, Undisturbed]:
    return {}


@pytest.fixture
def undisturbed(
    known: dict[str, Undisturbed], make: Make, process: Process, s3_store_url: str, s3_options: dict[str, str]
) -> Undisturbed:
    """Made once for all tests."""
    if not known:
        run = make(s3_store_url, s3_options)
        assert process(run) == "success"
        known["run"] = Undisturbed(digests(run), kinds_of_objects(run.deployment))
    return known["run"]


class Outage:
    """A fault that begins with the first request of a kind, and stays."""

    def __init__(self, proxy: S3Proxy, method: str, part: str, fault: Fault) -> None:
        self._method, self._part, self._fault = method, part, fault
        self.failed: list[Request] = []
        proxy.decide = self._decide

    def _decide(self, request: Request) -> Fault | None:
        if self.failed or (request.method == self._method and self._part in request.path):
            self.failed.append(request)
            return self._fault
        return None


def mend(proxy: S3Proxy) -> None:
    proxy.decide = lambda request: None


def test_what_fails_once_is_tried_again_and_changes_nothing(
    shaky: RunContext, undisturbed: Undisturbed, proxy: S3Proxy, process: Process
) -> None:
    kinds = [fault for fault in PASSING if fault != "hang"]
    struck: set[tuple[str, str]] = set()

    def decide(request: Request) -> Fault | None:
        """Every second request that did not fail the last time, so that none fails twice in a row."""
        key = request.method, request.path
        if key in struck or request.number % 2:
            struck.discard(key)
            return None
        struck.add(key)
        return kinds[sum(proxy.done.values()) % len(kinds)]

    proxy.decide = decide
    assert process(shaky) == "success"
    mend(proxy)
    assert min(proxy.done[fault] for fault in kinds) >= 5, "otherwise this proves little"
    assert_whole(shaky)
    assert digests(shaky) == undisturbed.digests
    assert kinds_of_objects(shaky.deployment) == undisturbed.objects


def test_a_store_that_hangs_is_not_waited_for(
    make: Make,
    proxy: S3Proxy,
    process: Process,
    s3_store_url: str,
    s3_options: dict[str, str],
    no_waits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_options, "REQUEST_TIMEOUT", client_options.REQUEST_TIMEOUT / 20)
    run = make(s3_store_url, {**s3_options, "endpoint": proxy.endpoint})

    def decide(request: Request) -> Fault | None:
        hangs = request.method == "PUT" and "/loudness_extractor.npz" in request.path and proxy.done["hang"] == 0
        return "hang" if hangs else None

    proxy.decide = decide
    assert process(run) == "success"
    assert proxy.done == {"hang": 1}
    assert_whole(run)


@pytest.mark.parametrize(
    ("method", "part", "finished"),
    [
        ("GET", "tombstones", []),
        ("PUT", "/frames_store/", []),
        ("PUT", "/segmenter.npz", []),
        ("GET", "/segmenter.npz", ["segmenter"]),
        ("PUT", "/tempo_extractor.npz", ["loudness_extractor", "segmenter"]),
        ("PUT", "/report.html", ["loudness_extractor", "segmenter", "tempo_extractor"]),
    ],
)
def test_an_outage_is_explained_and_what_was_finished_stays(
    shaky: RunContext,
    undisturbed: Undisturbed,
    proxy: S3Proxy,
    process: Process,
    method: str,
    part: str,
    finished: list[str],
) -> None:
    outage = Outage(proxy, method, part, "overloaded")
    assert process(shaky) == "storage_unavailable"
    mend(proxy)
    with DagsterInstance.get() as instance:
        (dagster_run,) = instance.get_runs(limit=1)
    assert dagster_run.tags[ERROR_CODE_TAG] == "storage_unavailable", "on which it depends whether it is launched again"
    writes = Counter(request.path for request in outage.failed if request.method == "PUT")
    # A request is made four times, and a report to the journal as often.
    assert max(writes.values(), default=0) <= TRIES * TRIES
    # What the daemon does with a run that has failed, as soon as the store is there again.
    conclude(shaky.deployment, shaky.run_path, TrendFlowError("storage_unavailable", "As the test wants it."))
    if set(finished) != AUDIO:  # with all results there, only the page is missing, for which the run is launched again
        assert_ended_alike(shaky)
    before = rows(shaky)
    assert sorted(name for name, row in before.items() if row["status"] == "ok") == finished
    assert process(shaky) == "success"
    assert_whole(shaky)
    after = rows(shaky)
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert digests(shaky) == undisturbed.digests
    assert kinds_of_objects(shaky.deployment) == undisturbed.objects


def test_an_outage_in_the_middle_of_reports_is_waited_for(shaky: RunContext, proxy: S3Proxy, process: Process) -> None:
    """Reports to the journal are made until the store takes them, and none is made twice."""
    struck: Counter[str] = Counter()

    def decide(request: Request) -> Fault | None:
        begun = any("/segmenter.npz" in seen.path for seen in proxy.seen)
        report = request.method == "PUT" and "/state_" in request.path
        if not begun or not report or struck[request.path] > TRIES:
            return None
        struck[request.path] += 1
        return "overloaded"

    proxy.decide = decide
    assert process(shaky) == "success"
    assert sum(struck.values()) > 2 * TRIES
    assert_whole(shaky)


def test_a_store_that_denies_access_is_told_at_once(shaky: RunContext, proxy: S3Proxy, process: Process) -> None:
    denial = Outage(proxy, "PUT", "/tempo_extractor.npz", "forbidden")
    assert process(shaky) == "config_invalid"
    mend(proxy)
    writes = Counter(request.path for request in denial.failed if request.method == "PUT")
    assert set(writes.values()) == {1}, "nothing is tried again"
    assert process(shaky) == "success"
    assert_whole(shaky)


def test_a_store_that_is_down_for_half_a_minute(make: Make, process: Process) -> None:
    """A real server is killed in the middle of a run, with the waits that there are in production."""
    with running(SEAWEEDFS) as servers:
        direct = seaweedfs.store_options(servers.site)
        with proxy_of(direct["endpoint"]) as proxy:
            run = make(f"s3://{seaweedfs.BUCKET}", {**direct, "endpoint": proxy.endpoint}, None)

            def come_back() -> None:
                threading.Event().wait(DOWN_S)
                servers.revive()

            back = threading.Thread(target=come_back)

            def decide(request: Request) -> Fault | None:
                if request.method == "PUT" and "/segmenter.npz" in request.path and back.ident is None:
                    servers.kill(seaweedfs.NAME)
                    back.start()
                return None

            proxy.decide = decide
            ended = process(run)
            back.join()
            assert ended == "storage_unavailable", "requests are repeated for some seconds"
            assert process(run) == "success"
            assert_whole(run)
