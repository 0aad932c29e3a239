"""The server's own Python environment, and what is wrong with one that cannot be used."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trendflow.models.triton import environment
from trendflow.models.triton.environment import ServerEnvironment
from trendflow_tests.models.triton.faulty import raised


def test_an_environment_without_a_server_is_refused(tmp_path: Path) -> None:
    assert raised(environment.open_environment, tmp_path / "absent").error_code == "dependency_missing"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    error = raised(environment.open_environment, tmp_path / "empty")
    assert error.error_code == "dependency_missing"
    assert "requirements-triton.txt" in error.message


def test_packages_that_cannot_be_had_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    error = raised(environment.ensure_environment, tmp_path / "env")
    assert error.error_code == "dependency_missing"
    assert "nvidia-pytriton" in error.detail["output"]
    # What was begun is not taken for an environment: the server is missing from it.
    assert raised(environment.open_environment, tmp_path / "env").error_code == "dependency_missing"


def test_a_python_without_a_backend_is_named(tmp_path: Path, triton_environment: ServerEnvironment) -> None:
    other = dataclasses.replace(triton_environment, version="2.7")
    error = raised(other.install_backends, tmp_path / "backends")
    assert (error.error_code, error.detail["version"]) == ("dependency_missing", "2.7")


def test_nothing_of_this_process_configures_the_interpreter_of_the_server(
    triton_environment: ServerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    variables = triton_environment.variables()
    assert not {"PYTHONPATH", "AWS_SECRET_ACCESS_KEY"} & set(variables)
    assert variables["PATH"].startswith(str(triton_environment.root / "bin"))
