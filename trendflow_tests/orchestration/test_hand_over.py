"""From a submission to Dagster runs: what a message becomes, in which order, and what survives a kill in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunRequest
from dagster._core.events import DagsterEventType
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.hand_over import TAKE_SUBMISSIONS, hand_over, order_of
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.runs import RunContext, RunOrder, create_run
from trendflow.orchestration.scheduler import Scheduler
from trendflow.orchestration.submitting import open_desk
from trendflow.state.errors import Fenced
from trendflow.state.global_manager import GlobalManager
from trendflow.state.layout import request_key
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import tombstone_key
from trendflow.submission.drafts import draft_entries
from trendflow.submission.items import new_submission_id
from trendflow.submission.message import DOCUMENT_DIGEST, Message, VideoSource
from trendflow_tests.orchestration.runs import edit_profile
from trendflow_tests.orchestration.scheduling import (
    SECRET,
    USER,
    WINDOW_SEC,
    Killed,
    Stage,
    entries,
    killed_at,
    messages_of,
    use_store,
)
from trendflow_tests.state.runs import BreakingStore

CREATE_RUN = "trendflow.orchestration.hand_over.create_run"


@pytest.fixture
def deployment(stage: Stage) -> Deployment:
    return stage.deployment


def asked(requests: Sequence[RunRequest]) -> list[str]:
    """Video ids in the order of the requests."""
    return [str(request.partition_key).partition("/")[0] for request in requests]


def test_a_message_becomes_a_run_and_counts_as_queued_once_dagster_has_it(stage: Stage) -> None:
    (message,) = stage.submit(entries(["a-video"], priority="high"), force=True)
    (run,) = stage.take()
    assert run.tags["trendflow/priority"] == "high"
    assert int(run.tags["dagster/priority"]) > 0
    assert stage.instance.get_dynamic_partitions(VIDEO_RUNS) == [message.identity.partition_key]
    stored = json.loads(stage.deployment.store.get(request_key(message.run_path)))
    assert stored["force_recompute"] is True
    assert stored["video_source"]["locator"] == message.source.locator
    assert (stage.state(message).run["status"], stage.level1(message)) == ("pending", "pending")
    assert stage.take() == []
    assert stage.level1(message) == "queued"


def test_the_digest_of_a_document_travels_into_the_manifest(stage: Stage) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    told = replace(message, metadata={DOCUMENT_DIGEST: "d" * 64})
    create_run(stage.deployment, order_of(stage.deployment, told))
    manifest = stage.deployment.results.read_manifest(message.run_path)
    assert manifest is not None
    assert manifest["run"]["document_digest"] == "d" * 64


def test_an_upload_becomes_the_file_that_workers_find(stage: Stage, tmp_path: Path) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    upload = replace(message, source=VideoSource("upload", "u-1"))
    with pytest.raises(TrendFlowError, match="config_invalid"):
        order_of(stage.deployment, upload)
    settings = stage.deployment.settings.model_copy(update={"uploads": tmp_path})
    create_run(stage.deployment, order_of(Deployment(settings), upload))
    stored = json.loads(stage.deployment.store.get(request_key(message.run_path)))
    assert stored["video_source"] == {"type": "upload", "locator": f"{tmp_path}/u-1", "sha256": None}


def test_runs_are_asked_for_again_until_they_are_seen_and_launched_once(stage: Stage) -> None:
    messages = stage.submit(entries(["one", "two"]))
    first = stage.ask()
    assert asked(first) == ["one", "two"]
    stage.restart()
    assert asked(stage.ask()) == ["one", "two"]
    stage.launch(first[0])
    assert asked(stage.ask()) == ["two"]
    stage.restart()
    assert [run.tags["dagster/partition"] for run in stage.take()] == [messages[1].identity.partition_key]
    stage.restart()
    assert stage.ask() == []
    assert [stage.level1(message) for message in messages] == ["queued", "queued"]
    assert len(stage.runs()) == 2


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_kill_at_any_write_loses_nothing_and_launches_nothing_twice(
    stage: Stage, deployment: Deployment, before: bool
) -> None:
    number = 0
    while True:
        store = ObjectStore.open("memory://")
        use_store(deployment, store, stage.clock)
        stage.restart()
        (message,) = stage.submit(entries([f"video-{number}-{before}"]))
        breaking = BreakingStore(store, number, Killed(), before=before)
        use_store(deployment, breaking, stage.clock)
        try:
            stage.take()
            stage.take()
            died = False
        except Killed:
            died = True
        use_store(deployment, store, stage.clock)
        stage.restart()
        stage.take()
        stage.take()
        (run,) = stage.runs(message)
        assert stage.level1(message) == "queued"
        assert stage.state(message).run["status"] == "pending"
        assert deployment.results.read_manifest(message.run_path) is not None
        stage.finish(run)  # the next round begins with an empty Dagster
        if not died:
            break
        number += 1
    assert number > 15, "the kills must have met every kind of object"


def test_a_run_that_dagster_made_and_did_not_launch_is_asked_for_again(stage: Stage) -> None:
    message, _ = stage.submit(entries(["stuck", "fine"]))
    stuck, fine = stage.ask()
    tags = {**stuck.tags, RUN_KEY_TAG: str(stuck.run_key), SENSOR_NAME_TAG: TAKE_SUBMISSIONS}
    made = stage.queue_run(str(stuck.partition_key), tags, status=DagsterRunStatus.NOT_STARTED)
    stage.launch(fine)  # the daemon died before it came to launch the other one
    for restarted in (False, True):
        if restarted:
            stage.restart()
        assert asked(stage.ask()) == ["stuck"]
        assert stage.level1(message) == "pending"
    assert [run.run_id for run in stage.take()] == [made.run_id]
    assert stage.ask() == []
    assert stage.level1(message) == "queued"


def test_a_kill_before_the_partition_exists_is_made_up_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    with killed_at(monkeypatch, "dagster.DagsterInstance.add_dynamic_partitions"):
        stage.ask()
    stage.restart()
    assert len(stage.take()) == 1
    assert len(stage.runs(message)) == 1


def test_no_more_than_so_many_are_handed_over_and_the_rest_keeps_its_order(stage: Stage) -> None:
    stage.submit(entries([f"low-{number}" for number in range(3)], priority="low"))
    stage.submit(entries([f"normal-{number}" for number in range(5)]))
    stage.submit(entries(["urgent"], priority="high"))
    runs = stage.take()
    # Low was owed its turn when the scheduler began, for nobody knew how long it had waited.
    assert [run.tags["dagster/partition"].partition("/")[0] for run in runs] == [
        "low-0",
        "normal-0",
        "urgent",
        "normal-1",
    ]
    assert stage.take() == []
    assert stage.take() == []
    stage.finish(runs[0])
    stage.finish(runs[1])
    assert asked(stage.ask()) == ["normal-2", "normal-3"]
    stage.restart()
    assert asked(stage.ask()) == ["normal-2", "normal-3"]


def test_nothing_is_handed_over_while_the_disk_is_full(
    stage: Stage, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.submit(entries(["a-video"]))
    monkeypatch.setattr("trendflow.orchestration.submitting.free_bytes", lambda settings: -1)
    assert stage.ask() == []


def test_a_run_whose_profile_changed_ends_explained_and_holds_nobody_up(stage: Stage, deployment: Deployment) -> None:
    (stale,) = stage.submit(entries(["stale"]))
    edit_profile(deployment, lambda profile: replace(profile, sampling_policy_version="another"))
    (good,) = stage.submit(entries(["good"]))
    assert [run.tags["dagster/partition"] for run in stage.take()] == [good.identity.partition_key]
    run = stage.state(stale).run
    assert (run["status"], run["error_code"], stage.level1(stale)) == ("error", "config_invalid", "error")
    assert "submit the video again" in run["error"]


def test_a_run_whose_profile_is_gone_ends_explained(stage: Stage, deployment: Deployment) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    graph = deployment.graph
    vars(deployment)["graph"] = replace(graph, profiles={})
    assert stage.ask() == []
    vars(deployment)["graph"] = graph
    assert stage.state(message).run["error_code"] == "config_invalid"
    assert stage.level1(message) == "error"


def test_whatever_a_message_does_to_the_scheduler_the_others_have_their_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = stage.submit(entries(["bad", "good"]))

    def breaking(deployment: Deployment, order: RunOrder) -> RunContext:
        if order.identity == bad.identity:
            raise ZeroDivisionError
        return create_run(deployment, order)

    monkeypatch.setattr(CREATE_RUN, breaking)
    assert [run.tags["dagster/partition"] for run in stage.take()] == [good.identity.partition_key]
    assert stage.state(bad).run["error_code"] == "internal_error"


def test_a_run_whose_deadline_is_over_is_not_begun(stage: Stage) -> None:
    opened = open_desk(stage.deployment)
    now = opened.states.clock.utc()
    submission_id = new_submission_id(now)
    drafts = draft_entries(
        entries(["too-late", "in-time"]),
        "starter",
        opened.profiles,
        stage.deployment.schemas,
        submission_id=submission_id,
        user_id=USER,
    )
    late, timely = (draft for draft in drafts if isinstance(draft, Message))
    late, timely = replace(late, deadline=now), replace(timely, deadline="2999-01-01T00:00:00.000Z")
    assert messages_of(opened.desk.submit(submission_id, USER, [late, timely])) == [late, timely]
    stage.clock.seconds += WINDOW_SEC + 1
    assert [request.run_key for request in stage.ask()] == [timely.identity.run_id]
    assert stage.level1(late) == "error"
    assert stage.state(late).run["error"] == "The deadline of the run was over before its turn came."


def test_what_may_pass_keeps_a_message_in_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = stage.submit(entries(["a-video"]))

    def breaking(deployment: Deployment, order: RunOrder) -> RunContext:
        raise TrendFlowError("storage_unavailable", "The store does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(CREATE_RUN, breaking)
        with pytest.raises(TrendFlowError, match="The store does not answer"):
            stage.ask()
    assert stage.level1(message) == "pending"
    assert len(stage.take()) == 1


def test_a_deleted_video_is_not_made_and_leaves_no_trace(stage: Stage, deployment: Deployment) -> None:
    message, other = stage.submit(entries(["a-video", "another"]))
    deployment.store.put(tombstone_key("upload", "a-video", SECRET.encode()), b"{}")
    assert stage.ask() == []
    assert stage.ask() == []  # level 1 was written anew without the video, so it has to be opened again
    assert [request.run_key for request in stage.ask()] == [other.identity.run_id]
    assert message.run_path not in deployment.states.read_global()["runs"]
    named = [info.key for info in deployment.store.list("") if b"a-video" in deployment.store.get(info.key)]
    assert named == []
    assert not [info.key for info in deployment.store.list("") if "a-video" in info.key]


def test_two_processes_at_once_launch_everything_once(stage: Stage, deployment: Deployment) -> None:
    """Each takes level 1 from the other whenever it is its turn."""
    messages = stage.submit(entries([f"video-{number}" for number in range(4)]))
    both = [Scheduler(deployment), Scheduler(deployment)]
    launching = threading.Lock()

    def tick(scheduler: Scheduler) -> bool:
        try:
            with scheduler.turn() as level1:
                assert level1 is not None
                requests = hand_over(scheduler, level1, stage.instance)
        except Fenced:
            return False
        with launching:  # Dagster has one daemon
            for request in requests:
                stage.launch(request)
        return True

    with ThreadPoolExecutor(2) as processes:
        for _ in range(5):
            list(processes.map(tick, both))
    while not tick(both[0]):
        pass
    assert sorted(run.tags["dagster/partition"] for run in stage.runs()) == sorted(
        message.identity.partition_key for message in messages
    )
    assert {stage.level1(message) for message in messages} == {"queued"}


def test_a_process_that_lost_level_1_says_so_and_takes_it_back(stage: Stage, deployment: Deployment) -> None:
    assert stage.ask() == []
    GlobalManager.open(deployment.states, holder="another-process")
    assert "taken level 1 over" in str(stage.sensor(TAKE_SUBMISSIONS).skip_message)
    stage.submit(entries(["a-video"]))
    assert len(stage.take()) == 1
    assert deployment.states.read_global()["knobs"]["handed_over_runs"] == 4


def test_a_thousand_videos_go_in_fair_order_and_few_at_a_time(stage: Stage, deployment: Deployment) -> None:
    count, cap = 1000, 50
    vars(deployment)["settings"] = deployment.settings.model_copy(update={"handed_over_runs": cap})
    messages = stage.submit(entries([f"video-{number:04d}" for number in range(count)]))
    order: list[str] = []
    with DagsterInstance.ephemeral() as stage.instance:
        mine = Scheduler(deployment)
        while len(order) < count:
            with mine.turn() as level1:
                assert level1 is not None
                requests = hand_over(mine, level1, stage.instance)
                known = len(level1.manager.document["runs"])
            runs = [run for run in map(stage.launch, requests) if run is not None]
            assert len(runs) <= cap
            assert runs or known < count, "a long list is taken in over several ticks"
            assert len(mine.expected) <= cap
            order += [run.tags["dagster/partition"] for run in runs]
            for run in runs:
                stage.finish(run, DagsterEventType.RUN_SUCCESS)
    assert order == [message.identity.partition_key for message in messages]
