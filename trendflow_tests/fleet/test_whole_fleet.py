"""The fleet as a user has it: started, examined, hurt and ended by the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from trendflow.contracts.manifest import find_row
from trendflow.contracts.video_document import VideoDocument
from trendflow.fleet.environment import fleet_environment
from trendflow.fleet.state import read_state
from trendflow.fleet.supervisor import read_site
from trendflow.orchestration.submitting import profile_versions
from trendflow.orchestration.waiting_text import waiting_texts
from trendflow.processes import started_ticks_of
from trendflow_tests.faults.search import in_broker, in_database, in_files, in_store
from trendflow_tests.fleet.production import Production
from trendflow_tests.orchestration.canaries import CANARIES
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import write_graph

pytestmark = pytest.mark.xdist_group("fleet")

COMPONENTS = ("segmenter", "loudness_extractor", "text_processor")
DOCUMENT: dict[str, Any] = {
    "title": f"{CANARIES[0]} is not #{CANARIES[1]}",
    "description": f"{CANARIES[2]} by @{CANARIES[3]}",
    "tags": [CANARIES[4]],
}
_POLL_S = 0.5


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a backend puts what its users upload."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def trendflow(models_dir: Path, uploads: Path) -> Iterator[Cli]:
    """The command line in the home of a fleet with two workers."""
    # Not below pytest's folder, which only this user may enter: root's database would be kept in /var/lib.
    with tempfile.TemporaryDirectory(prefix="trendflow-fleet-") as folder:
        Path(folder).chmod(0o755)
        graph = write_graph(Path(folder) / "component_graph.yaml", *COMPONENTS)
        settings = {"GRAPH_FILE": str(graph), "UPLOADS": str(uploads), "MIN_FREE_GB": "0"}
        cli = Cli(Path(folder), models_dir, **{f"TRENDFLOW_{name}": value for name, value in settings.items()})
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
    services = {"seaweedfs", "valkey", "postgresql", "code-trendflow", "code-training", "webserver", "daemon"}
    services |= {"api", "worker-1", "worker-2", "keeper"}
    assert set(status(trendflow)) == services
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
    assert checks["fleet"]["finding"] == "11 services are healthy"
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


TICKS = """{ sensorOrError(sensorSelector: {
  repositoryLocationName: "trendflow", repositoryName: "__repository__", sensorName: "take_submissions"
}) { ... on Sensor { sensorState { ticks(limit: 1) { timestamp status } } } } }"""
LOCATIONS = """{ workspaceOrError { ... on Workspace {
  locationEntries { name loadStatus locationOrLoadError { __typename } }
} } }"""


def test_reload_loads_the_code_of_a_location_anew(trendflow: Cli) -> None:
    before = pids(trendflow)
    proxy = psutil.Process(before["code-training"])
    (old,) = proxy.children()
    answer = ask(trendflow, 'mutation { reloadRepositoryLocation(repositoryLocationName: "training") { __typename } }')
    assert answer["reloadRepositoryLocation"] == {"__typename": "WorkspaceLocationEntry"}
    wait_until(lambda: len(proxy.children()) == 1 and old not in proxy.children())
    assert pids(trendflow) == before
    wait_until(lambda: {row["condition"] for row in status(trendflow).values()} == {"healthy"})


def test_code_is_loaded_once_and_again_when_its_servers_are_killed(trendflow: Cli) -> None:
    before = pids(trendflow)
    assert [psutil.Process(before[name]).children() for name in ("webserver", "daemon")] == [[], []]
    (child,) = psutil.Process(before["code-trendflow"]).children()
    os.kill(child.pid, signal.SIGKILL)
    os.kill(before["code-training"], signal.SIGKILL)
    killed = ("code-trendflow", "code-training")
    wait_until(lambda: all(pids(trendflow)[name] != before[name] for name in killed))
    wait_until(lambda: {row["condition"] for row in status(trendflow).values()} == {"healthy"})
    mended = time.time()
    assert {name: pid for name, pid in pids(trendflow).items() if before[name] != pid}.keys() == set(killed)

    def ticks() -> bool:
        found = ask(trendflow, TICKS)["sensorOrError"]["sensorState"]["ticks"]
        return any(tick["timestamp"] > mended and tick["status"] == "SKIPPED" for tick in found)

    wait_until(ticks)

    def locations() -> dict[str, tuple[str, str]]:
        found = ask(trendflow, LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {row["name"]: (row["loadStatus"], row["locationOrLoadError"]["__typename"]) for row in found}

    loaded = ("LOADED", "RepositoryLocation")
    wait_until(lambda: locations() == {"trendflow": loaded, "training": loaded})


def test_the_number_of_workers_can_change(trendflow: Cli) -> None:
    before = pids(trendflow)
    trendflow("up", "--workers", "1")
    fewer = pids(trendflow)
    assert fewer == {name: pid for name, pid in before.items() if name != "worker-2"}
    trendflow("up", "--workers", "2")
    more = pids(trendflow)
    assert {name: more[name] for name in fewer} == fewer
    assert "worker-2" in more


@pytest.fixture
def production(trendflow: Cli, monkeypatch: pytest.MonkeyPatch) -> Production:
    """The same fleet, to which this process belongs meanwhile."""
    own = {name: value for name, value in trendflow.environment.items() if name.startswith("TRENDFLOW_")}
    for name, value in (own | fleet_environment(read_site(trendflow.home / "fleet"))).items():
        monkeypatch.setenv(name, value)
    made = Production(trendflow.home, own)
    made.connect()
    return made


def test_the_text_of_a_video_is_measured_and_stays_nowhere(
    trendflow: Cli, production: Production, uploads: Path
) -> None:
    """As a backend does it: an upload, a request with the text, and the answers of the API. One worker dies of it."""
    root = f"http://127.0.0.1:{port(trendflow, 'api')}"
    token = {"Authorization": f"Bearer {(trendflow.home / 'fleet' / 'api' / 'token').read_text()}"}
    texts = waiting_texts(production.deployment.settings)
    assert texts is not None
    write_clip(uploads / "film.mp4").rename(uploads / "upload-1")
    shutil.copyfile(uploads / "upload-1", uploads / "upload-2")

    def process(upload_id: str, **more: Any) -> str:
        request = {
            "video_id": f"film-of-{upload_id}",
            "platform_id": "upload",
            "upload_id": upload_id,
            "profile": "starter",
            **profile_versions(production.deployment.graph, "starter"),
            **more,
        }
        answer = httpx.post(f"{root}/api/v1/process", json=request, headers=token, timeout=120, trust_env=False)
        assert answer.status_code == 202, answer.text
        return f"upload/{request['video_id']}/{answer.json()['run_id']}"

    def asked(run_path: str, path: str) -> httpx.Response:
        return get(f"{root}/api/v1/runs/{run_path.rpartition('/')[2]}/{path}", **token).raise_for_status()

    document = VideoDocument(DOCUMENT["title"], DOCUMENT["description"], tuple(DOCUMENT["tags"]))
    needles = {
        "text": [form for word in CANARIES[:5] for form in (word, word.lower(), word.upper())],
        "digest": [document.digest],
    }
    told = process("upload-1", document=DOCUMENT)
    killed = production.kill_a_worker_at_work()
    assert killed.run_path == told
    assert texts.get(document.digest, told) == document, "what died with its worker waits for the next one"
    broker = os.environ["TRENDFLOW_BROKER_URL"]
    waiting = in_broker(broker, needles)
    assert set.union(*waiting.values()) == {"digest"}

    untold = process("upload-2")
    runs = (told, untold)
    wait_until(lambda: all(asked(run, "status").json()["status"] in ("success", "error") for run in runs))
    assert [asked(run, "status").json()["status"] for run in runs] == ["success", "success"]
    manifests = {run: asked(run, "manifest").json() for run in runs}
    assert manifests[told]["run"]["document_digest"] == document.digest
    assert manifests[untold]["run"]["document_digest"] is None
    rows = [find_row(manifests[run], "text_processor") or {} for run in runs]
    assert [(row["status"], row["error_code"]) for row in rows] == [("ok", None), ("error", "dependency_missing")]
    with np.load(io.BytesIO(asked(told, "artifacts/text_processor/text_processor.npz").content)) as stored:
        found = dict(zip(stored["feature_names"].tolist(), stored["feature_values"].tolist(), strict=True))
        assert np.linalg.norm(stored["title_embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert found["tp_lex_title_len_words"] == 3  # without the hashtag
    assert found["tp_tags_hashtag_unique_count"] == 1
    assert found["tp_lex_description_mention_count"] == 1

    assert texts.get(document.digest, told) is None
    needles["run"] = [told.rpartition("/")[2], untold.rpartition("/")[2]]
    places = {
        "store": in_store(production.deployment.store, needles),
        "database": in_database(os.environ["TRENDFLOW_DATABASE_URL"], needles),
        "broker": in_broker(broker, needles),
        "files": in_files(trendflow.home, needles),
    }
    assert [key for key in places["broker"] if key.startswith("trendflow:text")] == []
    assert [name for place in places.values() for name, kinds in place.items() if "text" in kinds] == []
    # What was searched holds what it should.
    assert any("digest" in kinds for kinds in places["store"].values())
    assert {"event_logs", "runs"} <= set(places["database"])
    for part in ("fleet/logs/", "fleet/dagster/storage/", "fleet/postgresql/", "fleet/seaweedfs/", "fleet/valkey/"):
        assert any(name.startswith(part) for name in places["files"]), part
    wait_until(lambda: {row["condition"] for row in status(trendflow).values()} == {"healthy"})


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
    assert (down.returncode, down.stdout) == (0, "11 services ended\n")
    assert left_over(mark, sessions) == []
    assert {row["condition"] for row in status(trendflow).values()} == {"stopped"}
    assert trendflow("status").stdout.endswith("nothing is running; 'trendflow up' starts it\n")


def test_an_interrupted_up_says_what_goes_on(home: Path, models_dir: Path) -> None:
    cli = Cli(home, models_dir)
    # These tests may run as a background job, which ignores SIGINT.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "trendflow", "up"]
    try:
        with subprocess.Popen(command, env=cli.environment, stderr=subprocess.PIPE, text=True) as starting:
            wait_until(lambda: bool(pids(cli)))
            starting.send_signal(signal.SIGINT)
            _, said = starting.communicate()
        assert starting.returncode == 130
        assert said.splitlines()[-1].startswith("cancelled: Stopped; what has started goes on: 'trendflow up' starts")
        assert all(started_ticks_of(pid) is not None for pid in pids(cli).values())
    finally:
        cli("down")


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
