"""Kill -9 at write points of a run: the store stays valid and the next attempt ends in the same digests."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trendflow.config import Settings
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import open_run
from trendflow.orchestration.validation import validate_run
from trendflow.orchestration.wrapper import persist, run_component

COMPONENTS = ("segmenter", "loudness_extractor", "tempo_extractor")
PUBLISHING_CALLS = ("replace", "link", "rename")


def _attempt(home: Path, models: Path, key: str, die_at: int, counter: Any) -> None:
    """Runs in a child: the `die_at`-th call that publishes an object kills the process instead."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            counter.value = calls
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    deployment = Deployment(Settings(home=home, models=models))
    deployment.store  # noqa: B018  (the probe's own writes are not the run's)
    for name in PUBLISHING_CALLS:
        setattr(os, name, counted(getattr(os, name)))
    run = open_run(deployment, key)
    for component in COMPONENTS:
        persist(run, run_component(run, component))


@pytest.mark.timeout(300)
def test_a_killed_run_is_valid_and_completes_to_the_same_digests(
    tmp_path: Path, models_dir: Path, clip: Path, submit: Callable[..., Any]
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trendflow.orchestration.wrapper", "trendflow.components.audio.tempo_extractor"])
    counter = context.Value("i", 0)

    def attempt(home: Path, key: str, die_at: int) -> int:
        child = context.Process(target=_attempt, args=(home, models_dir, key, die_at, counter))
        child.start()
        child.join()
        assert child.exitcode is not None
        return child.exitcode

    def digests(run: Any) -> dict[str, list[str]]:
        return {
            row["name"]: [artifact["content_digest"] for artifact in row["artifacts"]]
            for row in run.manifest()["components"]
        }

    reference = Deployment(Settings(home=tmp_path / "reference", models=models_dir))
    run = submit(reference, clip)
    assert attempt(tmp_path / "reference", run.identity.partition_key, die_at=-1) == 0
    expected, writes = digests(run), counter.value
    assert set(expected) == set(COMPONENTS)
    assert writes > 10
    # A write point is one of a few kinds (frame batch, document, artifact, manifest, index); a stride without a common
    # factor with their periods visits all kinds without paying for each of the equal ones.
    for die_at in sorted({*range(1, writes + 1, 5), writes - 1, writes}):
        home = tmp_path / f"killed-{die_at}"
        deployment = Deployment(Settings(home=home, models=models_dir))
        run = submit(deployment, clip)
        key = run.identity.partition_key
        assert attempt(home, key, die_at) == -signal.SIGKILL
        problems = [found for found in validate_run(deployment, run.run_path) if found.severity == "problem"]
        assert problems == [], (die_at, problems)
        assert attempt(home, key, die_at=-1) == 0
        assert digests(run) == expected, die_at
        assert [f for f in validate_run(deployment, run.run_path) if f.severity == "problem"] == []


@pytest.mark.timeout(120)
def test_two_attempts_at_one_run_at_once_both_end_well(
    tmp_path: Path, models_dir: Path, clip: Path, submit: Callable[..., Any]
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trendflow.orchestration.wrapper", "trendflow.components.audio.tempo_extractor"])
    deployment = Deployment(Settings(home=tmp_path / "home", models=models_dir))
    run = submit(deployment, clip)
    counter = context.Value("i", 0)
    arguments = (tmp_path / "home", models_dir, run.identity.partition_key, -1, counter)
    children = [context.Process(target=_attempt, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    rows = {row["name"]: row["status"] for row in run.manifest()["components"]}
    assert set(rows) == set(COMPONENTS)
    assert "error" not in rows.values()
    assert [found for found in validate_run(deployment, run.run_path) if found.severity == "problem"] == []
