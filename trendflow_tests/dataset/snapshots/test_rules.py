"""Rules that need all snapshots together: duplicates, publication, first snapshots, and no influence of order."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.dataset.parquet import table_digest
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.observations import Observations, metadata_tuple
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow_tests.dataset.snapshots.shards import PUBLISHED, counted, record, snapshot, write

START = datetime(2026, 1, 10, 12, tzinfo=UTC)
VIDEO = "abcdefghij0"


def observed(rows: list[tuple[str, int, float, str, int]], published: datetime | None = None) -> SnapshotSet:
    """Rows of video, hour, views, source and source row; all other counters are missing."""
    into = Observations()
    metadata = metadata_tuple({"publish_time": published or START - timedelta(days=1)})
    for video, hour, views, source, row in rows:
        into.add(video, START + timedelta(hours=hour), [views, *[math.nan] * 5], metadata, source, row)
    return into.finish()


def test_of_equal_duplicates_the_last_one_stands() -> None:
    found = observed(
        [(VIDEO, 0, 5.0, "a", 3), (VIDEO, 0, 5.0, "a", 7), (VIDEO, 0, 5.0, "a", 1), (VIDEO, 9, 6.0, "a", 0)]
    )
    assert counted(found) == {"duplicate_equal": 2}
    assert found.snapshots["source_row"].to_pylist() == [7, 0]


def test_a_missing_counter_equals_a_missing_counter() -> None:
    assert counted(observed([(VIDEO, 0, math.nan, "a", 0), (VIDEO, 0, math.nan, "a", 1)])) == {"duplicate_equal": 1}
    assert counted(observed([(VIDEO, 0, math.nan, "a", 0), (VIDEO, 0, 1.0, "a", 1), (VIDEO, 1, 1.0, "a", 2)])) == {
        "duplicate_conflict": 1
    }


def test_contradicting_duplicates_are_all_kept_out_and_listed() -> None:
    found = observed(
        [(VIDEO, 0, 5.0, "a", 0), (VIDEO, 0, 6.0, "b", 0), (VIDEO, 0, 6.0, "c", 0), (VIDEO, 24, 9.0, "a", 1)]
    )
    assert found.snapshots["views"].to_pylist() == [9.0]
    assert found.videos["captured_at"].to_pylist() == [START + timedelta(hours=24)]
    assert found.report.as_dict()["listed"] == {
        "duplicate_conflict": [
            {"video_id": VIDEO, "snapshot_time": START.isoformat(), "rows": ["a:0", "b:0", "c:0"]},
        ]
    }


def test_snapshots_before_publication_are_dropped_and_listed() -> None:
    found = observed([(VIDEO, -1, 1.0, "a", 0), (VIDEO, 0, 2.0, "a", 1), (VIDEO, 1, 3.0, "a", 2)], published=START)
    assert found.snapshots["views"].to_pylist() == [2.0, 3.0]
    assert [place["source_row"] for place in found.report.as_dict()["listed"]["before_publication"]] == [0]


def test_metadata_is_that_of_the_first_snapshot_whichever_file_it_is_in(tmp_path: Path) -> None:
    late = record(snapshot("2026_01_20_00_00"), title="later", publishedAt="2026-01-01T00:00:00Z")
    early = record(snapshot("2026_01_10_00_00"), title="earlier")
    files = [write(tmp_path, {VIDEO: late}, "a.json"), write(tmp_path, {VIDEO: early}, "b.json")]
    found = import_snapshots(files)
    (video,) = found.videos.to_pylist()
    assert (video["title"], video["source"]) == ("earlier", "b.json")
    assert video["publish_time"] == datetime.fromisoformat(PUBLISHED)
    assert counted(found) == {"publish_time_changed": 1}


def test_a_publication_time_that_is_missing_at_first_is_not_taken_from_later(tmp_path: Path) -> None:
    first = record(snapshot("2026_01_10_00_00"), publishedAt=None)
    files = [
        write(tmp_path, {VIDEO: first}, "a.json"),
        write(tmp_path, {VIDEO: record(snapshot("2026_01_20_00_00"))}, "b.json"),
    ]
    found = import_snapshots(files)
    assert found.videos["publish_time"].to_pylist() == [None]
    assert counted(found) == {"publish_time_missing": 1}


@settings(max_examples=40)
@given(st.data())
def test_order_of_inputs_and_repetition_change_nothing(data: st.DataObject) -> None:
    row = st.tuples(
        st.sampled_from(["abcdefghij0", "-bcdefghij1", "upload-one"]),
        st.integers(-30, 6),
        st.sampled_from([0.0, 1.0, math.nan]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
    )
    rows = data.draw(st.lists(row, max_size=12))
    one, other = observed(rows), observed(data.draw(st.permutations(rows)))
    assert table_digest(one.snapshots) == table_digest(other.snapshots)
    assert table_digest(one.videos) == table_digest(other.videos)
    assert one.report.as_dict() == other.report.as_dict()
    twice = observed(rows + rows)
    assert table_digest(one.snapshots) == table_digest(twice.snapshots)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0])), max_size=10))
def test_every_row_is_kept_or_counted(hours: list[tuple[int, float]]) -> None:
    rows = [(VIDEO, hour, views, "a", at) for at, (hour, views) in enumerate(hours)]
    found = observed(rows)
    listed = found.report.as_dict()["listed"].get("duplicate_conflict", [])
    out = sum(len(place["rows"]) for place in listed) + found.report.counts["duplicate_equal"]
    assert found.snapshots.num_rows + out == len(rows)
    times = found.snapshots["snapshot_time"].to_pylist()
    assert times == sorted(set(times))


def test_files_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    files = [
        write(tmp_path, {VIDEO: record(snapshot()), "zyxwvutsrq1": record(snapshot(views="1"))}, "b.json"),
        write(tmp_path, {VIDEO: record(snapshot(), snapshot("2026_01_17_12_00"))}, "a.json"),
    ]
    for name, order in (("one", files), ("two", files[::-1])):
        import_snapshots(order).write(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert json.loads((tmp_path / "one" / "import_report.json").read_text())["counts"]["duplicate_equal"] == 1
