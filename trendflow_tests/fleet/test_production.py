"""The whole of production on this machine: a list of videos goes in, a worker and the broker die, every video ends."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.runs import run_path_of, view_run
from trendflow_tests.fleet.production import PATIENCE_S, AtWork, Production, key_of, running_production
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.queue.stage import wait_for
from trendflow_tests.orchestration.runs import assert_state_agrees, problems, write_graph

pytestmark = pytest.mark.xdist_group("fleet")

COMPONENTS = ("segmenter", "core_optical_flow", "cut_detection", "loudness_extractor", "tempo_extractor")
"""None of them needs weights."""
CLIPS = 9
DUPLICATE, BROKEN, SHORT = CLIPS, CLIPS + 1, CLIPS + 2
"""Places in the list, behind the good clips."""


@pytest.fixture
def production(home: Path, models_dir: Path) -> Iterator[Production]:
    graph = write_graph(home / "component_graph.yaml", *COMPONENTS)
    environment = {
        "TRENDFLOW_GRAPH_FILE": str(graph),
        "TRENDFLOW_MODELS": str(models_dir),
        "TRENDFLOW_ONNX_THREADS": "1",
        "TRENDFLOW_MIN_FREE_GB": "0",
        "OMP_NUM_THREADS": "1",
    }
    with running_production(home, environment, workers=2) as running:
        yield running


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of twelve SYNTHETIC clips: nine good ones, one of them again, a broken one and one that is too short."""
    clips = [write_clip(tmp_path / f"clip-{seed}.mp4", seed) for seed in range(CLIPS)]
    again = tmp_path / "again"
    again.mkdir()
    duplicate = again / clips[2].name
    duplicate.write_bytes(clips[2].read_bytes())
    broken = tmp_path / "broken.mp4"
    data = write_clip(tmp_path / "whole.mp4", CLIPS).read_bytes()
    broken.write_bytes(data[: len(data) // 2])  # as an upload that broke off: the index at the end is missing
    short = write_clip(tmp_path / "short.mp4", CLIPS + 1, seconds=2)
    path = tmp_path / "videos.txt"
    path.write_text("\n".join(map(str, [*clips, duplicate, broken, short])))
    return path


def test_every_video_ends_whatever_dies_meanwhile(production: Production, listed: Path) -> None:
    submit = ("submit", "--list", str(listed), "--wait", "--json")
    submitting = production.command(*submit)
    killed = production.kill_a_worker_at_work()
    # The other worker is in the middle of a run when the broker dies.
    others = wait_for(lambda: [path for path in production.runs() if path != killed.run_path], "other runs")
    wait_for(lambda: production.at_work(others), "the other worker at work", PATIENCE_S)
    broker = production.pid("valkey")
    os.kill(broker, signal.SIGKILL)
    wait_for(lambda: production.pid("valkey") != broker, "the broker started again", PATIENCE_S)
    first = json.loads(production.answer(submitting))

    items = first["items"]
    assert Counter(item["verdict"] for item in items) == {"done": 10, "explained": 2}
    assert first["decisions"] == {"new": 10, "cached": 0, "duplicate": 1, "exists": 0, "refused": 1}
    assert (items[DUPLICATE]["same_as"], items[DUPLICATE]["run_key"]) == (2, items[2]["run_key"])
    assert (items[BROKEN]["status"], items[BROKEN]["error_code"]) == ("error", "video_unreadable")
    assert (items[SHORT]["decision"], items[SHORT]["error_code"]) == ("refused", "input_constraint_violated")
    good = [item["run_key"] for item in items[:CLIPS]]
    assert_everything_ended(production, good, [items[BROKEN]["run_key"]])
    assert_computed_once(production, good, killed)
    assert production.begun(run_path_of(items[BROKEN]["run_key"])) <= Counter(["segmenter"])
    wait_for(lambda: set(production.conditions().values()) == {"healthy"}, "the repaired fleet", PATIENCE_S)

    # The same list again: nothing but the video that failed is worked on.
    before = stored(production)
    second = json.loads(production.answer(production.command(*submit)))
    again = second["items"]
    assert Counter(item["verdict"] for item in again) == {"done": 10, "explained": 2}
    assert second["decisions"] == {"new": 1, "cached": 9, "duplicate": 1, "exists": 0, "refused": 1}
    assert [item["run_key"] for item in again[:BROKEN]] == [item["run_key"] for item in items[:BROKEN]]
    after = stored(production)
    assert before <= after
    assert {run_id_in(key) for key, _ in after - before} == {again[BROKEN]["run_key"].partition("/")[2]}
    assert_everything_ended(production, good, [items[BROKEN]["run_key"], again[BROKEN]["run_key"]])


def assert_everything_ended(production: Production, good: Sequence[str], broken: Sequence[str]) -> None:
    """Dagster, level 1, state, manifests and the broker agree that these runs have ended, and there are no others."""
    expected = {**dict.fromkeys(good, "success"), **dict.fromkeys(broken, "error")}

    def level1() -> dict[str, Any]:
        runs = production.deployment.states.read_global()["runs"]
        return {key_of(path): row["status"] for path, row in runs.items()}

    wait_for(lambda: level1() == expected, "level 1 to know how the runs ended", PATIENCE_S)
    wait_for(lambda: not production.board.unacknowledged(), "the last message to be settled")
    assert not any(production.board.waiting().values())
    assert production.board.running() == {}
    assert production.board.dead_letters() == []
    with DagsterInstance.get() as instance:
        assert set(instance.get_dynamic_partitions(VIDEO_RUNS)) == expected.keys()
        found = {run.tags["dagster/partition"]: run.status for run in instance.get_runs()}
        assert len(instance.get_runs()) == len(expected)
    assert {key for key, status in found.items() if status == DagsterRunStatus.SUCCESS} == set(good)
    assert {key for key, status in found.items() if status == DagsterRunStatus.FAILURE} == set(broken)
    for key in expected:
        assert_state_agrees(view_run(production.deployment, key))
        assert problems(production.deployment, run_path_of(key)) == []


def assert_computed_once(production: Production, good: Sequence[str], killed: AtWork) -> None:
    """Every component of every run was computed once, but for the one that died with its worker."""
    for key in good:
        path = run_path_of(key)
        begun = Counter(COMPONENTS)
        if path == killed.run_path:
            begun[killed.component] += 1
        assert production.begun(path) == begun
        manifest = view_run(production.deployment, key).manifest()
        assert [row["name"] for row in manifest["components"] if row["cache_hit"]] == []
    view = production.deployment.states.read_run(killed.run_path)
    assert view is not None
    assert view.run["attempt"] == 2
    assert view.components[killed.component]["owner"] != killed.worker


def stored(production: Production) -> set[tuple[str, str | None]]:
    """Keys of all results, each with the tag of its content."""
    return {(info.key, info.etag) for info in production.deployment.store.list("result_store")}


def run_id_in(key: str) -> str:
    """`result_store/<platform>/<video>/<run>/…`"""
    return key.split("/")[3]
