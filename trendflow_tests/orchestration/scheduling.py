"""A deployment whose scheduler is driven by hand: its sensors are evaluated here, and the daemon's part is played."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    RunRequest,
    RunsFilter,
    build_sensor_context,
)
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG, SENSOR_NAME_TAG

from trendflow.config import Settings
from trendflow.definitions import build_definitions
from trendflow.orchestration import scheduler
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.hand_over import TAKE_SUBMISSIONS
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.submission_sensors import RECONCILE_RUNS
from trendflow.orchestration.submitting import open_desk
from trendflow.state.clock import SystemClock
from trendflow.state.run_manager import RunManager
from trendflow.state.store import RunView, StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.drafts import draft_entries
from trendflow.submission.items import New, Submission, new_submission_id
from trendflow.submission.lists import Entry
from trendflow.submission.message import Message, Priority
from trendflow.submission.sources import Source
from trendflow_tests.orchestration.attempts import deployment_for

USER = "command-line"
SECRET = "a key of tombstones"
WINDOW_SEC = 10.0


class Killed(BaseException):
    """The process is gone; nothing catches it."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, function: str) -> Iterator[None]:
    """The process dies inside the block, where it calls this function."""

    def die(*arguments: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(function, die)
        with pytest.raises(Killed):
            yield


class ShiftedClock(SystemClock):
    """The time of the machine, and what a test lets pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def utc(self) -> str:
        moment = datetime.now(UTC) + timedelta(seconds=self.seconds)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entries(
    video_ids: Iterable[str], source: Path = Path("/videos/clip.mp4"), priority: Priority = "normal"
) -> list[Entry]:
    """The same file as that many videos."""
    return [
        Entry(f"line {number}", Source(str(source), "local_path", "upload", video_id), priority=priority)
        for number, video_id in enumerate(video_ids, start=1)
    ]


@dataclass
class Stage:
    """One deployment with one Dagster instance. Nothing executes what is launched unless a test does."""

    deployment: Deployment
    instance: DagsterInstance
    clock: ShiftedClock
    cursor: str | None = None
    definitions: Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.definitions = build_definitions(self.deployment)

    def submit(self, wanted: Sequence[Entry], *, force: bool = False) -> list[Message]:
        """Put new videos in as the command line does, and let their window pass. Returns their messages."""
        messages = messages_of(put_in(self.deployment, wanted, force=force))
        assert len(messages) == len(wanted)
        self.clock.seconds += WINDOW_SEC + 1
        return messages

    def ask(self) -> list[RunRequest]:
        """One evaluation of the sensor that hands over; nobody launches what it asks for."""
        return list(self.sensor(TAKE_SUBMISSIONS).run_requests or [])

    def take(self) -> list[DagsterRun]:
        """One tick of it: the daemon launches what it asks for and has not launched before."""
        return [run for run in map(self.launch, self.ask()) if run is not None]

    def launch(self, request: RunRequest) -> DagsterRun | None:
        """As the daemon does: one run of one run key, which is put in again if it was made and not more than that."""
        assert request.run_key is not None
        for known in self.instance.get_runs(RunsFilter(tags={RUN_KEY_TAG: request.run_key})):
            if known.status != DagsterRunStatus.NOT_STARTED:
                return None
            self.finish(known, DagsterEventType.RUN_ENQUEUED)
            return known
        tags = {**request.tags, RUN_KEY_TAG: request.run_key, SENSOR_NAME_TAG: TAKE_SUBMISSIONS}
        return self.queue_run(str(request.partition_key), tags)

    def queue_run(
        self,
        partition_key: str,
        tags: Mapping[str, str] | None = None,
        job_name: str = PROCESS_VIDEO,
        status: DagsterRunStatus = DagsterRunStatus.QUEUED,
        **more: Any,
    ) -> DagsterRun:
        """A run that waits in Dagster's queue."""
        origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("trendflow"), SINGLETON_REPOSITORY_NAME)
        return self.instance.add_run(
            DagsterRun(
                job_name,
                str(uuid.uuid4()),
                tags={**(tags or {}), PARTITION_NAME_TAG: partition_key},
                status=status,
                remote_job_origin=RemoteJobOrigin(origin, job_name),
                **more,
            )
        )

    def begin(self, message: Message, worker: str = "worker-1") -> RunManager:
        """What a worker does first, without Dagster."""
        manager = RunManager.open(self.deployment.states, message.run_path, holder=worker)
        assert manager is not None
        manager.begin(worker=worker, device="cpu", resolved_models={})
        return manager

    def finish(self, run: DagsterRun, event_type: DagsterEventType = DagsterEventType.RUN_FAILURE) -> None:
        """The Dagster run ends, and nobody tells anybody else."""
        event = DagsterEvent(event_type_value=event_type.value, job_name=run.job_name)
        self.instance.handle_run_event(run.run_id, event)

    def reconcile(self) -> str:
        """One tick of the sensor that repairs; what it says it did."""
        data = self.sensor(RECONCILE_RUNS)
        self.cursor = data.cursor
        return str(data.skip_message)

    def restart(self) -> None:
        """The process that schedules dies, and another one comes."""
        scheduler._schedulers.clear()

    def level1(self, message: Message) -> str | None:
        """Status of a run in level 1."""
        row = self.deployment.states.read_global()["runs"].get(message.run_path)
        return None if row is None else str(row["status"])

    def workers(self) -> dict[str, list[str]]:
        """Run paths by worker, of those that have any."""
        workers = self.deployment.states.read_global()["workers"]
        return {name: row["running"] for name, row in workers.items() if row["running"]}

    def state(self, message: Message) -> RunView:
        view = self.deployment.states.read_run(message.run_path)
        assert view is not None
        return view

    def runs(self, message: Message | None = None) -> list[DagsterRun]:
        """Dagster runs, in the order of their creation."""
        tags = {} if message is None else {PARTITION_NAME_TAG: message.identity.partition_key}
        return list(self.instance.get_runs(RunsFilter(tags=tags)))[::-1]

    def sensor(self, name: str) -> SensorExecutionData:
        """Evaluate a sensor as the code server does."""
        repository = self.definitions.get_repository_def()
        with build_sensor_context(
            self.instance,
            self.cursor if name == RECONCILE_RUNS else None,
            repository_def=repository,
            sensor_name=name,
            resources={"trendflow": TrendFlowResource()},
            instance_ref=self.instance.get_ref(),  # what looks partitions up insists on it
        ) as context:
            return repository.get_sensor_def(name).evaluate_tick(context)


