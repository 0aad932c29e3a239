"""After a deletion nothing of the video is left, however often it was interrupted."""

from __future__ import annotations

import json

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.dataset.stored_contents import enrichment_of, snapshots_of, targets_of
from trendflow.dataset.stored_tables import CHANNELS, SNAPSHOTS, TARGETS, TableStore
from trendflow.retention.erasure import Eraser
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import Tombstones
from trendflow_tests.retention.known import (
    CANARY,
    DATASET,
    GONE,
    KEPT,
    SECRET,
    comparable,
    contents,
    copied,
    digests,
    eraser,
    fill,
    traces,
)
from trendflow_tests.retention.stored import make_run
from trendflow_tests.state.runs import SCHEMAS, BreakingStore, Crash, FixedClock, states_in
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

PAIR = ("youtube", GONE)


class Breaking(BreakingStore):
    """Also inside the removal of a folder, which is no single step."""

    def delete_prefix(self, prefix: str) -> int:
        return sum(self.delete(info.key) for info in list(self.list(prefix)))


@pytest.fixture
def store(any_store: ObjectStore) -> ObjectStore:
    return any_store


@pytest.fixture
def memory() -> ObjectStore:
    made = ObjectStore.open("memory://")
    fill(made)
    return made


def needles(store: ObjectStore) -> set[bytes]:
    return {GONE.encode(), CANARY.encode(), CANARY.replace(" ", "_").encode(), *digests(store, GONE)}


def test_nothing_is_left_but_tombstone_and_receipt(store: ObjectStore) -> None:
    fill(store)
    wanted, others = needles(store), digests(store, KEPT)
    before = traces(store, wanted)
    roots = {key.split("/")[0] for key in before}
    assert roots == {
        *("datasets", "frames_store", "index", "render_cache", "result_store", "snapshots", "state", "submissions"),
        "tables",
    }, "otherwise the search proves little"
    kept = {key: data for key, data in contents(store).items() if f"/{KEPT}/" in key}
    receipt = eraser(store).erase(*PAIR)
    # Datasets are versions that others cite: they stay, and the receipt lists them.
    assert traces(store, wanted) == {f"datasets/{DATASET}/dataset.parquet"}
    after = contents(store)
    assert {key: after.get(key) for key in kept} == kept
    assert others == digests(store, KEPT) != set()
    added = set(after) & {key for key in after if key.startswith(("tombstones/", "receipts/", "erasures/"))}
    assert added == {f"{root}/{receipt['tombstone_id']}.json" for root in ("tombstones", "receipts")}


def test_the_receipt_counts_what_there_was_and_lists_what_stays(memory: ObjectStore) -> None:
    listed = {
        name: sum(1 for _ in memory.list(f"{root}/youtube/{GONE}"))
        for name, root in (("artifacts", "result_store"), ("frames", "frames_store"), ("state", "state"))
    }
    receipt = eraser(memory).erase(*PAIR, request_id="request-1")
    assert validate_document(SCHEMAS, "deletion_receipt_v1", receipt) == []
    assert json.loads(memory.get(f"receipts/{receipt['tombstone_id']}.json")) == receipt
    assert {name: receipt["counts"][name] for name in listed} == listed
    assert receipt["counts"]["rows_of_snapshots"] == 2
    assert receipt["counts"]["collected_snapshots"] == 5, "tracked, metadata, channel, two snapshots"
    assert receipt["live_runs"] == 1
    assert receipt["datasets"] == [DATASET]
    assert receipt["models"] == [{"training_run_id": f"run_on_{DATASET}", "dataset_version": DATASET}]
    stone = json.loads(memory.get(f"tombstones/{receipt['tombstone_id']}.json"))
    assert validate_document(SCHEMAS, "tombstone_v1", stone) == []
    assert stone["counts"] == receipt["counts"]
    assert stone["request_id"] == "request-1"


def test_tables_are_those_of_the_other_videos(memory: ObjectStore) -> None:
    eraser(memory).erase(*PAIR)
    tables = TableStore(memory)
    stored, files = tables.current(SNAPSHOTS)
    snapshots = snapshots_of(files)
    assert snapshots.videos["video_id"].to_pylist() == [KEPT]
    assert snapshots.report.counts["video_deleted"] == 1
    for name in (TARGETS, CHANNELS):
        assert tables.require(name).facts["made_from"] == stored.digest
    assert targets_of(tables.current(TARGETS)[1], snapshots).table["video_id"].to_pylist() == [KEPT]
    assert [video for _, video in enrichment_of(tables.current(CHANNELS)[1]).rows()] == [KEPT]


def test_tables_of_no_other_video_become_empty(memory: ObjectStore) -> None:
    eraser(memory).erase(*PAIR)
    eraser(memory).erase("youtube", KEPT)
    assert snapshots_of(TableStore(memory).current(SNAPSHOTS)[1]).videos.num_rows == 0
    assert TableStore(memory).require(TARGETS).facts["made_from"] == TableStore(memory).require(SNAPSHOTS).digest


def test_level1_knows_the_other_runs_still(memory: ObjectStore) -> None:
    deployment = Deployment(memory)
    before = deployment.states.read_global()["runs"]
    eraser(memory).erase(*PAIR)
    after = deployment.states.read_global()["runs"]
    assert set(before) - set(after) == {path for path in before if GONE in path} != set()
    assert {path: row["status"] for path, row in after.items()} == {path: before[path]["status"] for path in after}
    queue, manager = deployment.level1()
    queue.step()
    deployment.clock.seconds += 60
    queue.step()
    assert [message.run_path for message in queue.take(5)] == list(after)
    manager.close()


