"""What goes wrong around a run, as a person meets it: one sentence, its code and exit code, nothing half-written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import pytest
from sqlalchemy.exc import OperationalError

from trendflow.cli import main
from trendflow.commands.files import require_folder, write_output
from trendflow.commands.process import prepare_dagster_home
from trendflow.commands.run_notes import run_notes
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ProfileComponent
from trendflow.media.worker import MediaWorker
from trendflow.orchestration import launch
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.submission.sources import parse_source
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import AUDIO, only, with_profile


def complaint(call: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


# --- what a person points at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/proc/self/mem", "'mem' cannot be read: Input/output error."),  # may be opened and not read, even by root
        ("x" * 300, "cannot be read: File name too long."),
        ("~no-such-user-here/video.mp4", "'~no-such-user-here' is nobody's home folder."),
        ("", "The given path is a folder, not a file."),
        ("/dev/null", "There is no file 'null' at the given path."),
    ],
)
def test_a_source_that_cannot_be_read_is_unavailable(source: str, words: str) -> None:
    error = complaint(lambda: parse_source(source))
    assert error.error_code == "source_unavailable"
    assert words in error.message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_is_unavailable_also_with_an_id_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").chmod(0)
    error = complaint(lambda: parse_source(str(tmp_path / "secret.mp4"), "my-video"))
    assert (error.error_code, error.message) == (
        "source_unavailable",
        "'secret.mp4' cannot be read: Permission denied.",
    )


# --- what a command writes --------------------------------------------------------------------------------------------


def test_output_is_written_with_its_folders_and_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "page.html"
    write_output(target, b"first")
    write_output(target, b"second")
    assert target.read_bytes() == b"second"
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


def test_output_to_a_pipe_or_through_a_link_leaves_both_what_they_are(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("real")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(pipe, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    write_output(link, b"linked")
    assert (pipe.is_fifo(), link.is_symlink(), (tmp_path / "real").read_bytes()) == (True, True, b"linked")


@pytest.mark.parametrize("place", ["/proc/here/page.html", "{tmp}/file/page.html", "{tmp}/folder"])
def test_output_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    error = complaint(lambda: write_output(Path(place.format(tmp=tmp_path)), b"data"))
    assert error.error_code == "config_invalid"
    assert "cannot be written: " in error.message
    assert str(tmp_path) not in error.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["{tmp}/file/report", "{tmp}/file"])
def test_a_folder_that_cannot_be_is_found_out_before_the_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    error = complaint(lambda: require_folder(Path(place.format(tmp=tmp_path))))
    assert error.error_code == "config_invalid"
    assert "cannot be written: Not a directory." in error.message
    require_folder(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "looking makes nothing"


@pytest.mark.parametrize("arguments", [["graph", "-o"], ["schemas", "docs", "-o"], ["models", "licences", "-o"]])
def test_every_command_with_an_output_says_so(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trendflow", *arguments, "/proc/no/place"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("config_invalid: The output ")


# --- Dagster's own files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["relative", "/proc/no/such/folder"])
def test_a_dagster_home_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    error = complaint(lambda: prepare_dagster_home(Settings(home=tmp_path)))
    assert (error.error_code, "DAGSTER_HOME" in error.message) == ("config_invalid", True)


def test_a_damaged_history_is_named(dagster_home: Path) -> None:
    (dagster_home / "history").mkdir()
    (dagster_home / "history" / "runs.db").write_bytes(b"this is no database, whatever its name may be")
    error = complaint(lambda: launch.register(["video/run"]))
    assert error.error_code == "storage_unavailable"
    assert error.message == "The database in DAGSTER_HOME does not work: file is not a database."


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("database or disk is full", "storage_unavailable"),
        ("database is locked", "storage_unavailable"),
        ("attempt to write a readonly database", "config_invalid"),
        ("unable to open database file", "config_invalid"),
    ],
)
def test_what_sqlite_says_decides_the_code(reason: str, code: str) -> None:
    def fail() -> None:
        with launch.typed_database():
            raise OperationalError("INSERT", {}, sqlite3.OperationalError(reason))

    assert complaint(fail).error_code == code


# --- the store fails while a run is at work ---------------------------------------------------------------------------


def test_a_store_that_takes_nothing_any_more_ends_the_run_with_its_own_code(
    deployment: Deployment, clip: Path, submit: Callable[..., RunContext], here: Callable[[RunContext], str]
) -> None:
    """Not even the failure of the component can be stored: then the error itself has to say what happened."""
    with_profile(deployment, only(*AUDIO))
    run = submit(deployment, clip)
    folder = deployment.settings.home / "store" / "result_store" / run.run_path / "segmenter"
    folder.write_bytes(b"a file where the results of the segmenter belong")
    error = complaint(lambda: here(run))
    assert error.error_code == "config_invalid"
    assert "Not a directory" in error.message or "File exists" in error.message
    folder.unlink()
    assert here(run) == "success"


# --- the codes of a run in words --------------------------------------------------------------------------------------


def test_notes_say_who_got_too_few_frames_and_why_something_is_empty(
    deployment: Deployment,
    tmp_path: Path,
    submit: Callable[..., RunContext],
    execute: Callable[..., object],
) -> None:
    run = submit(deployment, write_clip(tmp_path / "mute.mp4", audio=False))
    execute(run, {"segmenter", "loudness_extractor", "tempo_extractor"})
    notes = dict(run_notes(run, run.manifest()))
    assert notes["audio_missing_or_extract_failed"] == "The source has no audio stream."
    arrays = deployment.results.read_artifact(run.run_path, "segmenter").arrays
    counts = dict(zip(arrays["component_names"].tolist(), np.diff(arrays["component_indices_row_splits"]), strict=True))
    minima = dict(zip(arrays["component_names"].tolist(), arrays["component_budget"][:, 0], strict=True))
    short = {name for name in counts if counts[name] < minima[name]}
    assert short, "60 frames are fewer than somebody's minimum"
    for name in counts:
        assert (f"{name} got {counts[name]} of at least {minima[name]} frames" in notes["sampling_shortfall"]) == (
            name in short
        )


def test_a_failed_optional_component_is_explained(
    deployment: Deployment, clip: Path, submit: Callable[..., RunContext], execute: Callable[..., object]
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    manifest = run.manifest()
    failed = {**manifest["components"][0], "name": "core_clip", "status": "error", "warnings": []}
    failed |= {"error_code": "out_of_memory", "error": "Batch 1 does not fit."}
    manifest["components"].append(failed)
    manifest["run"]["warnings"] = ["partial_failure"]
    assert "out_of_memory" not in dict(run_notes(run, manifest)), "what ends the run is said by its error"
    components = cast(dict[str, ProfileComponent], run.profile.components)
    components["core_clip"] = replace(components["core_clip"], required=False)
    notes = dict(run_notes(run, manifest))
    assert notes["out_of_memory"] == "core_clip: Batch 1 does not fit."
    assert "optional component failed" in notes["partial_failure"]


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_ctrl_c_before_a_run_exists_is_one_sentence(tmp_path: Path, models_dir: Path, clip: Path) -> None:
    """The terminal sends it to everybody in the foreground; the media child must neither die of it nor complain."""
    environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    environment |= {"TRENDFLOW_HOME": str(tmp_path / "home"), "TRENDFLOW_MODELS": str(models_dir)}
    process = subprocess.Popen(
        [sys.executable, "-m", "trendflow", "process", str(clip)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    seen = psutil.Process(process.pid)
    while not (children := seen.children()):
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    printed, complained = process.communicate()
    assert process.returncode == 130
    assert (printed, complained) == ("", "cancelled: Stopped by the user.\n")
    assert not (tmp_path / "home" / "store" / "result_store").exists()
    psutil.wait_procs(children, timeout=600)
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_media_child_ends_with_its_parent(how: signal.Signals) -> None:
    code = "from trendflow.media import worker; worker.warm_up(); print(worker._idle[0].pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(how)
        parent.wait()
        psutil.wait_procs([child], timeout=600)
        assert not child.is_running()


def test_the_media_child_is_out_of_reach_of_the_terminal() -> None:
    worker = MediaWorker()
    try:
        assert os.getpgid(worker.pid) != os.getpgid(0)
    finally:
        worker.close()
