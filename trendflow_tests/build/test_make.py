"""`make` explains itself, sets up once and says in one sentence what is wrong with a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from trendflow.config import Settings

TARGETS = ("help", "setup", "demo", "ui", "test", "check", "bench", "clean")


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def bare_checkout(repo_root: Path, tmp_path: Path) -> Path:
    """A checkout in which nothing has been set up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "requirements-weights.txt"):
        shutil.copy(repo_root / name, tmp_path)
    return tmp_path


def test_the_default_target_lists_every_target(repo_root: Path) -> None:
    printed = make(repo_root).stdout
    assert [target for target in TARGETS if f"make {target} " not in printed] == []
    assert printed == make(repo_root, "help").stdout


@pytest.mark.parametrize("target", ["demo", "test", "ui", "check", "bench"])
def test_a_missing_environment_is_made_first(bare_checkout: Path, target: str) -> None:
    planned = make(bare_checkout, "--dry-run", target).stdout
    assert "-m venv" in planned
    assert "--constraint constraints.txt" in planned
    assert planned.index("pip install") < planned.index("warm-up") < planned.index("models build")


def test_a_second_call_installs_nothing(bare_checkout: Path) -> None:
    for stamp in (".venv/.installed", ".venv/.compiled", ".trendflow/models/.built"):
        (bare_checkout / stamp).parent.mkdir(parents=True, exist_ok=True)
        (bare_checkout / stamp).touch()
    assert "pip install" not in make(bare_checkout, "--dry-run", "demo").stdout
    later = (bare_checkout / ".venv/.installed").stat().st_mtime + 10
    os.utime(bare_checkout / "constraints.txt", (later, later))
    assert "pip install" in make(bare_checkout, "--dry-run", "demo").stdout


@pytest.mark.parametrize("how", ["environment", "command line"])
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TRENDFLOW_HOME": "{tmp}/state"}, "{tmp}/state/models"),
        ({"TRENDFLOW_HOME": "{tmp}/my state"}, "{tmp}/my state/models"),
        ({"TRENDFLOW_MODELS": "{tmp}/weights"}, "{tmp}/weights"),
        ({"TRENDFLOW_HOME": "{tmp}/state", "TRENDFLOW_MODELS": "{tmp}/weights"}, "{tmp}/weights"),
        ({"TRENDFLOW_HOME": "~/state"}, "{tmp}/home/state/models"),
        ({"TRENDFLOW_HOME": ""}, ".trendflow/models"),
    ],
)
def test_weights_are_built_where_the_settings_look_for_them(
    bare_checkout: Path, monkeypatch: pytest.MonkeyPatch, how: str, variables: dict[str, str], folder: str
) -> None:
    """`make` does what `trendflow` would: both read the same variables, and neither builds twice."""
    tmp = bare_checkout
    monkeypatch.setenv("HOME", f"{tmp}/home")
    monkeypatch.delenv("TRENDFLOW_HOME", raising=False)
    monkeypatch.delenv("TRENDFLOW_MODELS", raising=False)
    words = {name: value.format(tmp=tmp) for name, value in variables.items()}
    if how == "environment":
        for name, value in words.items():
            monkeypatch.setenv(name, value)
    given = [f"{name}={value}" for name, value in words.items()] if how == "command line" else []
    weights = tmp / folder.format(tmp=tmp)
    settings = Settings(
        home=Path(words.get("TRENDFLOW_HOME") or ".trendflow"), models=words.get("TRENDFLOW_MODELS") or None
    )
    assert settings.models_dir == Path.cwd() / folder.format(tmp=tmp)

    for stamp in (".venv/.installed", ".venv/.compiled"):
        (tmp / stamp).parent.mkdir(parents=True, exist_ok=True)
        (tmp / stamp).touch()
    (tmp / ".venv/bin").mkdir()
    trendflow = tmp / ".venv/bin/trendflow"
    trendflow.write_text(f"#!/bin/sh\nmkdir -p '{weights}'\necho \"$@\" >> calls\n")
    trendflow.chmod(0o755)
    for _ in range(2):
        done = make(tmp, *given, "setup")
        assert done.returncode == 0, done.stderr
    assert (tmp / "calls").read_text() == "models build\n"
    assert (weights / ".built").exists()


def test_an_old_python_is_refused_in_one_sentence(bare_checkout: Path) -> None:
    old = bare_checkout / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")  # answers the version question as an older interpreter does
    old.chmod(0o755)
    done = make(bare_checkout, f"PYTHON={old}", "setup")
    assert done.returncode != 0
    first = done.stderr.splitlines()[0]
    assert first.startswith("TrendFlow needs Python 3.11 or newer")
    assert not (bare_checkout / ".venv").exists()
