"""The service of a deployment, from its settings to its answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from trendflow import __version__
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.submitting import profile_versions
from trendflow.service.assembly import make_parts, open_service
from trendflow.service.users import Users
from trendflow_tests.models.fake_device import without_devices
from trendflow_tests.service.deployment import assert_refused, client, served

USERS = [{"token_sha256": hashlib.sha256(b"admin-token").hexdigest(), "user_id": "admin", "admin": True}]


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    file = tmp_path / "users.json"
    file.write_text(json.dumps(USERS))
    return file


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    # What is free on the machine that tests must not decide what they find.
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (tmp_path / "dagster").mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage())
    (tmp_path / "home").mkdir()
    return Deployment(Settings(home=tmp_path / "home", tombstone_key="a key"))


class _Usage:
    free = 10**12


def request(deployment: Deployment, **changed: Any) -> dict[str, Any]:
    return {
        "video_id": "abcdefghijk",
        "platform_id": "youtube",
        "video_url": "https://youtu.be/abcdefghijk",
        "profile": "starter",
        **profile_versions(deployment.graph, "starter"),
        **changed,
    }


@contextmanager
def calling(deployment: Deployment, users_file: Path) -> Iterator[httpx.Client]:
    with served(make_parts(deployment, Users.load(users_file))) as address, client(address) as api:
        yield api


def test_a_submission_gets_the_plan_of_its_profile(deployment: Deployment, users_file: Path) -> None:
    with calling(deployment, users_file) as api:
        assert request(deployment)["dataprocessor_version"] == __version__
        answer = api.post("/api/v1/process", json=request(deployment))
        assert answer.status_code == 202, answer.text
        run_id = answer.json()["run_id"]
        assert api.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
        components = api.get(f"/api/v1/runs/{run_id}").json()["progress"]["components"]
    assert set(components) == set(deployment.graph.profile("starter").components)


@pytest.mark.parametrize("changed", [{"profile": "unknown"}, {"run_audio": False}, {"pipeline_version": "0"}])
def test_a_profile_is_taken_as_it_is(deployment: Deployment, users_file: Path, changed: dict[str, Any]) -> None:
    with calling(deployment, users_file) as api:
        assert_refused(api.post("/api/v1/process", json=request(deployment, **changed)), 400, "config_invalid")


def test_a_deleted_video_is_refused_from_then_on(deployment: Deployment, users_file: Path) -> None:
    with calling(deployment, users_file) as api:
        answer = api.delete("/api/v1/videos/youtube/abcdefghijk")
        assert answer.status_code == 202
        assert api.get(answer.json()["report_url"]).json()["status"] == "pending"
        planned = api.post("/api/v1/admin/retention/cleanup", json={"dry_run": True})
        assert planned.json()["dry_run"] is True
        assert api.get(answer.json()["report_url"]).json()["status"] == "pending"
        assert_refused(api.post("/api/v1/process", json=request(deployment)), 400, "input_constraint_violated")
        cleaned = api.post("/api/v1/admin/retention/cleanup", json={"dry_run": False})
        assert cleaned.status_code == 200, cleaned.text
        assert api.get(answer.json()["report_url"]).json()["status"] == "complete"


def test_readiness_says_which_models_are_missing(deployment: Deployment, users_file: Path) -> None:
    with calling(deployment, users_file) as api:
        answer = api.get("/health")
    lines = {line["name"]: line["error_code"] for line in answer.json()["checks"]}
    assert answer.status_code == 503
    assert lines == {"queue": None, "store": None, "models": "weights_missing", "disk": None}


def test_readiness_names_the_model_server_of_a_profile_that_needs_one(
    deployment: Deployment, users_file: Path, models_dir: Path
) -> None:
    settings = deployment.settings.model_copy(update={"models": models_dir, "profile": "served"})
    with calling(Deployment(settings), users_file) as api:
        answer = api.get("/health")
    lines = {line["name"]: line["error_code"] for line in answer.json()["checks"]}
    assert answer.status_code == 503
    assert lines == {"queue": None, "store": None, "models": None, "triton": "triton_unavailable", "disk": None}


def test_readiness_needs_no_device(deployment: Deployment, users_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing are the weights, as on a host that has the device."""
    without_devices(monkeypatch)
    with calling(deployment, users_file) as api:
        lines = {line["name"]: line["error_code"] for line in api.get("/health").json()["checks"]}
    assert lines["models"] == "weights_missing"


def test_nobody_listens_without_users(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match="TRENDFLOW_API_USERS"):
        open_service(Settings(home=tmp_path / "home"))


def test_the_service_runs_as_a_program(tmp_path: Path, users_file: Path) -> None:
    environment = {
        **os.environ,
        "TRENDFLOW_HOME": str(tmp_path / "home"),
        "TRENDFLOW_API_USERS": str(users_file),
        "TRENDFLOW_API_PORT": "0",
        "TRENDFLOW_WEBHOOK_KEY": "a key",
    }
    command = [sys.executable, "-m", "trendflow.service"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "running on" in line:
                break
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", said[-1])
        assert found is not None, said
        with client(found[1]) as api:
            assert api.get("/health/live").json() == {"status": "ok"}
            assert api.get("/metrics").status_code == 200
        process.terminate()
        rest = process.stderr.read()
        assert "a key" not in rest
        process.wait()
