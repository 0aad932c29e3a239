"""What the fault tests ask of a run that met a fault, and of the store it is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import run_status
from trendflow_tests.orchestration.runs import assert_state_agrees, problems

# What any two runs differ in: their ids, how often something had to be said, and what it cost.
_OF_ONE_RUN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_COUNTED = re.compile(r"(state/.*/events|index/artifacts)/.*")


def kinds_of_objects(deployment: Deployment) -> set[str]:
    """The keys of a store, without what two equal runs differ in."""
    keys = (_OF_ONE_RUN.sub("RUN", info.key) for info in deployment.store.list())
    return {_COUNTED.sub(r"\1", key) for key in keys if not key.startswith("costs/")}


def rows(run: RunContext) -> Mapping[str, Mapping[str, Any]]:
    """Manifest rows by component."""
    return {row["name"]: row for row in run.manifest()["components"]}


def assert_ended_alike(run: RunContext) -> None:
    """State and manifest agree that the run has ended, and how; which of its components did not, both say in words."""
    view, manifest = run.deployment.states.read_run(run.run_path), run.manifest()
    assert view is not None
    assert manifest["run"]["finished_at"]
    assert view.run["status"] == run_status(run, manifest)
    done = {name for name, row in view.components.items() if row["status"] in ("success", "empty")}
    assert done == {row["name"] for row in manifest["components"] if row["status"] in ("ok", "empty")}


def assert_whole(run: RunContext) -> None:
    """The run ended, state and manifest say the same, what is stored is valid, and no scratch is left."""
    assert run.manifest()["run"]["finished_at"]
    assert_state_agrees(run)
    assert problems(run.deployment, run.run_path) == []
    settings = run.deployment.settings
    assert [path for path in settings.scratch_dir.rglob("*") if path.is_file()] == []
    assert list(settings.home.rglob(".tmp-*")) == []
