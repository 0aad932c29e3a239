"""The state of runs as their execution records it: what else may happen to a run than that its components end.

How every combination of ends shows in the state is asked in `test_statuses`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, build_run_status_sensor_context

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import find_row
from trendflow.definitions import build_definitions
from trendflow.orchestration import recorder, resources, wrapper
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.run_state import conclude, executing, queued
from trendflow.orchestration.runs import RunContext, open_run
from trendflow.orchestration.wrapper import run_component, run_status, store
from trendflow.state.errors import Fenced
from trendflow.state.events import Event
from trendflow.state.run_manager import RunManager
from trendflow.state.store import RunView
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import NAME, Probe, add_probe, add_probes, value
from trendflow_tests.orchestration.runs import Execute, Here, Submit, assert_state_agrees, statuses


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    """What every deployment reads from the same files is read once."""
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir))


def view_of(run: RunContext) -> RunView:
    view = run.deployment.states.read_run(run.run_path)
    assert view is not None
    return view


def events_of(run: RunContext, kind: str) -> list[Event]:
    return [event for event in run.deployment.states.events(run.run_path) if event.type == kind]


def way_of(run: RunContext) -> list[str | None]:
    """The states that the run went through."""
    return [event.to for event in events_of(run, "run_status")]


def test_a_run_is_pending_from_its_submission_on(deployment: Deployment, clip: Path, submit: Submit) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    view = view_of(submit(deployment, clip))
    assert (view.run["status"], view.run["profile"], view.run["progress"]["total"]) == ("pending", "starter", 2)
    assert {name: row["status"] for name, row in view.components.items()} == {"segmenter": "waiting", NAME: "waiting"}
    assert view.components[NAME]["wait_for"] == ["segmenter"]


def test_a_first_run_goes_its_way(deployment: Deployment, clip: Path, submit: Submit, here: Here) -> None:
    def work(inputs: ComponentInputs) -> Artifact:
        for done in range(1, 4):
            inputs.progress(done, 3)
        return value(1.0)

    add_probe(deployment, work)
    run = submit(deployment, clip)
    assert here(run) == "success"
    assert_state_agrees(run)
    assert way_of(run) == ["pending", "queued", "running", "success"]
    view = view_of(run)
    assert (view.components[NAME]["done"], view.components[NAME]["total"]) == (3, 3)
    assert view.run["checkpoints"] == {"audio_ready": True, "frames_ready": True, "ocr_ready": False}
    (costs,) = events_of(run, "cost_recorded")
    assert costs.data["rows"] >= 2
    assert [event.to for event in events_of(run, "component_status") if event.subject == NAME] == ["running", "success"]


def test_a_run_of_which_nothing_is_computed_says_so(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    first, second = submit(deployment, clip), submit(deployment, clip)
    assert (here(first), here(second)) == ("success", "success")
    assert_state_agrees(second)
    assert {row["cache_hit"] for row in view_of(second).components.values()} == {True}
    assert [len(events_of(run, "processing_completed_from_cache")) for run in (first, second)] == [0, 1]
    assert [event.to for event in events_of(second, "component_status") if event.subject == NAME] == ["success"]


def test_a_damaged_earlier_result_is_told_and_computed_again(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    first, second = submit(deployment, clip), submit(deployment, clip)
    assert here(first) == "success"
    deployment.store.put(f"result_store/{first.run_path}/{NAME}/{NAME}.npz", b"no archive")
    assert here(second) == "success"
    assert_state_agrees(second)
    told = {(event.subject, event.data["error_code"]) for event in events_of(second, "cache_check_failed")}
    assert told == {(NAME, "artifact_validation_failed")}
    assert view_of(second).components[NAME]["cache_hit"] is False


def test_retries_and_smaller_batches_are_told(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))
    tries: list[int] = []

    def units(start: int, stop: int) -> None:
        if stop - start > 2:
            raise TrendFlowError("out_of_memory", "Too large.")

    def work(inputs: ComponentInputs) -> Artifact:
        tries.append(1)
        if len(tries) == 1:
            raise TrendFlowError("timeout", "The test says so.", scope="component")
        inputs.runner.pause_s = 0.0
        inputs.runner.run(4, units, 4)
        return value(1.0)

    add_probe(deployment, work)
    run = submit(deployment, clip)
    assert here(run) == "success"
    assert_state_agrees(run)
    (retry,) = events_of(run, "retry_scheduled")
    assert (retry.subject, retry.data["error_code"], retry.data["attempt"]) == (NAME, "timeout", 1)
    assert [event.data for event in events_of(run, "oom_reduced")] == [{"batch_size": 4, "reduced_to": 2}]
    assert (view_of(run).components[NAME]["retry_count"], view_of(run).run["retry_count"]) == (1, 1)


def die_in_the_probe(settings: Settings, partition_key: str) -> None:
    """Body of a process: executes the run and is killed in the probe, once the journal says that the probe runs."""
    deployment = deployment_for(settings)

    def deadly(inputs: ComponentInputs) -> Artifact:
        while view_of(run).components[NAME]["status"] != "running":
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    add_probe(deployment, deadly)
    run = open_run(deployment, partition_key)
    with executing(run):
        for name in ("segmenter", NAME):
            store(run, run_component(run, name))


@pytest.fixture
def killed(deployment: Deployment, clip: Path, submit: Submit, execute: Execute) -> RunContext:
    """A run whose process was killed in the middle of the probe."""
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    arguments = (deployment.settings, run.identity.partition_key)
    child = multiprocessing.get_context("spawn").Process(target=die_in_the_probe, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    return run


def test_a_killed_run_is_taken_up_again(killed: RunContext, here: Here) -> None:
    before = view_of(killed)
    assert (before.run["status"], before.components[NAME]["status"]) == ("running", "running")
    assert here(killed) == "success"
    assert_state_agrees(killed)
    assert way_of(killed) == ["pending", "queued", "running", "recovering", "running", "success"]
    assert view_of(killed).run["attempt"] == 2
    assert [event.subject for event in events_of(killed, "resume_from_checkpoint")][-1] == "segmenter"
    probe = [event.to for event in events_of(killed, "component_status") if event.subject == NAME]
    assert probe == ["running", "waiting", "running", "success"]


def test_the_sensor_ends_the_state_of_a_killed_run(
    killed: RunContext, dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = killed.deployment
    monkeypatch.setattr(resources.TrendFlowResource, "deployment", property(lambda self: deployment))
    definitions = build_definitions(deployment)
    sensor = definitions.get_sensor_def("state_of_failed_runs")
    tags = {"dagster/partition": killed.identity.partition_key}
    with DagsterInstance.get() as instance:
        job = definitions.resolve_job_def(PROCESS_VIDEO)
        lost, later = (instance.create_run_for_job(job, tags=tags) for _ in range(2))

        def tick(of: Any) -> None:
            instance.report_run_failed(of)
            ended = instance.get_run_by_id(of.run_id)
            assert ended is not None
            event = next(entry.dagster_event for entry in instance.all_logs(of.run_id) if entry.dagster_event)
            context = build_run_status_sensor_context(
                sensor.name, event, instance, ended, resources={"trendflow": resources.TrendFlowResource()}
            )
            sensor(context)

        tick(lost)
        assert view_of(killed).run["status"] == "running", "another attempt has followed, it may be alive"
        tick(later)
    view = view_of(killed)
    assert (view.run["status"], view.run["error_code"]) == ("error", "internal_error")
    assert view.components[NAME]["error_code"] == "internal_error"
    assert not conclude(deployment, killed.run_path, TrendFlowError("cancelled", "Too late."))


def test_of_two_processes_at_one_run_the_earlier_one_stops_and_stores_nothing_more(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    runs: list[RunContext] = []

    def overtaken(inputs: ComponentInputs) -> Artifact:
        other = RunManager.open(deployment.states, runs[0].run_path, holder="other")
        assert other is not None
        other.begin(worker="other", device=None, resolved_models={})
        return value(1.0)

    add_probes(deployment, {"a": Probe(overtaken), "b": Probe(lambda inputs: value(2.0))})
    runs.append(submit(deployment, clip))
    with pytest.raises(Fenced):
        here(runs[0])
    assert statuses(runs[0]) == {"segmenter": "ok"}
    assert runs[0].manifest()["run"]["finished_at"] is None
    assert not deployment.store.exists(f"result_store/{runs[0].run_path}/a/a.npz")
    assert list(deployment.store.list("benchmark_costs")) == []
    assert way_of(runs[0])[-2:] == ["recovering", "running"], "the run belongs to the other one"


def test_a_cancelled_run_stops_at_the_next_unit_and_can_be_continued(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LOOK_SEC", 0.01)
    runs: list[RunContext] = []

    def cancelled(inputs: ComponentInputs) -> Artifact:
        while deployment.states.request_cancel(runs[0].run_path) and len(way_of(runs[0])) == 3:
            try:
                inputs.progress(1, 2)
            except Exception:
                pytest.fail("a component that catches its own errors must not catch this")
        return value(1.0)

    add_probes(deployment, {"a": Probe(cancelled), "b": Probe(lambda inputs: value(2.0))})
    runs.append(submit(deployment, clip))
    run = runs[0]
    assert here(run) == "cancelled"
    view = view_of(run)
    assert (view.run["status"], view.run["error_code"]) == ("cancelled", "cancelled")
    assert {name: row["status"] for name, row in view.components.items()} == {
        "segmenter": "success",
        "a": "error",
        "b": "skipped",
    }
    assert statuses(run) == {"segmenter": "ok"}
    assert {entry["because"] for entry in run.manifest()["run"]["skipped"]} == {"cancelled"}
    monkeypatch.setattr(deployment.states, "request_cancel", lambda run_path: False)
    assert here(run) == "success"
    assert_state_agrees(run)


def test_an_interrupted_run_is_cancelled(deployment: Deployment, clip: Path, submit: Submit, here: Here) -> None:
    def interrupted(inputs: ComponentInputs) -> Artifact:
        raise KeyboardInterrupt

    add_probes(deployment, {"a": Probe(interrupted), "b": Probe(lambda inputs: value(2.0))})
    run = submit(deployment, clip)
    assert here(run) == "cancelled"
    view = view_of(run)
    assert (view.run["status"], view.components["a"]["error_code"]) == ("cancelled", "cancelled")
    assert [view.components[name]["status"] for name in ("segmenter", "a", "b")] == ["success", "error", "skipped"]
    assert statuses(run) == {"segmenter": "ok"}
    assert {entry["name"] for entry in run.manifest()["run"]["skipped"]} == {"a", "b"}


def test_a_run_whose_events_cannot_be_stored_does_not_go_on(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_WAITS", (0.0,))
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))
    real = ObjectStore.put_if_absent

    def refuse(self: ObjectStore, key: str, data: Any) -> bool:
        if "/events/" in key:
            raise TrendFlowError("storage_unavailable", "The disk is full.")
        return real(self, key, data)

    def work(inputs: ComponentInputs) -> Artifact:
        monkeypatch.setattr(ObjectStore, "put_if_absent", refuse)
        inputs.progress(1, 1)
        return value(1.0)

    add_probes(deployment, {"a": Probe(work), "b": Probe(lambda inputs: value(2.0))})
    run = submit(deployment, clip)
    with pytest.raises(TrendFlowError) as caught:
        here(run)
    assert caught.value.error_code == "storage_unavailable"
    monkeypatch.setattr(ObjectStore, "put_if_absent", real)
    assert view_of(run).run["status"] == "running"
    monkeypatch.setitem(vars(deployment.registry["a"].module), "run", lambda inputs: value(1.0))
    assert here(run) == "success"
    assert_state_agrees(run)


def test_a_run_without_a_state_gets_one_when_it_is_continued(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    deployment.store.delete(f"state/{run.run_path}/run_state.json")
    deployment.store.delete_prefix(f"state/{run.run_path}/events")
    for name in ("segmenter", "visual", "audio"):
        deployment.store.delete(f"state/{run.run_path}/state_{name}.json")
    assert here(run) == "success"
    assert_state_agrees(run)
    assert run_status(run, run.manifest()) == "success"
    row = find_row(run.manifest(), "segmenter")
    assert row is not None
    assert row["cache_hit"] is False


def test_a_run_is_queued_once_its_message_is_and_only_before_it_runs(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    queued(deployment, run.run_path)
    assert view_of(run).run["status"] == "queued"
    assert here(run) == "success"
    queued(deployment, run.run_path)
    queued(deployment, "upload/unknown/unknown-run")
    assert way_of(run) == ["pending", "queued", "running", "success"]
