"""`trendflow doctor`: each examination against a thing that is wrong, and the command as a whole."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._daemon.daemon import SensorDaemon
from dagster._daemon.types import DaemonHeartbeat
from pydantic import SecretStr

from trendflow.commands import doctor_deployment, doctor_machine
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.files import make_folder
from trendflow.fleet.state import read_state, write_state
from trendflow.orchestration.queue.board import Board, SeenWorker, WorkerFacts
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.ports import held_ports

HOUR = timedelta(hours=1)


def raised(call: Callable[..., object], *arguments: object) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        call(*arguments)
    return caught.value


@pytest.fixture
def fleet_home(tmp_path: Path) -> Settings:
    """A home whose fleet was started once and is down: no process, one port, one secret."""
    folder = tmp_path / "fleet"
    make_folder(folder)
    write_state(folder, replace(read_state(folder), ports={"api": {"http": 1}}))
    (folder / "secrets.json").write_text(json.dumps({"deployment.tombstone_key": "k" * 48}))
    (folder / "secrets.json").chmod(0o600)
    return Settings(home=tmp_path)


def test_packages_are_held_against_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_machine._packages().endswith("as required")
    required = ["numpy>=9999", "no-such-package-at-all", "httpx", 'torch>=9999; extra == "build"']
    monkeypatch.setattr(metadata, "requires", lambda _name: required)
    error = raised(doctor_machine._packages)
    assert error.error_code == "dependency_missing"
    numpy = metadata.version("numpy")
    assert error.message == f"numpy is {numpy}, not >=9999; no-such-package-at-all is missing."


def test_packages_are_held_against_the_tested_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    monkeypatch.setattr(doctor_machine, "data_path", lambda _name: pins)
    pins.write_text(f"# the tested set\nHTTPX=={metadata.version('httpx')}\nno-such-package-at-all==1\n")
    assert doctor_machine._pins() == "1 as tested"
    pins.write_text("NumPy==0.1 ; python_version > '3'\n")
    assert raised(doctor_machine._pins).message == f"numpy is {metadata.version('numpy')}, tested with 0.1."


def test_this_python_and_its_decoders_are_found() -> None:
    assert doctor_machine._python().startswith(platform.python_version())
    assert "libavcodec" in doctor_machine._ffmpeg()


def test_too_little_space_is_refused(tmp_path: Path) -> None:
    assert raised(doctor_machine._disk, Settings(home=tmp_path, min_free_gb=1e9)).error_code == "storage_unavailable"
    assert raised(doctor_machine._shared_memory, 10**18).error_code == "storage_unavailable"


@pytest.mark.parametrize(
    ("answer", "ahead_s"), [(HOUR, 3600.0), (-HOUR, -3600.0), (timedelta(), 0.0)], ids=["ahead", "behind", "equal"]
)
def test_clocks_are_compared_with_the_time_of_the_question(answer: timedelta, ahead_s: float) -> None:
    found = doctor_deployment._ahead_s(lambda: datetime.now(UTC) + answer)
    # The question itself takes no time off: the answer lies between its beginning and its end.
    assert found == pytest.approx(ahead_s, abs=60.0)
    assert answer or found == 0.0


def test_a_server_without_an_answer_has_no_clock() -> None:
    def silent() -> datetime:
        raise TrendFlowError("storage_unavailable", "It does not answer.")

    assert doctor_deployment._ahead_s(silent) is None
    assert doctor_deployment._ahead_s(lambda: None) is None


def test_a_clock_that_differs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(doctor_deployment, "_broker_time", lambda _settings: datetime.now(UTC) - HOUR)
    error = raised(doctor_deployment._clocks, Settings(home=tmp_path))
    assert error.error_code == "config_invalid"
    assert "broker by -" in error.message
    assert "store" not in error.message


def test_files_with_secrets_must_be_private(fleet_home: Settings) -> None:
    assert doctor_deployment._permissions(fleet_home) == "2 files with secrets are private"
    (fleet_home.home / "fleet" / "secrets.json").chmod(0o640)
    error = raised(doctor_deployment._permissions, fleet_home)
    assert error.message == "Others may read files that hold secrets: secrets.json."


def test_files_that_were_handed_in_need_not_be_ours(tmp_path: Path) -> None:
    users, key = tmp_path / "users.json", tmp_path / "key.pem"
    for path in (users, key):
        path.write_text("{}")
    users.chmod(0o644)
    key.chmod(0o440)
    if os.geteuid() == 0:
        os.chown(users, 12345, 12345)
        os.chown(key, 12345, 12345)
    handed_in = Settings(home=tmp_path, api_users=users, api_certificate_key=key)
    assert doctor_deployment._permissions(handed_in) == "1 files with secrets are private"
    key.chmod(0o444)
    error = raised(doctor_deployment._permissions, handed_in)
    assert error.message == "Others may read files that hold secrets: key.pem."


def test_a_queue_that_nobody_works_on_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = WorkerFacts(worker="one", host="here", pid=1, queues=("cpu",))
    seen = [SeenWorker(facts, beat_at=0.0, silent_s=3600.0)]
    monkeypatch.setattr(Board, "workers", lambda _board: seen)
    queued = Settings(home=tmp_path, broker_url=SecretStr("redis://127.0.0.1:1/0"))
    assert raised(doctor_deployment._workers, queued).message == "No worker is alive: runs wait in the queue."
    seen.append(SeenWorker(facts, beat_at=0.0, silent_s=0.0))
    assert doctor_deployment._workers(queued) == "1 are alive"
    assert doctor_deployment._workers(Settings(home=tmp_path)).startswith("none are needed")


def test_a_queue_that_nobody_fills_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    queued = Settings(home=tmp_path, broker_url=SecretStr("redis://127.0.0.1:1/0"))
    assert "not heard lately" in raised(doctor_deployment._scheduler, queued).message
    assert doctor_deployment._scheduler(Settings(home=tmp_path)).startswith("none is needed")
    with DagsterInstance.get() as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), SensorDaemon.daemon_type(), "a daemon", []))
    assert doctor_deployment._scheduler(queued).endswith("a moment ago")


def test_a_port_that_somebody_took_is_named(fleet_home: Settings) -> None:
    folder = fleet_home.home / "fleet"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        write_state(folder, replace(read_state(folder), ports={"api": {"http": port}}))
        assert f"cannot use port {port} for http" in raised(doctor_deployment._ports, fleet_home).message


def test_users_are_read_as_the_service_does(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    assert raised(doctor_deployment._users, Settings(home=tmp_path)).error_code == "config_invalid"
    file.write_text("[]")
    assert raised(doctor_deployment._users, Settings(home=tmp_path, api_users=file)).error_code == "config_invalid"
    file.write_text(json.dumps([{"token_sha256": "0" * 64, "user_id": "one"}]))
    assert doctor_deployment._users(Settings(home=tmp_path, api_users=file)) == "1 may use the HTTP API"


def test_keys_must_be_there_be_secret_and_be_those_of_the_fleet(fleet_home: Settings) -> None:
    def with_keys(tombstone: str, webhook: str) -> Settings:
        keys = {"tombstone_key": tombstone, "webhook_key": webhook, "text_key": "t" * 48}
        return fleet_home.model_copy(update={name: SecretStr(value) for name, value in keys.items()})

    assert "TRENDFLOW_TOMBSTONE_KEY" in raised(doctor_deployment._keys, fleet_home).message
    assert "Too short" in raised(doctor_deployment._keys, with_keys("k" * 48, "short")).message
    another = raised(doctor_deployment._keys, with_keys("another key, long enough", "w" * 48))
    assert another.message == "The fleet was started with another key: TRENDFLOW_TOMBSTONE_KEY."
    assert doctor_deployment._keys(with_keys("k" * 48, "w" * 48)) == "3 are set"


def test_the_command_examines_everything_whatever_is_broken(tmp_path: Path, models_dir: Path) -> None:
    with held_ports(1) as (silent,):
        broker = f"redis://127.0.0.1:{silent}/0"
        trendflow = Cli(tmp_path / "home", models_dir, TRENDFLOW_BROKER_URL=broker, TRENDFLOW_MIN_FREE_GB="0")
        broken = trendflow("doctor", "--json")
    assert broken.returncode == 75, broken.stderr
    assert broken.stderr.startswith("storage_unavailable: broker: ")
    report = json.loads(broken.stdout)
    rows = {row["name"]: row for row in report["checks"]}
    assert report["state"] == "error"
    assert rows["broker"]["state"] == "error"
    assert "TRENDFLOW_BROKER_URL" in rows["broker"]["advice"]
    assert {name for name, row in rows.items() if row["state"] == "error"} == {"broker", "workers", "scheduler"}
    assert {name for name, row in rows.items() if row["state"] == "warning"} >= {"api users", "keys"}
    assert rows["object store"] == {
        "name": "object store",
        "state": "ok",
        "error_code": None,
        "finding": "conditional writes proven",
        "advice": None,
    }