def test_a_deletion_that_dies_at_any_write_is_finished_by_a_repetition(memory: ObjectStore) -> None:
    objects = contents(memory)
    wanted = needles(memory)
    undisturbed = copied(objects)
    expected = eraser(undisturbed).erase(*PAIR, request_id="request-1")
    end = comparable(undisturbed)
    assert traces(undisturbed, wanted) == {f"datasets/{DATASET}/dataset.parquet"}
    points = 0
    while True:
        store = copied(objects)
        broken = Breaking(store, points, Crash(), before=points % 2 == 0)
        try:
            eraser(broken).erase(*PAIR, request_id="request-1")
        except Crash:
            pass
        else:
            break
        requested = store.exists(f"erasures/{expected['tombstone_id']}.json")
        if points % 4 < 2 or not requested:
            receipt = eraser(store).erase(*PAIR, request_id="request-1")
        else:  # by whoever runs daily and was never told the id
            (receipt,) = eraser(store).continue_all()
        assert receipt == expected, points
        assert comparable(store) == end, points
        assert not any(GONE.encode() in store.get(info.key) for info in store.list("state")), points
        points += 1
    assert points > 40, "every removed object is a point"


def test_nothing_is_removed_before_readers_refuse_the_video(memory: ObjectStore) -> None:
    objects = contents(memory)
    for point in range(200):
        store = copied(objects)
        broken = Breaking(store, point, Crash(), before=True)
        try:
            eraser(broken).erase(*PAIR)
        except Crash:
            pass
        else:
            return
        if set(objects) - set(contents(store)):
            assert PAIR in Tombstones.load(store, SECRET)
            return


def test_repeating_it_changes_nothing(memory: ObjectStore) -> None:
    first = eraser(memory).erase(*PAIR)
    before = contents(memory)
    assert eraser(memory).erase(*PAIR) == first
    assert contents(memory) == before
    assert eraser(memory).continue_all() == []


def test_what_a_late_writer_left_goes_with_the_next_deletion(memory: ObjectStore) -> None:
    eraser(memory).erase(*PAIR)
    make_run(memory, "late", video_id=GONE)
    receipt = eraser(memory).erase(*PAIR)
    assert receipt["counts"]["artifacts"] == 2
    assert traces(memory, {GONE.encode()}) == {f"datasets/{DATASET}/dataset.parquet"}


def test_its_runs_are_asked_to_stop_before_anything_goes(memory: ObjectStore) -> None:
    events = f"state/youtube/{GONE}/live/events"
    before = set(contents(memory))
    point = 0
    while True:  # the last moment before the first object is missing
        store = copied(contents(memory))
        broken = Breaking(store, point, Crash(), before=True)
        with pytest.raises(Crash):
            eraser(broken).erase(*PAIR)
        if not before <= set(contents(store)):
            break
        written = [store.get(info.key) for info in store.list(events)]
        point += 1
    assert [json.loads(data)["type"] for data in written][-1] == "cancel_requested"


def test_it_is_submitted_again_only_after_the_tombstone_is_lifted(memory: ObjectStore) -> None:
    def submit(name: str) -> str:
        deployment = Deployment(memory, deleted=Tombstones.load(memory, SECRET))
        (item,) = deployment.desk.submit(submission_id(name), USER, [draft(name, 0, 1)]).items
        return type(item).__name__

    found = eraser(memory)
    found.request(*PAIR)
    assert submit("while-it-lasts") == "Refused"
    with pytest.raises(TrendFlowError, match="not complete"):
        found.lift(*PAIR)
    found.continue_all()
    assert submit("afterwards") == "Refused"
    assert found.lift(*PAIR)
    assert not found.lift(*PAIR)
    assert submit("lifted") == "New"
    assert found.receipt(*PAIR) is not None
    assert found.erase(*PAIR)["counts"], "deleted once more, it is buried once more"
    assert PAIR in Tombstones.load(memory, SECRET)


def test_a_lifted_video_without_any_trace_is_buried_again(memory: ObjectStore) -> None:
    found = eraser(memory)
    found.erase(*PAIR)
    found.lift(*PAIR)
    found.erase(*PAIR)
    assert PAIR in Tombstones.load(memory, SECRET)


@pytest.mark.parametrize(
    ("pair", "reason", "match"),
    [
        (("youtube", "../../x"), "user_request", "must be"),
        (("upload", GONE), "user_request", "must not be"),
        (PAIR, "because Anna asked", "a word"),
    ],
)
def test_what_is_no_video_and_no_reason_is_refused(
    memory: ObjectStore, pair: tuple[str, str], reason: str, match: str
) -> None:
    before = contents(memory)
    with pytest.raises(TrendFlowError, match=match) as caught:
        eraser(memory).erase(*pair, reason=reason)
    assert caught.value.error_code == "input_constraint_violated"
    assert contents(memory) == before


@pytest.mark.parametrize("secret", [None, b""])
def test_without_a_key_nobody_is_deleted(secret: bytes | None) -> None:
    with pytest.raises(TrendFlowError, match="TRENDFLOW_TOMBSTONE_KEY") as caught:
        Eraser(ObjectStore.open("memory://"), SCHEMAS, secret)
    assert caught.value.error_code == "config_invalid"


def test_a_damaged_log_and_manifest_hold_up_nothing(memory: ObjectStore) -> None:
    memory.put(f"result_store/youtube/{GONE}/ended/manifest.json", b"{")
    for info in list(memory.list(f"state/youtube/{GONE}/live/events")):
        memory.put(info.key, b"{")
    memory.put(f"state/youtube/{GONE}/live/events/000000000009.json", b"{")
    eraser(memory).erase(*PAIR)
    assert traces(memory, {GONE.encode()}) == {f"datasets/{DATASET}/dataset.parquet"}
    assert states_in(memory, FixedClock()).read_run(f"youtube/{GONE}/live") is None