def handed_over(stage: Stage, *video_ids: str) -> list[Message]:
    """Runs that Dagster has in its queue, and level 1 knows it."""
    messages = stage.submit(entries(video_ids))
    assert len(stage.take()) == len(video_ids)
    assert stage.take() == []
    return messages


def succeed(manager: RunManager) -> None:
    """The run ends well, and its components found nothing."""
    for name in manager.view.components:
        manager.component_started(name)
        manager.component_finished(name, "empty", [])
    manager.succeed()


def put_in(deployment: Deployment, wanted: Sequence[Entry], *, force: bool = False) -> Submission:
    """Put videos in as the command line does, without a look at their files."""
    opened = open_desk(deployment)
    submission_id = new_submission_id(opened.states.clock.utc())
    drafts = draft_entries(
        wanted,
        "starter",
        opened.profiles,
        deployment.schemas,
        submission_id=submission_id,
        user_id=USER,
        force_recompute=force,
    )
    return opened.desk.submit(submission_id, USER, drafts)


def messages_of(submission: Submission) -> list[Message]:
    return [item.message for item in submission.items if isinstance(item, New)]


def use_store(deployment: Deployment, store: ObjectStore, clock: ShiftedClock) -> None:
    """Put a store under a deployment, as a process that starts with it sees it."""
    for part in ("results", "index"):
        vars(deployment).pop(part, None)
    vars(deployment)["store"] = store
    vars(deployment)["states"] = StateStore(store, deployment.schemas, clock)


@contextmanager
def staged(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage with an empty store in memory, at the Dagster home of the environment."""
    home.mkdir()
    settings = Settings(home=home, min_free_gb=0, handed_over_runs=4, tombstone_key=SECRET)
    deployment, clock = deployment_for(settings), ShiftedClock()
    use_store(deployment, ObjectStore.open("memory://"), clock)
    monkeypatch.setattr(TrendFlowResource, "deployment", property(lambda self: deployment))
    monkeypatch.setattr(scheduler, "_schedulers", {})
    with DagsterInstance.get() as instance:
        yield Stage(deployment, instance, clock)
