"""The disk of scratch files is full: a small file system of its own, and the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext, view_run
from trendflow_tests.faults.runs import assert_whole, rows
from trendflow_tests.orchestration.queue.stage import wait_for
from trendflow_tests.orchestration.runs import AUDIO, write_graph

pytestmark = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this system lets nobody mount a file system of his own (unshare -rm)",
)

# The file system holds all that a run needs, less what the filler takes.
_IN_A_SMALL_PLACE = """
mount -t tmpfs -o size=64m none "$1"
head -c 100000000 /dev/zero > "$1/filler" 2> /dev/null
shift
exec "$@"
"""
VIDEO = "a-clip"

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    graph = write_graph(tmp_path / "component_graph.yaml", *sorted(AUDIO))
    settings = Settings(home=tmp_path / "home", models=models_dir, graph_file=graph, onnx_threads=1)
    settings.scratch_dir.mkdir(parents=True)
    return Deployment(settings)


@pytest.fixture
def start(deployment: Deployment, clip: Path) -> Start:
    """Starts `trendflow process` where scratch is full, under this run id."""
    settings = deployment.settings

    def started(run_id: str) -> subprocess.Popen[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
            "TRENDFLOW_HOME": str(settings.home),
            "TRENDFLOW_MODELS": str(settings.models),
            "TRENDFLOW_GRAPH_FILE": str(settings.graph_file),
        }
        process = [sys.executable, "-m", "trendflow", "process", str(clip), "--video-id", VIDEO, "--run-id", run_id]
        command = ["unshare", "-rm", "sh", "-c", _IN_A_SMALL_PLACE, "sh", str(settings.scratch_dir), *process]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return started


def retries(run: RunContext) -> list[str]:
    events = run.deployment.states.events(run.run_path)
    return [event.data["error_code"] for event in events if event.type == "retry_scheduled"]


def test_a_disk_that_stays_full_is_explained_and_one_that_empties_is_not_noticed(
    deployment: Deployment, start: Start
) -> None:
    with start("full") as process:
        out, err = process.communicate()
    assert process.returncode == 75, out + err
    run = view_run(deployment, f"{VIDEO}/full")
    assert_whole(run)
    row = rows(run)["segmenter"]
    assert (row["status"], row["error_code"], row["error"]) == ("error", "storage_unavailable", "The disk is full.")
    assert row["retry_count"] == run.manifest()["run"]["retry_count"] == 3
    assert retries(run) == ["storage_unavailable"] * 3

    with start("emptied") as process:
        manifest = f"result_store/upload/{VIDEO}/emptied/manifest.json"
        wait_for(lambda: deployment.store.exists(manifest), "the run")
        emptied = view_run(deployment, f"{VIDEO}/emptied")
        wait_for(lambda: retries(emptied), "the first failure")
        # The file system of the process, seen from outside.
        Path(f"/proc/{process.pid}/root{deployment.settings.scratch_dir}/filler").unlink()
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert_whole(emptied)
    assert {name: row["status"] for name, row in rows(emptied).items()} == dict.fromkeys(AUDIO, "ok")
    assert rows(emptied)["segmenter"]["retry_count"] == len(retries(emptied)) >= 1
