"""Recording through open connections: what others read of it, and when."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun, asset, materialize
from dagster._core.errors import DagsterHomeNotSetError

from trendflow.orchestration.history import open_instance
from trendflow.orchestration.partitions import VIDEO_RUNS, add_partitions


@asset
def something() -> int:
    return 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def recorder(home: Path) -> Iterator[DagsterInstance]:
    with open_instance() as instance:
        yield instance


def test_others_see_a_run_while_its_recorder_is_still_open(recorder: DagsterInstance) -> None:
    add_partitions(recorder, ["a/b"])
    run_id = materialize([something], instance=recorder).run_id
    with DagsterInstance.get() as other:
        assert other.get_dynamic_partitions(VIDEO_RUNS) == ["a/b"]
        run, event = other.get_run_by_id(run_id), other.get_latest_materialization_event(something.key)
        assert run is not None
        assert run.is_success
        assert event is not None
        assert event.run_id == run_id
        mine = [entry.message for entry in recorder.all_logs(run_id)]
        assert [entry.message for entry in other.all_logs(run_id)] == mine
        assert len(mine) > 5


def test_a_watcher_is_told_of_every_event_at_once(recorder: DagsterInstance) -> None:
    run_id = materialize([something], instance=recorder).run_id
    run = recorder.get_run_by_id(run_id)
    assert isinstance(run, DagsterRun)
    seen: list[str] = []
    told = threading.Event()

    def watch(entry: Any, _cursor: str) -> None:
        seen.append(entry.message)
        if entry.message == "something more":
            told.set()

    with DagsterInstance.get() as other:
        other.watch_event_logs(run_id, None, watch)
        recorder.report_engine_event("something more", run)
        assert told.wait(600), seen
        other.end_watch_event_logs(run_id, watch)


def test_the_recorder_follows_others(recorder: DagsterInstance) -> None:
    add_partitions(recorder, ["a/b"])
    with DagsterInstance.get() as other:
        add_partitions(other, ["c/d"])
        other_run = materialize([something], instance=other).run_id
    assert recorder.get_dynamic_partitions(VIDEO_RUNS) == ["a/b", "c/d"]
    assert recorder.all_logs(other_run)


def test_a_closed_recorder_leaves_whole_databases(home: Path) -> None:
    with open_instance() as instance:
        run_id = materialize([something], instance=instance).run_id
    databases = sorted(home.rglob("*.db"))
    assert {path.stem for path in databases} >= {"index", "runs", run_id}
    assert not list(home.rglob("*.db-wal"))  # the last connection to a database folds its log back in
    for path in databases:
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_many_threads_may_record(recorder: DagsterInstance) -> None:
    run = recorder.get_run_by_id(materialize([something], instance=recorder).run_id)
    assert isinstance(run, DagsterRun)
    before = len(recorder.all_logs(run.run_id))

    def report(number: int) -> None:
        for turn in range(10):
            recorder.report_engine_event(f"{number} {turn}", run)

    threads = [threading.Thread(target=report, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorder.all_logs(run.run_id)) == before + 40


def test_a_home_that_says_where_its_history_lies_is_obeyed(home: Path) -> None:
    elsewhere = home / "elsewhere"
    (home / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {elsewhere}\n")
    with open_instance() as instance:
        materialize([something], instance=instance)
    assert (elsewhere / "history" / "runs.db").is_file()
    assert not (home / "history").exists()


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_home_there_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("DAGSTER_HOME", value)
    assert not os.environ.get("DAGSTER_HOME")
    with pytest.raises(DagsterHomeNotSetError):
        open_instance()


CREATE = """
import sys
from pathlib import Path
from trendflow.orchestration.history import create_history
print("ready", flush=True)
sys.stdin.readline()
create_history(Path(sys.argv[1]))
"""


def test_commands_that_start_together_in_an_empty_home_do_not_spoil_it(home: Path) -> None:
    command = [sys.executable, "-c", CREATE, str(home)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ends
    for path in home.rglob("*.db"):
        with sqlite3.connect(path) as connection:
            assert len(connection.execute("SELECT version_num FROM alembic_version").fetchall()) == 1
    with DagsterInstance.get() as instance:
        assert materialize([something], instance=instance).success
