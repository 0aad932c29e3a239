"""After `trendflow delete` nothing that a whole deployment keeps names the video, byte by byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import DynamicPartitionsRequestResult, InstigatorType, TickData, TickStatus

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.runs import RunContext
from trendflow_tests.faults.house import Client
from trendflow_tests.faults.runs import assert_whole
from trendflow_tests.faults.search import (
    Needles,
    gather_statistics,
    in_broker,
    in_database,
    in_files,
    in_store,
    rewrite,
    vacuum,
)
from trendflow_tests.orchestration.conftest import write_clip

pytestmark = pytest.mark.xdist_group("faults")

CANARY = "SYNTHETIC-canary-of-a-title"
STORED = {"costs", "frames_store", "index", "render_cache", "result_store", "state"}
TOLD = {
    *("asset_check_executions", "asset_event_tags", "asset_keys", "backfill_tags", "bulk_actions"),
    *("dynamic_partitions", "event_logs", "job_ticks", "pg_stats", "run_tags", "runs"),
}


def processed(client: Client, source: Path, video_id: str, times: int = 1) -> list[tuple[RunContext, str]]:
    """Runs of the video, later ones from the cache, each with the id of its Dagster run."""
    done = []
    for _ in range(times):
        run = client.submit(source, video_id)
        launched = client.launch(run)
        assert client.ends(launched) == DagsterRunStatus.SUCCESS
        assert_whole(run)
        done.append((run, launched))
    return done


def needles_of(done: list[tuple[RunContext, str]]) -> Needles:
    """Everything that only this video has: names, runs, and what its artifacts are known by."""
    rows = [row for run, _ in done for row in run.manifest()["components"]]
    artifacts = [artifact for row in rows for artifact in row["artifacts"]]
    return {
        "video": [done[0][0].identity.video_id],
        "run": [run.identity.run_id for run, _ in done],
        "dagster run": [launched for _, launched in done],
        "source": [run.manifest()["run"]["source"]["sha256"] for run, _ in done],
        "artifact": [artifact[key] for artifact in artifacts for key in ("sha256", "content_digest")],
        "result": [row["idempotency_key"] for row in rows],
    }


def tell_of_launches(client: Client, done: list[tuple[RunContext, str]]) -> None:
    """What a sensor and a person who launched these runs leave behind: a tick and a backfill that has ended."""
    for run, launched in done:
        key = run.identity.partition_key
        client.instance.create_tick(
            TickData(
                instigator_origin_id="origin",
                instigator_name="take_submissions",
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.SUCCESS,
                timestamp=1.0,
                selector_id="selector",
                run_ids=[launched],
                run_keys=[run.identity.run_id],
                dynamic_partitions_request_results=[DynamicPartitionsRequestResult(VIDEO_RUNS, [key], None, [])],
            )
        )
        client.instance.add_backfill(
            PartitionBackfill(
                backfill_id=launched[:8],
                status=BulkActionStatus.COMPLETED_SUCCESS,
                from_failure=False,
                tags={"of": key},
                backfill_timestamp=1.0,
                partition_names=[key],
            )
        )


def trendflow(client: Client, *arguments: str) -> str:
    command = [sys.executable, "-m", "trendflow", *arguments]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_names_a_deleted_video(client: Client, tmp_path: Path) -> None:
    # Clips that no other test has: artifacts are known by what they hold.
    source, other = write_clip(tmp_path / f"{CANARY}.mp4", seed=7), write_clip(tmp_path / "other.mp4", seed=8)
    gone, kept = (f"film-{uuid4()}" for _ in range(2))
    others, deleted = processed(client, other, kept), processed(client, source, gone, times=2)
    tell_of_launches(client, [*others, *deleted])
    gather_statistics(client.house.environment["TRENDFLOW_DATABASE_URL"])
    needles, theirs = {**needles_of(deleted), "text": [CANARY]}, needles_of(others)
    store, site, settings = client.deployment.store, client.house.servers.site, client.house.environment
    database, broker, home = (settings[f"TRENDFLOW_{name}"] for name in ("DATABASE_URL", "BROKER_URL", "HOME"))
    data = {name: site.service_folder(name) for name in ("seaweedfs", "postgresql", "valkey")}

    def everywhere(wanted: Needles) -> dict[str, dict[str, set[str]]]:
        return {
            "store": in_store(store, wanted),
            "database": in_database(database, wanted),
            "broker": in_broker(broker, wanted),
            "files": in_files(Path(home), wanted, data.values()),
        }

    before, untouched = everywhere(needles), everywhere(theirs)
    assert {key.split("/")[0] for key in before["store"]} == STORED, "otherwise the search proves little"
    assert set(before["database"]) == TOLD, "otherwise the search proves little"
    assert any("compute_logs" in name for name in before["files"])
    assert set.union(*(kinds for place in before.values() for kinds in place.values())) == set(needles)
    objects = {key: store.get(key) for key in untouched["store"]}

    receipt = json.loads(trendflow(client, "delete", gone))
    assert validate_document(SchemaRegistry.load(), "deletion_receipt_v1", receipt) == []
    after = everywhere(needles)
    # What it cost stays, under the run's id, which leads nowhere any more.
    costs = {key: kinds for key, kinds in before["store"].items() if key.startswith("costs/")}
    assert set.union(*costs.values()) == {"run"}
    assert after == {"store": costs, "database": {}, "broker": {}, "files": {}}
    vacuum(database)
    rewrite(broker)
    assert in_files(data["valkey"], needles) == {}
    assert in_files(data["postgresql"] / "data" / "base", needles) == {}
    for root in ("tombstones", "receipts"):
        assert store.exists(f"{root}/{receipt['tombstone_id']}.json")

    left = everywhere(theirs)
    for found in (left, untouched):
        # The last result of every asset is that of the other video now, and statistics are samples.
        for name in ("asset_keys", "pg_stats"):
            found["database"].pop(name, None)
    assert left == untouched
    assert {key: store.get(key) for key in objects} == objects
    for run, _ in others:
        assert_whole(run)
    with pytest.raises(TrendFlowError, match="deleted") as refused:
        client.submit(source, gone)
    assert refused.value.error_code == "input_constraint_violated"
    trendflow(client, "delete", gone, "--lift")
    assert client.submit(source, gone).manifest()["components"] == []
