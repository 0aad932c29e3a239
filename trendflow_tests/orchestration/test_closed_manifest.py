"""The manifest of a run that was cancelled, or ended outside of its components, is closed and agrees with its state."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration import assets
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.run_state import conclude, executing
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.submitting import open_desk, required_components
from trendflow.orchestration.wrapper import run_error, run_status
from trendflow.service.run_archive import archived_status
from trendflow.state.run_manager import RunManager
from trendflow.submission.outcomes import Outcomes
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import NAME, Probe, add_probe, add_probes, value
from trendflow_tests.orchestration.runs import Here, Submit, assert_state_agrees
from trendflow_tests.orchestration.scheduling import Stage, handed_over

CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir))


def assert_both_say_cancelled(run: RunContext) -> None:
    manifest, view = run.manifest(), run.deployment.states.read_run(run.run_path)
    assert view is not None
    error = run_error(run, manifest)
    assert error is not None
    assert run_status(run, manifest) == view.run["status"] == "cancelled"
    assert (error.error_code, error.message) == (view.run["error_code"], view.run["error"])
    archived = archived_status(manifest, run.required)
    assert (archived["status"], archived["error_code"], archived["error"]) == ("cancelled", "cancelled", error.message)
    assert archived["progress"]["overall"] == 1.0


def test_while_it_waited(deployment: Deployment, clip: Path, submit: Submit) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    assert conclude(deployment, run.run_path, CANCELLED)
    assert_both_say_cancelled(run)


@pytest.mark.parametrize("required", [True, False])
def test_at_work(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing is missing but optional components."""

    def interrupted(inputs: ComponentInputs) -> Artifact:
        raise KeyboardInterrupt

    add_probes(deployment, {"a": Probe(interrupted, required=required), "b": Probe(interrupted, required=required)})
    run = submit(deployment, clip)
    assert here(run) == "cancelled"
    assert_both_say_cancelled(run)
    for name in ("a", "b"):
        monkeypatch.setitem(vars(deployment.registry[name].module), "run", lambda inputs: value(1.0))
    assert here(run) == "success"
    assert_state_agrees(run)


def test_a_run_that_was_continued_after_a_cancellation_fails_of_what_it_fails_of(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    def fails(inputs: ComponentInputs) -> Artifact:
        raise TrendFlowError("weights_missing", "The test says so.")

    probes = {
        "a": Probe(fails, required=False),
        "b": Probe(lambda inputs: value(1.0), hard=("a",)),
        "c": Probe(lambda inputs: value(1.0)),
    }
    add_probes(deployment, probes)
    run = submit(deployment, clip)
    assert conclude(deployment, run.run_path, CANCELLED)
    assert here(run) == "error"
    error = run_error(run, run.manifest())
    assert error is not None
    assert (run_status(run, run.manifest()), error.error_code) == ("error", "dependency_missing")
    assert "b was skipped" in error.message


@pytest.mark.parametrize("is_cancelled_before", [False, True])
def test_a_run_that_ends_outside_of_its_components_has_a_closed_manifest(
    deployment: Deployment, clip: Path, submit: Submit, is_cancelled_before: bool
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    if is_cancelled_before:
        assert conclude(deployment, run.run_path, CANCELLED)
    with pytest.raises(ZeroDivisionError), executing(run):
        _ = 1 / 0
    manifest, view = run.manifest(), deployment.states.read_run(run.run_path)
    assert view is not None
    assert manifest["run"]["finished_at"] is not None
    assert run_status(run, manifest) == view.run["status"] == "error"
    assert {entry["because"] for entry in manifest["run"]["skipped"]} == {"the run ended with internal_error"}


def test_a_run_that_ends_between_two_components_has_a_closed_manifest(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    real = assets.blocked_by

    def breaks(run: RunContext, component: str) -> str | None:
        if component == NAME:
            raise OSError("The test says so.")
        return real(run, component)

    monkeypatch.setattr(assets, "blocked_by", breaks)
    assert here(run) == "error"
    manifest, view = run.manifest(), deployment.states.read_run(run.run_path)
    assert view is not None
    assert run_status(run, manifest) == view.run["status"] == "error"
    (skipped,) = manifest["run"]["skipped"]
    assert skipped == {"name": NAME, "because": f"the run ended with {view.run['error_code']}"}
    assert (view.components[NAME]["status"], view.components[NAME]["error"]) == ("skipped", skipped["because"])
    monkeypatch.setattr(assets, "blocked_by", real)
    assert here(run) == "success"
    assert_state_agrees(run)


@pytest.mark.parametrize("code", ["internal_error", "storage_unavailable"])
def test_a_run_that_was_lost_after_it_was_continued_was_not_cancelled(
    deployment: Deployment, clip: Path, submit: Submit, code: str
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    assert conclude(deployment, run.run_path, CANCELLED)
    begin(run)
    assert conclude(deployment, run.run_path, TrendFlowError(code, "The process is gone."))
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert run_status(run, run.manifest()) == view.run["status"] == "error"


def begin(run: RunContext) -> None:
    manager = RunManager.open(run.deployment.states, run.run_path, holder="worker")
    assert manager is not None
    manager.begin(worker="worker", device=None, resolved_models={})


def test_a_report_of_what_is_kept_longer_than_the_state_says_so_too(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    deployment = stage.deployment
    assert conclude(deployment, message.run_path, CANCELLED)
    desk, graph = open_desk(deployment), deployment.graph
    outcomes = Outcomes(desk.store, desk.states, desk.inbox, lambda profile: required_components(graph, profile))
    with_state = outcomes.of_run(message.run_path)
    deployment.store.delete_prefix(f"state/{message.run_path}")
    deployment.store.delete_prefix("state/_global")
    without = outcomes.of_run(message.run_path)
    for outcome in (with_state, without):
        assert (outcome.status, outcome.error_code, outcome.error) == ("cancelled", "cancelled", CANCELLED.message)
