"""Logs: one line per event that says whose it is, and none that repeats what a video says."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.definitions import build_definitions
from trendflow.logs import LineFormatter, log_context
from trendflow.orchestration import resources
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.run_log import take_over_console
from trendflow.state.run_manager import RunManager
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Here, Submit

CANARY = "Nobody may read this comment"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def sink() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(sink: io.StringIO) -> Iterator[Lines]:
    """What every logger of this process says from here on, at any level, as the JSON lines of a worker."""
    root = logging.getLogger()
    handler, level = logging.StreamHandler(sink), root.level
    handler.setFormatter(LineFormatter("json", {"worker": "worker-1"}))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in sink.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def said(log_format: Any, name: str, message: object, *args: object, **options: Any) -> str:
    """One record of the logger `name`, as a line."""
    raised = options.pop("exc_info", None)
    info = None if raised is None else (type(raised), raised, raised.__traceback__)
    record = logging.getLogger(name).makeRecord(name, logging.ERROR, __file__, 1, message, args, info, **options)
    return LineFormatter(log_format, {}).format(record)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as exc:
        return exc


def test_a_line_says_what_when_and_of_which_run(lines: Lines) -> None:
    log = logging.getLogger("trendflow.test")
    with log_context(platform_id="upload", video_id="video-1", run_id="run-1"):
        with log_context(component="core_clip"):
            log.warning("another attempt: %s", TrendFlowError("timeout", "It took long."), extra={"attempt": 2})
        log.info("the run ended", extra={"duration_ms": 1500, "surprise": "dropped"})
    log.error("outside")
    first, second, third = lines()
    at = datetime.fromisoformat(first.pop("ts"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 600
    assert first == {
        "level": "warning",
        "logger": "trendflow.test",
        "message": "another attempt: timeout: It took long.",
        "platform_id": "upload",
        "video_id": "video-1",
        "run_id": "run-1",
        "component": "core_clip",
        "worker": "worker-1",
        "error_code": "timeout",
        "attempt": 2,
    }
    assert second["duration_ms"] == 1500
    assert {"surprise", "component"} & set(second) == set()
    assert "run_id" not in third


def test_text_is_one_readable_line() -> None:
    with log_context(run_id="run-1"):
        line = said("text", "trendflow.test", "no space: %d bytes", 3, extra={"error_code": "storage_unavailable"})
    _, _, told = line.partition(" ")
    assert told == "ERROR trendflow.test no space: 3 bytes run_id=run-1 error_code=storage_unavailable"


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize(
    ("logger", "message", "args"),
    [
        ("trendflow.models.onnx_runtime", "inference failed", ()),
        ("trendflow.models.onnx_runtime", "inference failed: %s", (ValueError(CANARY),)),
        ("trendflow.models.onnx_runtime", ValueError(CANARY), ()),
        ("trendflow.models.onnx_runtime", "arguments are missing: %s %s", (ValueError(CANARY),)),
        ("celery.app.trace", "Task raised: %(exc)s\n%(traceback)s", ({"exc": repr(CANARY), "traceback": CANARY},)),
        ("dagster.run", f"STEP_FAILURE - Execution failed.\n\nValueError: {CANARY}", ()),
        ("asyncio", f"Task exception was never retrieved\nfuture: <Task exception=ValueError({CANARY!r})>", ()),
        ("yt_dlp", f"Cannot find a format of {CANARY}", ()),
        ("PIL.Image", "Cannot draw %s", (CANARY,)),
    ],
)
def test_no_exception_and_no_library_is_quoted(log_format: str, logger: str, message: object, args: tuple) -> None:
    error = raised(ValueError(CANARY))
    line = said(log_format, logger, message, *args, exc_info=error)
    assert CANARY not in line
    assert "ValueError" in line
    assert "test_logs.py" in line  # where it was raised


def test_infrastructure_is_heard_and_other_libraries_are_not() -> None:
    refused = ConnectionRefusedError(111, f"refused by {CANARY}")
    line = said("json", "celery.worker.consumer", "cannot connect to %s: %s.\nTrying again", "redis://host", refused)
    assert json.loads(line)["message"] == "cannot connect to redis://host: ConnectionRefusedError."
    assert json.loads(said("json", "sqlalchemy.engine", "INSERT … %s", CANARY))["message"] == "message withheld"


def test_a_run_that_fails_over_a_text_does_not_repeat_it(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    dagster_home: Path,
    lines: Lines,
    sink: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources.TrendFlowResource, "deployment", property(lambda self: deployment))
    monkeypatch.setattr("dagster._loggers.create_console_logger", None)  # put back after the test
    take_over_console()

    def quoting(inputs: ComponentInputs) -> Artifact:
        raise ValueError(CANARY) from KeyError(CANARY)

    add_probe(deployment, quoting)
    run = submit(deployment, clip)
    job = build_definitions(deployment).resolve_job_def(PROCESS_VIDEO)
    with DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("video_runs", [run.identity.partition_key])
        result = job.execute_in_process(
            partition_key=run.identity.partition_key, instance=instance, raise_on_error=False
        )
    assert not result.success
    found = lines()
    assert CANARY not in sink.getvalue()
    identity = run.identity
    whose = {"platform_id": identity.platform_id, "video_id": identity.video_id, "run_id": identity.run_id}
    (failure,) = [line for line in found if line["message"] == f"the component {NAME} failed with ValueError"]
    assert failure.items() >= {**whose, "component": NAME, "error_code": "internal_error"}.items()
    assert failure["error_type"] == "ValueError"
    assert any(place.endswith(" quoting") for place in failure["places"])
    ended = {line.get("component"): line for line in found if line["message"] == "the component ended"}
    assert {name: line["outcome"] for name, line in ended.items()} == {"segmenter": "ok", NAME: "error"}
    assert all(line.items() >= whose.items() and line["duration_ms"] >= 0 for line in ended.values())
    (end,) = [line for line in found if line["message"].startswith("the run ended")]
    assert (end["error_code"], end["run_id"]) == ("internal_error", identity.run_id)
    told = [line["message"] for line in found if line["logger"] == "dagster.run"]
    assert any("STEP_FAILURE" in message for message in told)  # Dagster was listened to as well


def test_another_thread_of_a_run_says_whose_it_is(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    run = submit(deployment, clip)
    real, broken = RunManager.component_started, [TrendFlowError("storage_unavailable", "It is away.")]

    def once(manager: RunManager, *args: Any, **options: Any) -> None:
        if broken:
            raise broken.pop()
        real(manager, *args, **options)

    monkeypatch.setattr(RunManager, "component_started", once)
    assert here(run) == "success"
    (told,) = [line for line in lines() if line["logger"] == "trendflow.orchestration.recorder"]
    assert told["message"] == "the state of the run cannot be recorded (storage_unavailable); trying again"
    assert told["run_id"] == run.identity.run_id


CODE = """
import logging
from trendflow.config import load_settings
from trendflow.logs import configure_logging
settings = load_settings()
configure_logging(settings.log_format or "text", settings.log_level)
for name in ("trendflow.test", "celery.worker", "somebody.else"):
    logging.getLogger(name).info("info of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
logging.getLogger("trendflow.test").info("%d", "not a number")
configure_logging("text", "DEBUG")
logging.getLogger("trendflow.test").debug("a second configuration")
"""


@pytest.mark.parametrize(
    ("level", "messages"),
    [
        ("", ["info of trendflow.test", "warning of trendflow.test", "info of celery.worker"]),
        ("WARNING", ["warning of trendflow.test", "warning of celery.worker", "message withheld"]),
    ],
)
def test_format_and_level_come_from_the_environment(level: str, messages: list[str]) -> None:
    environment = {**os.environ, "TRENDFLOW_LOG_FORMAT": "json", "TRENDFLOW_LOG_LEVEL": level}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    found = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert found[: len(messages)] == messages
    assert "a second configuration" not in found
    assert ("%d" in found) is (level == "")


def test_a_level_that_does_not_exist_is_refused() -> None:
    environment = {**os.environ, "TRENDFLOW_LOG_LEVEL": "LOUD"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert "config_invalid: TRENDFLOW_LOG_LEVEL is invalid" in done.stderr
