"""Submissions through Dagster's own daemon: from the inbox to results, and to a second submission that is cached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trendflow.config import Settings
from trendflow.orchestration.deployment import Deployment
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.dagster_server import DagsterServer, running_server
from trendflow_tests.orchestration.runs import AUDIO, write_graph
from trendflow_tests.orchestration.scheduling import entries, put_in

pytestmark = pytest.mark.xdist_group("scheduler-daemon")

LIMIT_SEC = 600.0


@pytest.fixture
def cli(tmp_path: Path, models_dir: Path) -> Cli:
    graph = write_graph(tmp_path / "component_graph.yaml", *sorted(AUDIO))
    settings = {"GRAPH_FILE": str(graph), "SUBMISSION_WINDOW_SEC": "0.5", "MIN_FREE_GB": "0"}
    return Cli(tmp_path / "home", models_dir, **{f"TRENDFLOW_{name}": value for name, value in settings.items()})


@pytest.fixture
def server(cli: Cli) -> Iterator[DagsterServer]:
    with running_server(cli) as running:
        yield running


def test_what_is_submitted_is_processed_or_explained_and_found_again(
    cli: Cli, server: DagsterServer, clip: Path, tmp_path: Path, models_dir: Path
) -> None:
    settings = Settings(home=cli.home, models=models_dir, graph_file=tmp_path / "component_graph.yaml", min_free_gb=0)
    deployment = Deployment(settings)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:2000])
    server.wait(lambda: settings.home.exists(), LIMIT_SEC)
    put_in(deployment, [*entries(["good", "good"], clip), *entries(["broken"], broken)])

    def level1() -> dict[str, str]:
        rows = deployment.states.read_global()["runs"]
        return {path.split("/")[1]: row["status"] for path, row in rows.items()}

    server.wait(lambda: set(level1().values()) == {"success", "error"}, LIMIT_SEC)
    assert level1() == {"good": "success", "broken": "error"}
    for path in deployment.states.read_global()["runs"]:
        view = deployment.states.read_run(path)
        assert view is not None
        assert view.run["status"] == level1()[path.split("/")[1]]

    listed = tmp_path / "list.csv"
    listed.write_text(f"source,video_id\n{clip},good\n")
    again = cli("submit", "--list", str(listed), "--json")
    assert [item["decision"] for item in json.loads(again.stdout)["items"]] == ["cached"]
