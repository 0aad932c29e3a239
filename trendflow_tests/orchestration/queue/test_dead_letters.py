"""Dead letters by the runs of videos that they are about."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import load_settings
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.dead_letters import dead_letters
from trendflow_tests.orchestration.queue.jobs import load
from trendflow_tests.orchestration.queue.stage import Broker

pytestmark = pytest.mark.xdist_group("queue")


def test_the_list_names_runs_of_videos(broker: Broker, dagster_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dead_letters(load_settings()) == []  # without a broker there are none
    monkeypatch.setenv("TRENDFLOW_BROKER_URL", broker.url)
    assert dead_letters(load_settings()) == []
    with DagsterInstance.get() as instance:
        runs = [
            instance.create_run_for_job(load(), tags={PARTITION_NAME_TAG: key} if key else {})
            for key in ("my-video/r1", None, "my-video/r2")
        ]
    board = Board(broker.url)
    for run_id in (*(run.run_id for run in runs), "purged-since"):
        board.bury(run_id, "internal_error", 3)
    found = dead_letters(load_settings())
    assert [(letter["run_key"], letter["error_code"], letter["deliveries"]) for letter in found] == [
        ("my-video/r2", "internal_error", 3),
        ("my-video/r1", "internal_error", 3),
    ]
    problems = validate_document(SchemaRegistry.load(), "submission_report_v1", {"dead_letters": found})
    assert [problem for problem in problems if problem.startswith("$.dead_letters")] == []
