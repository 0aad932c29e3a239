"""What the programs of a fleet run with, and what the fleet decides from this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from trendflow.commands import workers
from trendflow.config import Settings, load_settings
from trendflow.fleet.api import API
from trendflow.fleet.credentials import assign_secrets
from trendflow.fleet.environment import application_environment, given_keys, write_dagster_home
from trendflow.fleet.files import make_folder
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.fleet.ports import assign_ports
from trendflow.fleet.service import Site
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
    assert found["run_monitoring"]["start_timeout_seconds"] == 0
    assert found["concurrency"]["runs"]["max_concurrent_runs"] >= Settings().handed_over_runs
    assert not any(secret in text for secret in site.secrets.values())


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
