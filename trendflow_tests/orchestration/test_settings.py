"""Settings, and what the command line says when the machine does not match them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.commands import doctor_machine, upkeep
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.submission.sources import parse_source

HOME_SENTENCE = "The folder TRENDFLOW_HOME names cannot be created or written."


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets is set, and relative paths start in its own folder."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"TRENDFLOW_{field.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    unset = load_settings()
    monkeypatch.setenv(f"TRENDFLOW_{field.upper()}", "")
    assert load_settings() == unset


def test_paths_are_absolute_wherever_the_process_goes_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in ("HOME", "MODELS", "GRAPH_FILE"):
        monkeypatch.setenv(f"TRENDFLOW_{field}", f"some/{field}")
    found = load_settings()
    assert found.home == tmp_path / "some/HOME"
    assert found.models_dir == tmp_path / "some/MODELS"
    assert found.graph_file == tmp_path / "some/GRAPH_FILE"


def test_weights_are_in_the_home_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    assert load_settings().models_dir == tmp_path / "home" / "models"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("STORE_OPTIONS", "{secret", "TRENDFLOW_STORE_OPTIONS is not valid JSON."),
        ("STORE_OPTIONS", '{"region": 7}', "TRENDFLOW_STORE_OPTIONS at 'region' is invalid: "),
        ("STORE_OPTIONS", '["region"]', "TRENDFLOW_STORE_OPTIONS is invalid: "),
        ("BATCH_SIZE", "0", "TRENDFLOW_BATCH_SIZE is invalid: "),
    ],
)
def test_a_bad_variable_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"TRENDFLOW_{variable}", value)
    with pytest.raises(TrendFlowError) as caught:
        load_settings()
    assert caught.value.error_code == "config_invalid"
    assert caught.value.message.startswith(sentence)
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message


def test_the_home_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    ensure_home(Settings(home=home))
    ensure_home(Settings(home=home))
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("place", ["the file", "below the file", "where nothing can be made"])
@pytest.mark.parametrize("check", [ensure_home, doctor_machine._disk], ids=["ensure_home", "doctor"])
def test_an_unusable_home_is_one_sentence(tmp_path: Path, check: Callable[[Settings], object], place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    home = {"the file": tmp_path / "file", "below the file": tmp_path / "file" / "home"}.get(place, Path("/proc/home"))
    with pytest.raises(TrendFlowError) as caught:
        check(Settings(home=home))
    assert (caught.value.error_code, caught.value.message) == ("config_invalid", HOME_SENTENCE)


def test_an_occupied_port_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    # Without the refusal the server would take the place of the test process.
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("the server was started"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(TrendFlowError) as caught:
                upkeep.ui(host, port)
            assert caught.value.error_code == "config_invalid"
            assert caught.value.message == f"Port {port} is in use; choose another with --port."
    assert not (tmp_path / "home").exists()


def test_a_free_port_is_free_and_stays_free(free_port: Callable[[], int]) -> None:
    port = free_port()
    upkeep._require_free_port("127.0.0.1", port)
    socket.create_server(("127.0.0.1", port)).close()


def test_an_address_of_another_machine_is_refused(free_port: Callable[[], int]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        upkeep._require_free_port("192.0.2.1", free_port())  # RFC 5737: nobody's
    assert caught.value.error_code == "config_invalid"
    assert "192.0.2.1" in caught.value.message


@pytest.mark.parametrize("text", ["some.mp4", "."])
def test_a_folder_is_no_source(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.mp4").mkdir()
    with pytest.raises(TrendFlowError, match="is a folder, not a file") as caught:
        parse_source(text)
    assert caught.value.error_code == "source_unavailable"


@pytest.mark.parametrize("arguments", [[], ["schemas"], ["models"]])
def test_a_group_without_a_command_prints_its_help_and_nothing_else(arguments: list[str]) -> None:
    found = subprocess.run([sys.executable, "-m", "trendflow", *arguments], capture_output=True, text=True)
    assert found.returncode == 2
    assert "Usage:" in found.stdout
    assert found.stderr == ""
