"""What the programs of a fleet run with, and what the fleet decides from this machine."""

from __future__ import annotations

import logging
import os
import pwd
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from dagster import DagsterRun, DagsterRunStatus, EventLogEntry
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from typer.testing import CliRunner

from trendflow.cli import app
from trendflow.commands import workers
from trendflow.config import Settings, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.api import API
from trendflow.fleet.credentials import assign_secrets
from trendflow.fleet.environment import (
    application_environment,
    fleet_environment,
    given_keys,
    is_store_of_fleet,
    require_keys_of_fleet,
    use_fleet,
    write_dagster_home,
)
from trendflow.fleet.files import make_folder
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.fleet.launch import run_once, start_process, stop_process
from trendflow.fleet.ports import assign_ports
from trendflow.fleet.service import ProcessUser, Service, Site
from trendflow.fleet.state import read_state, write_state
from trendflow.models.device import cuda_devices
from trendflow.service.users import Users
from trendflow_tests.models.fake_device import FakeNvml


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A fleet that has decided everything and started nothing; nothing of this process's settings is left."""
    for name in [name for name in os.environ if name.startswith("TRENDFLOW_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home" / "fleet"
    make_folder(folder)
    blueprints = (*INFRASTRUCTURE, API)
    return Site(folder, assign_ports(blueprints, {}), assign_secrets(folder, blueprints, given_keys()))


def settings_in(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_programs_have_the_settings_of_the_shell_on_the_servers_of_the_fleet(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRENDFLOW_MODELS", "weights")
    monkeypatch.setenv("TRENDFLOW_PROFILE", "baseline")
    monkeypatch.setenv("TRENDFLOW_STORE_URL", "s3://elsewhere/")
    environment = application_environment(site)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # services have working folders of their own
    found = settings_in(environment, monkeypatch)
    assert (found.models, found.profile, found.home) == (tmp_path / "weights", "baseline", site.folder.parent)
    assert found.store_url == "s3://trendflow/store"
    assert found.store_options["endpoint"].endswith(f":{site.port('seaweedfs', 's3')}")
    keys = {found.tombstone_key, found.webhook_key, found.text_key}
    assert None not in keys
    assert len(keys) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes as another user")
def test_a_foreign_server_is_told_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"TRENDFLOW_TOMBSTONE_KEY", "TRENDFLOW_STORE_OPTIONS", "AWS_SECRET_ACCESS_KEY", "SOMEBODYS_PASSWORD"}
    for name in (*secrets, "LC_TIME", "LD_DEBUG_OUTPUT"):
        monkeypatch.setenv(name, "a value")
    entry = pwd.getpwnam("nobody")
    nobody = ProcessUser(entry.pw_name, entry.pw_uid, entry.pw_gid)
    folder = home / "server"

    def names_in(file: str) -> set[str]:
        return {line.partition("=")[0] for line in (folder / file).read_text().splitlines()}

    def command(file: str) -> tuple[str, ...]:
        return "/bin/sh", "-c", f"env > {file}"

    for user, is_told in ((None, True), (None, False), (nobody, True)):
        service = Service(
            command=command("started"), health=lambda: None, folder=folder, user=user, told_settings=is_told
        )
        started = start_process("server", service, home / "log")
        os.waitid(os.P_PID, started.process.pid, os.WEXITED | os.WNOWAIT)
        stop_process(started)
        run_once(list(command("prepared")), folder, user)
        for file in ("started", "prepared"):
            found = names_in(file)
            assert found >= {"PATH", "HOME", "LC_TIME", "LD_DEBUG_OUTPUT"}
            assert found & secrets == (secrets if is_told and user is None and file == "started" else set())
            (folder / file).unlink()


def test_a_key_that_the_deployment_has_is_kept_for_good(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "another"
    make_folder(folder)
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", "the key of old tombstones")
    first = assign_secrets(folder, [API], given_keys())
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", "a slip of the pen")
    second = assign_secrets(folder, [API], given_keys())
    assert first == second
    used = application_environment(replace(site, secrets={**site.secrets, **second}))
    assert used["TRENDFLOW_TOMBSTONE_KEY"] == "the key of old tombstones"
    assert len(used["TRENDFLOW_WEBHOOK_KEY"]) == 48


def test_the_api_takes_the_token_and_the_users_that_were_added(site: Site) -> None:
    service = API.build(site)
    assert service.prepare is not None
    make_folder(service.folder)
    service.prepare()
    assert service.token_file is not None
    token, path = service.token_file.read_bytes(), Path(service.environment["TRENDFLOW_API_USERS"])
    admin = Users.load(path).of_token(token)
    assert admin is not None
    assert admin.admin
    assert Users.load(path).of_token(token + b"x") is None
    path.write_text(path.read_text().replace("}]", '}, {"token_sha256": "' + "0" * 64 + '", "user_id": "second"}]'))
    service.prepare()  # before every start
    assert len(Users.load(path)) == 2
    assert service.token_file.read_bytes() == token


def test_the_api_stays_on_this_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDFLOW_API_HOST", "0.0.0.0")
    monkeypatch.setenv("TRENDFLOW_API_CERTIFICATE", "/some/certificate")
    found = settings_in(dict(API.build(site).environment), monkeypatch)
    assert (found.api_host, found.api_port, found.api_certificate) == ("127.0.0.1", site.port("api", "http"), None)


def test_dagster_waits_as_long_as_the_queue_does(site: Site) -> None:
    write_dagster_home(site)
    text = (site.folder / "dagster" / "dagster.yaml").read_text()
    found = yaml.safe_load(text)
    assert found["run_launcher"]["class"] == "QueueRunLauncher"
    assert found["run_monitoring"]["enabled"] is True
    assert found["run_monitoring"]["start_timeout_seconds"] > 5 * 365 * 86400
    assert found["concurrency"]["runs"]["max_concurrent_runs"] >= Settings().handed_over_runs
    assert not any(secret in text for secret in site.secrets.values())


def test_dagsters_monitoring_leaves_what_waits_for_a_worker_alone(site: Site) -> None:
    """Dagster's own code: it neither fails a run that waits for days nor fails itself on one."""
    write_dagster_home(site)
    settings = yaml.safe_load((site.folder / "dagster" / "dagster.yaml").read_text())
    parts = {name: settings[name] for name in ("run_launcher", "run_monitoring")}
    with (
        instance_for_test(overrides=parts) as instance,
        create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as workspace,
    ):
        run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))
        days_ago = time.time() - 30 * 86400
        started = DagsterEvent(DagsterEventType.RUN_STARTING.value, run.job_name)
        instance.handle_new_event(
            EventLogEntry(None, 20, "", run.run_id, days_ago, job_name="a_job", dagster_event=started)
        )
        assert list(execute_run_monitoring_iteration(workspace, logging.getLogger("test"))) == [None]
        found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == DagsterRunStatus.STARTING


def test_only_our_own_programs_are_told_the_settings(site: Site) -> None:
    for blueprint in INFRASTRUCTURE:
        assert blueprint.build(site).told_settings is False
    assert API.build(site).told_settings is True


def test_a_key_of_ones_own_is_refused_on_the_store_of_the_fleet(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    home = site.folder.parent
    for name, value in fleet_environment(site).items():
        monkeypatch.setenv(name, value)
    require_keys_of_fleet(home)
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", "a key that nobody has")
    with pytest.raises(TrendFlowError) as caught:
        require_keys_of_fleet(home)
    assert caught.value.message == "The fleet was started with another key: TRENDFLOW_TOMBSTONE_KEY."
    monkeypatch.setenv("TRENDFLOW_STORE_URL", "file:///elsewhere")
    require_keys_of_fleet(home)


def test_a_fleet_that_is_down_is_told_from_one_that_is_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in fleet_environment(site):
        monkeypatch.setenv(name, "")  # remembered, so that what follows is undone
    home = site.folder.parent
    monkeypatch.setenv("TRENDFLOW_HOME", str(home))
    write_state(site.folder, read_state(site.folder))

    assert not use_fleet(home)
    assert not is_store_of_fleet(load_settings())
    hint = "the fleet of this home is not up"
    assert hint in CliRunner().invoke(app, ["submissions", "no-id"]).stderr
    assert hint not in CliRunner().invoke(app, ["models", "list"]).stderr

    write_state(site.folder, replace(read_state(site.folder), is_up=True))
    assert use_fleet(home)
    assert not is_store_of_fleet(load_settings()), "SeaweedFS does not run"
    monkeypatch.setenv("TRENDFLOW_STORE_URL", "s3://trendflow/store")
    assert is_store_of_fleet(load_settings())
    monkeypatch.setenv("TRENDFLOW_STORE_URL", "s3://elsewhere/")
    assert not is_store_of_fleet(load_settings())


@pytest.mark.parametrize(("cores", "count"), [(1, 2), (2, 2), (6, 3), (48, 8)])
def test_workers_by_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch, cores: int, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert workers.default_count() == count


def test_a_worker_for_every_gpu(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.setattr(workers, "cuda_devices", lambda: ["GPU-a", "GPU-b"])
    built = workers.workers(1)
    site = replace(site, ports=assign_ports(built, site.ports))
    found = {blueprint.name: blueprint.build(site) for blueprint in built}
    assert list(found) == ["worker-1", "worker-gpu-1", "worker-gpu-2"]
    queues = [service.command[service.command.index("--queue") + 1] for service in found.values()]
    assert queues == ["cpu", "gpu", "gpu"]
    assert [service.environment.get("CUDA_VISIBLE_DEVICES") for service in found.values()] == [None, "GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, ["GPU-0", "GPU-1"]), ("1", ["GPU-1"]), ("GPU-0", ["GPU-0"]), ("", [])],
    ids=["all", "by number", "by UUID", "hidden"],
)
def test_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch, visible: str | None, found: list[str]) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_devices(FakeNvml()) == found
    assert cuda_devices(FakeNvml(broken="nvmlInit")) == []
