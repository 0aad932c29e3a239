"""The folder of a snapshot set: same content, same bytes; damage is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.parquet import parquet_bytes, table_digest
from trendflow.dataset.snapshots.report import REPORT_VERSION, RULES
from trendflow.dataset.snapshots.tables import SNAPSHOTS_V1, VIDEOS_V1, SnapshotSet, first_snapshots
from trendflow_tests.dataset.snapshots.shards import imported, record, snapshot

VIDEOS = {
    "-abcdefghi_": record(snapshot("2026_01_17_12_00", "9"), snapshot("2026_01_10_12_00", "4", None)),
    "zyxwvutsrq1": record(snapshot("2026_01_11_12_00", "7"), tags=None, title=None),
}


@pytest.fixture
def found(tmp_path: Path) -> SnapshotSet:
    return imported(tmp_path / "in", VIDEOS)


def test_what_is_written_is_read_back(tmp_path: Path, found: SnapshotSet) -> None:
    found.write(tmp_path / "out")
    again = SnapshotSet.read(tmp_path / "out")
    assert table_digest(again.snapshots) == table_digest(found.snapshots)
    assert table_digest(again.videos) == table_digest(found.videos)
    assert again.report.as_dict() == found.report.as_dict()
    assert (again.snapshots.schema, again.videos.schema) == (SNAPSHOTS_V1, VIDEOS_V1)
    again.write(tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_chunks_and_schema_metadata_change_neither_bytes_nor_digest(found: SnapshotSet) -> None:
    whole = found.snapshots.combine_chunks()
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert parts["views"].num_chunks == 2
    assert parquet_bytes(parts) == parquet_bytes(whole)
    assert table_digest(parts.replace_schema_metadata({"other": "x"})) == table_digest(whole)


def test_a_slice_is_what_it_shows(found: SnapshotSet) -> None:
    for table in (found.snapshots, found.videos):
        rows = table.slice(1, 1)
        assert table_digest(rows) == table_digest(rows.take(pa.array([0])))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1.0], [2.0]),
        ([1.0], [None]),
        ([math.nan], [None]),
        (["ab", "c"], ["a", "bc"]),
        ([""], [None]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([["ab"]], [["a", "b"]]),
        ([[], ["a"]], [None, ["a"]]),
        ([True], [False]),
        ([False], [None]),
        ([1], [None]),
        ([0], [None]),
    ],
)
def test_different_values_have_different_digests(one: list[object], other: list[object]) -> None:
    kind = pa.array([*one, *other]).type
    assert table_digest(pa.table({"x": pa.array(one, kind)})) != table_digest(pa.table({"x": pa.array(other, kind)}))


def test_names_and_types_enter_the_digest() -> None:
    digests = {
        table_digest(pa.table({name: pa.array([1], kind)}))
        for name in ("a", "b")
        for kind in (pa.int32(), pa.int64(), pa.float32(), pa.float64())
    }
    assert len(digests) == 8


def test_nan_is_one_value_whatever_its_bits() -> None:
    odd = np.frombuffer(np.array([0x7FF8000000000001], dtype=np.uint64), dtype=np.float64)
    assert table_digest(pa.table({"x": odd})) == table_digest(pa.table({"x": [math.nan]}))


def test_embeddings_have_a_digest() -> None:
    kind = pa.list_(pa.float32(), 2)
    digests = {table_digest(pa.table({"x": pa.array([row], kind)})) for row in ([0.0, 1.0], [1.0, 0.0], None)}
    assert len(digests) == 3


def test_first_snapshots_are_the_earliest_in_any_order(found: SnapshotSet) -> None:
    backwards = found.snapshots.take(pa.array(range(found.snapshots.num_rows - 1, -1, -1)))
    first = first_snapshots(backwards, found.videos)
    assert first["video_id"].to_pylist() == sorted(VIDEOS)
    assert first["views"].to_pylist() == [4.0, 7.0]
    assert math.isnan(first["likes"][0].as_py())
    assert first["t0"].to_pylist() == found.videos["captured_at"].to_pylist()
    assert first_snapshots(backwards, found.videos.slice(1)).num_rows == 1


@pytest.mark.parametrize("name", ["snapshots.parquet", "videos.parquet", "import_report.json"])
def test_missing_and_damaged_files_are_refused(tmp_path: Path, found: SnapshotSet, name: str) -> None:
    found.write(tmp_path)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(TrendFlowError) as caught:
        SnapshotSet.read(tmp_path)
    assert caught.value.error_code == "artifact_validation_failed"
    (tmp_path / name).unlink()
    with pytest.raises(TrendFlowError) as caught:
        SnapshotSet.read(tmp_path)
    assert caught.value.error_code == "dependency_missing"


def test_tables_of_two_imports_are_no_set(tmp_path: Path, found: SnapshotSet) -> None:
    found.write(tmp_path / "set")
    other = imported(tmp_path / "other", {"zyxwvutsrq1": VIDEOS["zyxwvutsrq1"]})
    (tmp_path / "set" / "videos.parquet").unlink()
    (tmp_path / "set" / "videos.parquet" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"videos\.parquet"):
        other.write(tmp_path / "set")
    with pytest.raises(TrendFlowError) as interrupted:
        SnapshotSet.read(tmp_path / "set")
    assert interrupted.value.error_code == "artifact_validation_failed"
    assert not (tmp_path / "set" / "import_report.json").exists()
    found.write(tmp_path / "mixed")
    other.write(tmp_path / "one")
    (tmp_path / "one" / "videos.parquet").replace(tmp_path / "mixed" / "videos.parquet")
    with pytest.raises(TrendFlowError, match="of other tables"):
        SnapshotSet.read(tmp_path / "mixed")


def test_a_table_of_another_form_is_refused(tmp_path: Path, found: SnapshotSet) -> None:
    found.write(tmp_path)
    pq.write_table(pa.table({"video_id": ["a"]}), tmp_path / "videos.parquet")
    with pytest.raises(TrendFlowError, match="videos_v1"):
        SnapshotSet.read(tmp_path)


def test_the_report_names_every_rule(found: SnapshotSet) -> None:
    document = json.loads(found.report.to_json())
    assert document["counts"]["duplicate_conflict"] == 0
    assert document["counts"]["counter_missing"] == 1


def test_the_schema_of_the_report_knows_every_rule() -> None:
    document = SchemaRegistry.load().documents[REPORT_VERSION]
    assert sorted(document["$defs"]["rule"]["enum"]) == sorted(RULES)


@pytest.mark.parametrize(
    "change",
    [
        {"report_version": "import_report_v2"},
        {"n_videos": -1},
        {"title": "A text of a video"},
        {"counts": {"made_up": 1}},
        {"listed": {"before_publication": [{"title": "A text of a video"}]}},
        {"sources": [{"name": "/home/someone/shard.json", "records": {}, "snapshots": 0}]},
    ],
)
def test_a_report_that_breaks_its_schema_is_refused(
    tmp_path: Path, found: SnapshotSet, change: dict[str, object]
) -> None:
    found.write(tmp_path)
    document = {**json.loads((tmp_path / "import_report.json").read_bytes()), **change}
    (tmp_path / "import_report.json").write_text(json.dumps(document))
    with pytest.raises(TrendFlowError, match="is not an import report") as caught:
        SnapshotSet.read(tmp_path)
    assert caught.value.error_code == "artifact_validation_failed"
    assert "A text" not in str(caught.value)


def test_a_set_without_a_deleted_video_names_it_nowhere(tmp_path: Path) -> None:
    early = snapshot("2025_12_01_12_00", "1")  # before the publication: the report lists it
    gone, kept = "-abcdefghi_", "zyxwvutsrq1"
    full = imported(tmp_path, {name: record(early, snapshot("2026_01_17_12_00", "9")) for name in (gone, kept)})
    assert {place["video_id"] for place in full.report.listed["before_publication"]} == {gone, kept}
    left = full.without({("youtube", gone), ("upload", kept)})
    only = imported(tmp_path, {kept: record(early, snapshot("2026_01_17_12_00", "9"))})
    assert left.videos.equals(only.videos)
    assert left.snapshots.drop_columns(["source_row"]).equals(only.snapshots.drop_columns(["source_row"]))
    assert gone.encode() not in left.report.to_json()
    assert (left.report.n_videos, left.report.n_snapshots) == (1, 1)
    assert (left.report.counts["video_deleted"], full.report.counts["video_deleted"]) == (1, 0)
    assert len(full.report.listed["before_publication"]) == 2, "the set itself stays as it was"
    left.write(tmp_path / "out")
