"""`trendflow submit`, `submissions` and `retry` in a deployment without a scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from trendflow.commands.submission_report import print_report
from trendflow.commands.submissions import retry, submissions
from trendflow.commands.submit import Order, submit
from trendflow.commands.watch import watch
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import RunOrder, create_run
from trendflow.orchestration.submitting import OpenDesk, open_desk, required_components
from trendflow.state.run_manager import RunManager
from trendflow.submission.items import New, Submission
from trendflow.submission.outcomes import Outcomes
from trendflow_tests.models.fake_device import without_devices
from trendflow_tests.orchestration.conftest import write_clip

ID = f"{datetime.now(UTC):%Y%m%d}-one"  # once, so that midnight does not come in between
URL = "https://youtu.be/abcdefghijk"


@pytest.fixture(autouse=True)
def _home(dagster_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDFLOW_MIN_FREE_GB", "0")  # what is free on this machine decides nothing here


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """The JSON that was printed since the last time."""
    return lambda: json.loads(capsys.readouterr().out)


def desk() -> OpenDesk:
    return open_desk(open_deployment(load_settings()))


def stored(submission_id: str) -> Submission:
    found = desk().inbox.get(submission_id)
    assert found is not None
    return found


def begin(submission: Submission) -> list[str]:
    """Make the new runs of a submission, as the scheduler does; returns their paths."""
    deployment = open_deployment(load_settings())
    for _, message in submission.messages:
        source = message.source
        create_run(deployment, RunOrder(message.identity, message.profile or "", source.type, source.locator))
    return [message.run_path for _, message in submission.messages]


def complaint(work: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        work()
    return caught.value


def test_one_bad_entry_stops_no_other(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str], printed: Callable[[], Any]
) -> None:
    short = write_clip(tmp_path / "short.mp4", seconds=2)
    lines = [str(clip), "nowhere.mp4", "# a comment", "", str(clip), str(short), URL, "https://example.org/v"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    order = Order(sources=[URL], listed=str(tmp_path / "list.txt"), submission_id=ID, priority="high")

    assert submit(order) == 0
    said = capsys.readouterr()
    assert f"submission {ID}: 2 new, 2 duplicate, 3 refused" in said.out
    assert "no scheduler is seen" in said.err
    assert said.out.count("line 2") == 1, "the place of an entry without a name stands in one column"

    assert submit(replace(order, as_json=True)) == 0  # again: the same answer
    report = printed()
    assert validate_document(SchemaRegistry.load(), "submission_report_v1", report) == []
    assert [(item["decision"], item["status"], item["error_code"]) for item in report["items"]] == [
        ("new", "pending", None),
        ("new", "pending", None),
        ("refused", None, "source_unavailable"),
        ("duplicate", "pending", None),
        ("refused", None, "input_constraint_violated"),
        ("duplicate", "pending", None),
        ("refused", None, "input_constraint_violated"),
    ]
    assert [message.priority for _, message in stored(ID).messages] == ["high", "high"]

    other = complaint(lambda: submit(replace(order, sources=[], as_json=True)))
    assert other.error_code == "input_constraint_violated"
    assert len(stored(ID).items) == 7


def test_a_list_may_state_what_an_entry_is(tmp_path: Path, clip: Path) -> None:
    table = f"source,video_id,run_id,priority\n{clip},my-video,my-run,low\n{URL},,,\n"
    (tmp_path / "list.csv").write_text(table)
    assert submit(Order(listed=str(tmp_path / "list.csv"), submission_id=ID, force=True)) == 0
    first, second = (message for _, message in stored(ID).messages)
    assert (first.identity.partition_key, first.priority, first.force_recompute) == ("my-video/my-run", "low", True)
    assert (second.identity.video_id, second.priority) == ("abcdefghijk", "normal")


def test_a_host_without_the_device_of_a_model_may_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    without_devices(monkeypatch)
    assert submit(Order(sources=[URL], submission_id=ID)) == 0
    assert len(stored(ID).messages) == 1


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (Order(), "config_invalid"),
        (Order(sources=["nowhere.mp4"]), "source_unavailable"),
        (Order(sources=["nowhere.mp4", "https://example.org/v"]), "source_unavailable"),
        (Order(sources=[URL, "https://youtu.be/lmnopqrstuv"], run_id="r1"), "config_invalid"),
        (Order(sources=[URL], submission_id="tomorrow"), "input_constraint_violated"),
        (Order(sources=[URL], submission_id="20200101-old"), "input_constraint_violated"),
        (Order(sources=[URL], profile="nobody"), "config_invalid"),
        (Order(listed="nowhere.txt"), "source_unavailable"),
        (Order(channel="https://example.org/@somebody"), "input_constraint_violated"),
    ],
)
def test_nothing_taken_is_an_error(order: Order, code: str) -> None:
    error = complaint(lambda: submit(order))
    assert error.error_code == code
    assert error.exit_code != 0


def test_a_run_id_serves_once() -> None:
    assert submit(Order(sources=[URL], run_id="mine")) == 0
    assert complaint(lambda: submit(Order(sources=[URL], run_id="mine"))).error_code == "input_constraint_violated"


def test_the_list_and_the_report(capsys: pytest.CaptureFixture[str], printed: Callable[[], Any]) -> None:
    submit(Order(sources=[URL, "nowhere.mp4"], submission_id=ID))
    capsys.readouterr()
    assert submissions(None, wait=False, as_json=True) == 0
    (entry,) = printed()["submissions"]
    assert (entry["submission_id"], entry["open_runs"], entry["decisions"]["refused"]) == (ID, 1, 1)
    assert submissions(ID, wait=False, as_json=False) == 0
    said = capsys.readouterr().out
    assert "2 items: 1 explained, 1 open (0% done)" in said
    assert f"trendflow submissions {ID} --wait" in said
    missing = complaint(lambda: submissions(f"{ID}-other", wait=False, as_json=False))
    assert missing.error_code == "dependency_missing"


def test_a_short_report_says_where_the_results_are(
    capsys: pytest.CaptureFixture[str], printed: Callable[[], Any]
) -> None:
    submit(Order(sources=[URL], submission_id=ID))
    capsys.readouterr()
    assert submissions(ID, wait=False, as_json=True) == 0
    report = printed()
    (item,) = report["items"]
    done = {**item, "verdict": "done", "status": "success"}
    print_report({**report, "items": [done]})
    assert item["run_key"] in capsys.readouterr().out
    print_report({**report, "items": [done] * 1000})
    assert item["run_key"] not in capsys.readouterr().out


def test_what_failed_of_something_that_passes_is_submitted_again_once(
    capsys: pytest.CaptureFixture[str], printed: Callable[[], Any]
) -> None:
    submit(Order(sources=[URL, "https://youtu.be/lmnopqrstuv"], submission_id=ID))
    away, broken = begin(stored(ID))
    assert complaint(lambda: retry(ID, wait=False, as_json=False)).error_code == "input_constraint_violated"
    deployment = open_deployment(load_settings())
    conclude(deployment, away, TrendFlowError("storage_unavailable", "The store was away."))
    conclude(deployment, broken, TrendFlowError("video_unreadable", "No video."))
    capsys.readouterr()

    reports = []
    for _ in range(2):
        assert retry(ID, wait=False, as_json=True) == 0
        reports.append(printed())
    assert reports[0] == reports[1]
    (item,) = reports[0]["items"]
    assert item["run_key"].startswith("abcdefghijk/")
    assert item["run_key"] != away.partition("/")[2]
    (new,) = stored(reports[0]["submission_id"]).items
    assert isinstance(new, New)
    assert (new.message.retry_count, new.message.user_id) == (1, "command-line")

    # A run that is named is taken whatever its error was; one that did not fail is not.
    assert retry(broken.partition("/")[2], wait=False, as_json=True) == 0
    assert printed()["items"][0]["run_key"].startswith("lmnopqrstuv/")
    assert complaint(lambda: retry(item["run_key"], False, False)).error_code == "input_constraint_violated"


@pytest.mark.parametrize(("age_sec", "seen"), [(20, True), (1000, False)])
def test_a_scheduler_is_seen_by_its_beats(age_sec: float, seen: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with DagsterInstance.get() as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age_sec, "SENSOR", "daemon-1", []))
    assert submit(Order(sources=[URL], submission_id=ID)) == 0
    said = capsys.readouterr()
    assert (f"follow it with: trendflow submissions {ID}" in said.out) is seen
    assert ("no scheduler is seen" in said.err) is not seen


def waited() -> tuple[Outcomes, Submission, str]:
    """A submission with one run that has begun, and what watches it."""
    submit(Order(sources=[URL], submission_id=ID))
    submission, opened = stored(ID), desk()
    graph = open_deployment(load_settings()).graph
    outcomes = Outcomes(opened.store, opened.states, opened.inbox, lambda profile: required_components(graph, profile))
    return outcomes, submission, begin(submission)[0]


def test_watching_ends_with_the_last_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes, submission, path = waited()
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            conclude(open_deployment(load_settings()), path, TrendFlowError("video_unreadable", "No video."))

    monkeypatch.setattr("trendflow.commands.watch.time.sleep", pause)
    watch(outcomes, submission, look_sec=7.0)
    assert looks == [7.0, 7.0]
    assert f"{path.partition('/')[2]} error" in capsys.readouterr().err
    failed = complaint(lambda: submit(Order(sources=[URL], submission_id=ID, wait=True)))
    assert (failed.error_code, failed.message) == ("video_unreadable", "No video.")


def test_a_failure_that_passes_is_watched_until_it_cannot_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, submission, path = waited()
    conclude(open_deployment(load_settings()), path, TrendFlowError("network_error", "The line was down."))
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        monkeypatch.setattr("trendflow.commands.watch._COMES_BACK_SEC", 0.0)  # the time has passed

    monkeypatch.setattr("trendflow.commands.watch._COMES_BACK_SEC", 1e9)
    monkeypatch.setattr("trendflow.commands.watch.time.sleep", pause)
    watch(outcomes, submission)
    assert len(looks) == 1


def test_what_a_component_failed_of_for_good_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, submission, path = waited()
    error = TrendFlowError("network_error", "The line was down.")
    manager = RunManager.open(desk().states, path, holder="worker")
    assert manager is not None
    manager.begin(worker="worker", device=None, resolved_models={})
    manager.component_started("segmenter")
    manager.component_failed("segmenter", error)
    manager.fail(error)
    monkeypatch.setattr("trendflow.commands.watch._COMES_BACK_SEC", 1e9)
    monkeypatch.setattr("trendflow.commands.watch.time.sleep", pytest.fail)
    watch(outcomes, submission)


def test_an_interrupt_ends_the_watching_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, submission, path = waited()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trendflow.commands.watch.time.sleep", interrupt)
    stopped = complaint(lambda: watch(outcomes, submission))
    assert (stopped.error_code, stopped.exit_code) == ("cancelled", 130)
    assert submission.submission_id in stopped.message
    view = desk().states.read_run(path)
    assert view is not None
    assert view.run["status"] == "pending"
    assert view.run["cancel_requested_at"] is None
