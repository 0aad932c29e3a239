"""The fleet as a user has it: started, examined, hurt and ended by the command line."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from trendflow.fleet.state import read_state
from trendflow.processes import started_ticks_of
from trendflow_tests.orchestration.command_line import Cli

pytestmark = pytest.mark.xdist_group("fleet")

_POLL_S = 0.5


@pytest.fixture(scope="module")
def trendflow(models_dir: Path) -> Iterator[Cli]:
    """The command line in the home of a fleet with two workers."""
    # Not below pytest's folder, which only this user may enter: root's database would be kept in /var/lib.
    with tempfile.TemporaryDirectory(prefix="trendflow-fleet-") as folder:
        Path(folder).chmod(0o755)
        cli = Cli(Path(folder), models_dir, TRENDFLOW_MIN_FREE_GB="0")
        try:
            up = cli("up", "--workers", "2")
            assert up.returncode == 0, up.stderr
            yield cli
        finally:
            cli("down")


def status(trendflow: Cli) -> dict[str, dict[str, Any]]:
    found = json.loads(trendflow("status", "--json").stdout)
    return {row["service"]: row for row in found["services"]}


def pids(trendflow: Cli) -> dict[str, int]:
    return {found.service: found.process.pid for found in read_state(trendflow.home / "fleet").processes}


def wait_until(done: Callable[[], bool]) -> None:
    """However long it takes; what hangs is ended by pytest's own limit."""
    while not done():
        time.sleep(_POLL_S)  # leaves the cores to what is waited for


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=120, trust_env=False)


def port(trendflow: Cli, service: str) -> int:
    return read_state(trendflow.home / "fleet").ports[service]["http"]


def ask(trendflow: Cli, query: str) -> dict[str, Any]:
    """Dagster's own answer, from its web server."""
    url = f"http://127.0.0.1:{port(trendflow, 'webserver')}/graphql"
    answer = httpx.post(url, json={"query": query}, timeout=120, trust_env=False)
    return dict(answer.raise_for_status().json()["data"])


def test_everything_is_healthy_and_the_doctor_agrees(trendflow: Cli) -> None:
    services = ("seaweedfs", "valkey", "postgresql", "webserver", "daemon", "api", "worker-1", "worker-2", "keeper")
    assert set(status(trendflow)) == set(services)
    # On a busy machine a single look may be too slow for the limits of its checks; what is broken stays so.
    wait_until(lambda: {(row["condition"], row["reason"]) for row in status(trendflow).values()} == {("healthy", None)})
    examined: subprocess.CompletedProcess[str]

    def agrees() -> bool:
        nonlocal examined
        examined = trendflow("doctor", "--json")
        return examined.returncode == 0

    wait_until(agrees)
    checks = {row["name"]: row for row in json.loads(examined.stdout)["checks"]}
    assert checks["broker"]["finding"] == "it answers; 0 messages wait, 0 dead letters"
    assert checks["workers"]["finding"] == "2 are alive"
    assert checks["fleet"]["finding"] == "9 services are healthy"
    assert [name for name, row in checks.items() if row["state"] == "error"] == []
    assert all(checks[name]["state"] == "ok" for name in ("api users", "keys", "permissions", "clocks", "database"))


def test_dagster_has_the_graph_and_launches_through_the_queue(trendflow: Cli) -> None:
    assets = {
        "/".join(node["assetKey"]["path"]) for node in ask(trendflow, "{assetNodes{assetKey{path}}}")["assetNodes"]
    }
    assert {"segmenter", "prediction"} <= assets
    instance = ask(trendflow, "{instance{runLauncher{name} info}}")["instance"]
    assert instance["runLauncher"]["name"] == "QueueRunLauncher"
    assert "PostgresRunStorage" in instance["info"]


def test_only_the_token_opens_the_api(trendflow: Cli) -> None:
    root = f"http://127.0.0.1:{port(trendflow, 'api')}"
    kept = trendflow.home / "fleet" / "api" / "token"
    token = kept.read_text()
    assert get(f"{root}/health/live").status_code == 200
    assert get(f"{root}/health").status_code == 401
    wait_until(lambda: get(f"{root}/health", Authorization=f"Bearer {token}").json()["status"] == "ready")
    for name in ("api/token", "api/users.json", "secrets.json"):
        path = trendflow.home / "fleet" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in (trendflow.home / "fleet" / "api" / "users.json").read_text()
    printed = trendflow("status").stdout
    assert f"{root}/api/v1" in printed
    assert str(kept) in printed
    assert token not in printed


def test_a_second_up_changes_nothing(trendflow: Cli) -> None:
    before = pids(trendflow)
    again = trendflow("up")
    assert again.returncode == 0, again.stderr
    assert pids(trendflow) == before  # the number of workers, too, is that of the last time


def test_the_keeper_replaces_a_killed_worker_and_a_killed_api(trendflow: Cli) -> None:
    before = pids(trendflow)
    for name in ("worker-1", "api"):
        os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: all(pids(trendflow)[name] != before[name] for name in ("worker-1", "api")))
    wait_until(lambda: {row["condition"] for row in status(trendflow).values()} == {"healthy"})
    unchanged = set(before) - {"worker-1", "api"}
    assert {name: pids(trendflow)[name] for name in unchanged} == {name: before[name] for name in unchanged}
    words = (trendflow.home / "fleet" / "logs" / "keeper.log").read_text()
    assert "ALARM: the service worker-1 had ended" in words
    assert "ALARM: the service api had ended" in words


def test_the_number_of_workers_can_change(trendflow: Cli) -> None:
    before = pids(trendflow)
    trendflow("up", "--workers", "1")
    fewer = pids(trendflow)
    assert fewer == {name: pid for name, pid in before.items() if name != "worker-2"}
    trendflow("up", "--workers", "2")
    more = pids(trendflow)
    assert {name: more[name] for name in fewer} == fewer
    assert "worker-2" in more


def test_down_leaves_no_process(trendflow: Cli) -> None:
    """The last test: it ends what the others use."""
    mark = f"TRENDFLOW_HOME={trendflow.home}".encode()
    known = [
        identity
        for row in read_state(trendflow.home / "fleet").processes
        for identity in (row.process, row.log_writer)
        if identity is not None
    ]
    sessions = {identity.pid for identity in known}
    assert len(left_over(mark, sessions)) >= len(known)  # what is looked for below would be found
    down = trendflow("down")
    assert (down.returncode, down.stdout) == (0, "9 services ended\n")
    assert left_over(mark, sessions) == []
    assert {row["condition"] for row in status(trendflow).values()} == {"stopped"}


def left_over(mark: bytes, sessions: set[int]) -> list[int]:
    """Processes that were started with `mark` in their environment, or in one of the sessions."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            session = os.getsid(int(entry.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if (mark in variables or session in sessions) and started_ticks_of(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found
