"""The daily clean-up and what the service asks for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.dataset.stored_contents import snapshots_of
from trendflow.dataset.stored_tables import SNAPSHOTS, TableStore
from trendflow.retention.housekeeping import DeletionDesk, clean_up
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.removal import REASONS
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import Tombstones
from trendflow_tests.retention.known import DATASET, GONE, KEPT, SECRET, contents, eraser, fill, traces
from trendflow_tests.retention.stored import now, stamp
from trendflow_tests.state.runs import SCHEMAS

PAIR = ("youtube", GONE)


@pytest.fixture
def store() -> ObjectStore:
    made = ObjectStore.open("memory://")
    fill(made)
    return made


def cleaned(store: ObjectStore, *, dry_run: bool, days: int = 0) -> dict[str, object]:
    at = stamp(now() + timedelta(days=days, seconds=1))
    deleted = Tombstones.load(store, SECRET)
    report = clean_up(store, RetentionPolicy(), deleted, eraser(store), dry_run=dry_run, now=at).as_dict()
    assert validate_document(SCHEMAS, "retention_report_v1", report) == []
    return report


def test_a_requested_deletion_is_refused_at_once_and_done_by_the_clean_up(store: ObjectStore) -> None:
    desk = DeletionDesk(eraser(store))
    request_id = desk.request(*PAIR, by="user-1")
    assert desk.request(*PAIR, by="user-2") == request_id
    assert PAIR in Tombstones.load(store, SECRET)
    assert desk.report(request_id) == {"status": "pending", "tombstone_id": request_id}
    before = contents(store)
    assert cleaned(store, dry_run=True)["deletions"] == 1
    assert contents(store) == before
    assert cleaned(store, dry_run=False)["deletions"] == 1
    report = desk.report(request_id)
    assert report is not None
    assert (report["status"], report["datasets"]) == ("complete", [DATASET])
    assert traces(store, {GONE.encode(), b"user-2"}) == {f"datasets/{DATASET}/dataset.parquet"}
    assert traces(store, {KEPT.encode()})


def test_a_dry_run_tells_the_same_with_a_deletion_at_work(store: ObjectStore) -> None:
    eraser(store).request(*PAIR)
    told, done = cleaned(store, dry_run=True, days=90), cleaned(store, dry_run=False, days=90)
    assert told["removed"] == done["removed"]
    assert told["removed"] != {name: {"objects": 0, "bytes": 0} for name in REASONS}


def test_unknown_requests_have_no_report_and_others_no_id(store: ObjectStore) -> None:
    desk = DeletionDesk(eraser(store))
    assert desk.report("0" * 64) is None
    with pytest.raises(TrendFlowError) as caught:
        desk.report("../state")
    assert caught.value.error_code == "input_constraint_violated"


def test_a_table_that_an_earlier_import_published_later_loses_the_video(store: ObjectStore) -> None:
    tables = TableStore(store)
    before, files = tables.current(SNAPSHOTS)
    eraser(store).erase(*PAIR)
    tables.put(SNAPSHOTS, files, before.facts)
    cleaned(store, dry_run=False)
    assert snapshots_of(tables.current(SNAPSHOTS)[1]).videos["video_id"].to_pylist() == [KEPT]


def test_nothing_is_published_anew_when_nobody_was_deleted(store: ObjectStore) -> None:
    before = contents(store)
    report = clean_up(store, RetentionPolicy(), (), eraser(store), dry_run=False, now=stamp(now()))
    assert report.deletions == 0
    assert contents(store) == before
