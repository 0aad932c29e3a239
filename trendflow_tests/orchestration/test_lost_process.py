"""Runs that a command executed inside itself and left when it was killed: nothing launched them, so nothing watches."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.definitions import build_definitions
from trendflow.orchestration import resources
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.launch import process_here
from trendflow.orchestration.processes import is_gone, this_process
from trendflow.orchestration.queue.names import ERROR_CODE_TAG
from trendflow.orchestration.runs import RunContext, open_run, submit_run
from trendflow.state.run_manager import RunManager
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Here, Submit, assert_state_agrees
from trendflow_tests.orchestration.scheduling import ShiftedClock, Stage, succeed, use_store

_MINUTE = 61.0
_TELL = "from trendflow.orchestration.processes import this_process; print(this_process())"


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of a process of this host that is gone."""
    told = subprocess.run([sys.executable, "-c", _TELL], capture_output=True, check=True, text=True).stdout.strip()
    assert is_gone(told)
    return told


def unwatched(stage: Stage, worker: str) -> tuple[RunContext, DagsterRun, RunManager]:
    """A run that a command called `worker` executes inside itself."""
    run = submit_run(
        stage.deployment,
        locator="/videos/clip.mp4",
        source_type="local_path",
        platform_id="upload",
        video_id="a-video",
        run_id="by-command",
        profile="starter",
    )
    job = stage.definitions.resolve_job_def(PROCESS_VIDEO)
    stage.instance.add_dynamic_partitions("video_runs", [run.identity.partition_key])
    tags = {"dagster/partition": run.identity.partition_key}
    made = stage.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    assert made.remote_job_origin is None
    return run, made, begun(run, worker)


def begun(run: RunContext, worker: str) -> RunManager:
    manager = RunManager.open(run.deployment.states, run.run_path, holder=worker)
    assert manager is not None
    manager.begin(worker=worker, device="cpu", resolved_models={})
    return manager


def ends(stage: Stage, run: RunContext, made: DagsterRun) -> tuple[str, str | None, DagsterRunStatus]:
    """How state and Dagster say that the run is."""
    view, known = run.deployment.states.read_run(run.run_path), stage.instance.get_run_by_id(made.run_id)
    assert view is not None
    assert known is not None
    return view.run["status"], view.run["error_code"], known.status


LIVES = ("running", None, DagsterRunStatus.STARTED)


def test_it_is_ended_a_minute_after_the_last_sign_of_life(stage: Stage, dead: str) -> None:
    run, made, _ = unwatched(stage, dead)
    stage.clock.seconds -= 3600  # the hour in which this machine may be as slow as it is
    stage.reconcile()
    assert ends(stage, run, made) == LIVES
    stage.clock.seconds += 3600 + _MINUTE
    assert stage.reconcile() == "ended in Dagster: 1, ended the state: 1, told level 1: 1"
    assert ends(stage, run, made) == ("error", "internal_error", DagsterRunStatus.FAILURE)
    ended = stage.instance.get_run_by_id(made.run_id)
    assert ended is not None
    assert (ended.tags[ERROR_CODE_TAG], ended.tags["trendflow/retries_left"]) == ("internal_error", "0")
    assert stage.deployment.states.read_global()["runs"][run.run_path]["status"] == "error"
    assert stage.reconcile() == "All agrees."


@pytest.mark.parametrize("worker", [None, "somebody-else:1@2.3", "cpu-1@host:4711:0a1b2c3d"])
def test_a_process_that_lives_or_cannot_be_seen_is_left_alone(stage: Stage, worker: str | None) -> None:
    run, made, _ = unwatched(stage, worker or this_process())
    stage.clock.seconds += 3600
    assert stage.reconcile() == "told level 1: 1"
    assert ends(stage, run, made) == LIVES


def test_a_command_that_is_about_to_take_the_run_up_is_left_alone(stage: Stage, dead: str) -> None:
    run, _, _ = unwatched(stage, dead)
    job = stage.definitions.resolve_job_def(PROCESS_VIDEO)
    tags = {"dagster/partition": run.identity.partition_key}
    second = stage.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    stage.clock.seconds += 3600
    stage.reconcile()
    assert ends(stage, run, second) == LIVES


def test_one_that_somebody_wanted_to_stop_is_cancelled(stage: Stage, dead: str) -> None:
    run, made, _ = unwatched(stage, dead)
    assert stage.deployment.states.request_cancel(run.run_path)
    stage.clock.seconds += _MINUTE
    stage.reconcile()
    assert ends(stage, run, made) == ("cancelled", "cancelled", DagsterRunStatus.CANCELED)


def test_of_one_whose_state_had_ended_only_dagster_is_told(stage: Stage, dead: str) -> None:
    run, made, manager = unwatched(stage, dead)
    succeed(manager)
    stage.clock.seconds += _MINUTE
    stage.reconcile()
    assert ends(stage, run, made) == ("success", None, DagsterRunStatus.FAILURE)


def process_until_killed(settings: Settings, partition_key: str) -> None:
    """What `trendflow process` does, in a process that is killed once the journal says that the probe runs."""
    deployment = deployment_for(settings)

    def deadly(inputs: ComponentInputs) -> Artifact:
        run = open_run(deployment, partition_key)
        while True:
            view = deployment.states.read_run(run.run_path)
            if view is not None and view.components[NAME]["status"] == "running":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait(0.01)

    add_probe(deployment, deadly)
    pytest.MonkeyPatch().setattr(resources.TrendFlowResource, "deployment", property(lambda self: deployment))
    process_here(build_definitions(deployment).resolve_job_def(PROCESS_VIDEO), partition_key)


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir, min_free_gb=0))


@pytest.fixture
def watching(deployment: Deployment, dagster_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The scheduler beside the command, at the same store and the same history."""
    clock = ShiftedClock()
    use_store(deployment, deployment.store, clock)
    monkeypatch.setattr(resources.TrendFlowResource, "deployment", property(lambda self: deployment))
    monkeypatch.setattr("trendflow.orchestration.scheduler._schedulers", {})
    with DagsterInstance.get() as instance:
        yield Stage(deployment, instance, clock)


def test_a_command_that_was_killed_is_noticed_and_its_run_can_be_continued(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, watching: Stage
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    arguments: tuple[Any, ...] = (deployment.settings, run.identity.partition_key)
    child = multiprocessing.get_context("spawn").Process(target=process_until_killed, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (made,) = watching.runs()
    assert ends(watching, run, made) == LIVES
    watching.clock.seconds += _MINUTE
    watching.reconcile()
    assert ends(watching, run, made) == ("error", "internal_error", DagsterRunStatus.FAILURE)
    assert here(run) == "success"
    assert_state_agrees(run)
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert (view.run["attempt"], view.components["segmenter"]["attempt"]) == (2, 1), "what was done is kept"
    watching.reconcile()
    assert watching.deployment.states.read_global()["runs"][run.run_path]["status"] == "success"
