"""A run that ended well answers a later submission of its video; any other one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.successes import note_all_if_lost
from trendflow.storage.run_index import RunIndex
from trendflow.submission.items import Cached, New
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import add_probe, value
from trendflow_tests.orchestration.runs import Here, Submit
from trendflow_tests.orchestration.scheduling import entries, put_in


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir, min_free_gb=0))


def test_a_run_that_ended_well_answers_a_later_submission(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip, video_id="a-video")
    assert here(run) == "success"
    asked = entries(["a-video", "another-video"], clip)
    found, new = put_in(deployment, asked).items
    assert found == Cached(run.run_path, run.manifest()["run"]["finished_at"])
    assert isinstance(new, New)
    assert isinstance(put_in(deployment, asked[:1], force=True).items[0], New)


def test_an_index_that_was_lost_is_made_again(deployment: Deployment, clip: Path, submit: Submit, here: Here) -> None:
    works = [True, False]

    def work(inputs: ComponentInputs) -> Artifact:
        if works.pop(0):
            return value(1.0)
        raise TrendFlowError("input_constraint_violated", "It cannot be done.")

    add_probe(deployment, work)
    run = submit(deployment, clip, video_id="a-video")
    failed = submit(deployment, clip, video_id="another-video", force=True)
    assert (here(run), here(failed)) == ("success", "error")
    assert note_all_if_lost(deployment) == 0
    deployment.store.delete_prefix("index/runs")
    assert note_all_if_lost(deployment) == 1
    found, new = put_in(deployment, entries(["a-video", "another-video"], clip)).items
    assert found == Cached(run.run_path, run.manifest()["run"]["finished_at"])
    assert isinstance(new, New)


def test_a_run_that_failed_does_not(deployment: Deployment, clip: Path, submit: Submit, here: Here) -> None:
    def fail(inputs: ComponentInputs) -> Artifact:
        raise TrendFlowError("input_constraint_violated", "It cannot be done.")

    add_probe(deployment, fail)
    assert here(submit(deployment, clip, video_id="a-video")) == "error"
    assert isinstance(put_in(deployment, entries(["a-video"], clip)).items[0], New)


def test_a_success_that_cannot_be_noted_is_one(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: RunIndex, identity: RunIdentity, finished_at: str) -> bool:
        raise TrendFlowError("storage_unavailable", "The store does not answer.")

    monkeypatch.setattr(RunIndex, "record", refuse)
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    assert here(run) == "success"
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert view.run["status"] == "success"
