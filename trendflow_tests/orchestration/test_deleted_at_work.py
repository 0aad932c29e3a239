"""Whoever executes a run of a video that was deleted meanwhile stores nothing more of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.components.base import Artifact, ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import run_component, store
from trendflow.storage.tombstones import tombstone_key
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Execute, Submit

SECRET = "a key of a test"


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir, tombstone_key=SECRET))


def buried(run: RunContext) -> None:
    identity = run.identity
    stone = tombstone_key(identity.platform_id, identity.video_id, SECRET.encode())
    run.deployment.store.put(stone, b"{}")


def without_manifest(run: RunContext) -> None:
    run.deployment.store.delete(f"result_store/{run.run_path}/manifest.json")


@pytest.mark.parametrize(
    ("happens", "code"), [(buried, "input_constraint_violated"), (without_manifest, "dependency_missing")]
)
@pytest.mark.parametrize("fails", [False, True])
def test_neither_a_result_nor_its_error_is_stored(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    happens: Callable[[RunContext], None],
    code: str,
    fails: bool,
) -> None:
    def work(inputs: ComponentInputs) -> Artifact:
        if fails:
            raise TrendFlowError("video_file_corrupted", "The probe cannot be read.")
        return value(1.0)

    add_probe(deployment, work)
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    finished = run_component(run, NAME)
    happens(run)
    before = {info.key: deployment.store.get(info.key) for info in deployment.store.list()}
    with pytest.raises(TrendFlowError) as caught:
        store(run, finished)
    assert caught.value.error_code == code
    assert {info.key: deployment.store.get(info.key) for info in deployment.store.list()} == before
