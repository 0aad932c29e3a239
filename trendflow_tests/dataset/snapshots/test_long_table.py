"""Form D: Parquet and CSV with one row per (video, time)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.parquet import table_digest
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow_tests.dataset.snapshots.shards import counted

FIRST = pd.Timestamp("2026-01-10T12:00:30Z")


def frame(n: int = 3) -> pd.DataFrame:
    """SYNTHETIC daily snapshots of one video."""
    return pd.DataFrame(
        {
            "video_id": ["-abcdefghi_"] * n,
            "snapshot_time": [FIRST + pd.Timedelta(days=day) for day in range(n)],
            "views": [100 * (day + 1) for day in range(n)],
            "likes": list(range(n)),
            "comments": [0] * n,
            "publish_time": [FIRST - pd.Timedelta(hours=5)] * n,
            "channel_id": ["UC_synthetic"] * n,
            "channel_title": ["A SYNTHETIC channel"] * n,
            "category_id": [28] * n,
            "title": ['Fish &amp; chips,\n"now"'] * n,
            "tags": [["a", "b"]] * n,
            "duration_s": [61] * n,
            "channel_subscribers": [5] * n,
            "channel_views": [6] * n,
            "channel_videos": [7] * n,
            "language": ["en"] * n,
            "definition": ["hd"] * n,
            "caption": ["true"] * n,
            "source": ["SYNTHETIC"] * n,
            "other": ["ignored"] * n,
        }
    )


def stored(folder: Path, table: pd.DataFrame, kind: str) -> Path:
    path = folder / f"table{kind}"
    if kind == ".csv":
        table.assign(tags=["|".join(tags) for tags in table.get("tags", [[]] * len(table))]).to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_both_kinds_of_file_say_the_same(tmp_path: Path, kind: str) -> None:
    found = import_snapshots([stored(tmp_path, frame(), kind)])
    assert found.snapshots["snapshot_time"].to_pylist() == list(frame()["snapshot_time"])
    assert found.snapshots["views"].to_pylist() == [100.0, 200.0, 300.0]
    assert found.snapshots["channel_videos"].to_pylist() == [7.0] * 3
    assert found.snapshots["source"].to_pylist() == ["SYNTHETIC"] * 3
    (video,) = found.videos.to_pylist()
    assert video["title"] == 'Fish & chips,\n"now"'
    assert video["tags"] == ["a", "b"]
    assert (video["category_id"], video["caption"], video["duration_seconds"]) == ("28", True, 61.0)
    assert (video["publish_time"], video["captured_at"]) == (FIRST - pd.Timedelta(hours=5), FIRST)
    assert (video["description"], video["made_for_kids"]) == (None, None)
    assert math.isnan(video["n_thumbnails"])
    assert counted(found) == {"text_decoded": 1}


@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_columns_that_are_not_there_are_missing(tmp_path: Path, kind: str) -> None:
    found = import_snapshots([stored(tmp_path, frame()[["video_id", "snapshot_time", "views"]], kind)])
    assert found.snapshots["views"].to_pylist() == [100.0, 200.0, 300.0]
    assert found.snapshots["source"].to_pylist() == [f"table{kind}"] * 3
    assert counted(found) == {"counter_missing": 15, "publish_time_missing": 1}


@pytest.mark.parametrize("column", ["video_id", "snapshot_time"])
@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_a_table_without_its_key_is_refused(tmp_path: Path, kind: str, column: str) -> None:
    with pytest.raises(TrendFlowError, match=column) as caught:
        import_snapshots([stored(tmp_path, frame().drop(columns=column), kind)])
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_missing_and_negative_counters_and_bad_ids(tmp_path: Path, kind: str) -> None:
    table = frame(4)
    table["views"] = table["views"].astype("float64")
    table.loc[0, "views"], table.loc[1, "views"] = math.nan, -3.0
    table.loc[2, "video_id"] = "no id"
    table.loc[3, "snapshot_time"] = None
    found = import_snapshots([stored(tmp_path, table, kind)])
    assert found.snapshots["views"].is_valid().to_pylist() == [True, True]
    assert all(math.isnan(views) for views in found.snapshots["views"].to_pylist())
    rules = {"counter_missing": 1, "counter_bad": 1, "record_malformed": 1, "snapshot_time_bad": 1, "text_decoded": 1}
    assert counted(found) == rules


def test_rows_of_a_csv_with_another_number_of_fields_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("video_id,snapshot_time,views\nabcdefghij0,2026-01-10 12:00:00,5\nabcdefghij0,6\nx,y,z,7\n")
    found = import_snapshots([path])
    assert found.snapshots["views"].to_pylist() == [5.0]
    assert found.snapshots["snapshot_time"].to_pylist() == [datetime(2026, 1, 10, 12, tzinfo=UTC)]
    assert found.report.counts["record_malformed"] == 2


HEAD = "video_id,snapshot_time,title,views\n"
ROW = "abcdefghij0,2026-01-10 12:00:00,{},5\n"


@pytest.mark.parametrize(
    ("titles", "line"),
    [
        (["one", '"never closed', "three", "four"], 3),
        (["one", '"two\nlines"', '"never closed'], 5),
        (['"never closed', '"closed"', "three"], 2),  # the next quote ends the field, and text follows it
        (["one", '"swallows', 'a row", and more', "four"], 3),  # a comma follows, but that is another number of fields
        (['"said ""so"""', '"said ""so""'], 3),
    ],
)
def test_a_quote_that_is_not_closed_refuses_the_file(tmp_path: Path, titles: list[str], line: int) -> None:
    path = tmp_path / "table.csv"
    path.write_text(HEAD + "".join(map(ROW.format, titles)))
    with pytest.raises(TrendFlowError, match=rf"table\.csv has a quote in line {line} that is not closed") as caught:
        import_snapshots([path])
    assert caught.value.error_code == "input_constraint_violated"


def test_an_unclosed_quote_in_the_header_or_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for text, line in (
        (HEAD.replace("views", '"views') + ROW.format("one"), 1),
        (HEAD + ROW.format('"one') + ROW.format("x" * 99) * 9999, 2),
    ):
        path.write_text(text)
        with pytest.raises(TrendFlowError, match=f"in line {line} ") as caught:
            import_snapshots([path])
        assert caught.value.error_code == "input_constraint_violated"


def test_quotes_that_are_in_order_are_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    titles = ['"two\nlines, one field"', '"said ""so"""', 'a 5" disc', '""']
    rows = "".join(ROW.format(title).replace("ij0", f"ij{at}") for at, title in enumerate(titles))
    path.write_text(HEAD + rows + "\n")
    found = import_snapshots([path])
    assert found.report.counts["record_malformed"] == 0
    assert found.videos["title"].to_pylist() == ["two\nlines, one field", 'said "so"', 'a 5" disc', None]


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(TrendFlowError, match=r"'x\.csv' is a folder") as caught:
        import_snapshots([tmp_path / "x.csv"])
    assert caught.value.error_code == "config_invalid"


@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_columns_that_are_ignored_are_named(tmp_path: Path, kind: str) -> None:
    path = stored(tmp_path, frame().assign(second=1, first="x").drop(columns="other"), kind)
    [source] = import_snapshots([path]).report.sources
    assert source["ignored_columns"] == ["first", "second"]
    [source] = import_snapshots([stored(tmp_path, frame().drop(columns="other"), kind)]).report.sources
    assert "ignored_columns" not in source


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffvideo_id,snapshot_time\nabcdefghij0,2026-01-10T12:00:00Z\n".encode())
    assert import_snapshots([path]).snapshots.num_rows == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", None, "Asia/Tokyo"])
def test_timestamps_of_any_unit_and_zone(tmp_path: Path, unit: str, zone: str | None) -> None:
    times = pa.array([1_768_046_430], pa.timestamp("s", tz=zone)).cast(pa.timestamp(unit, tz=zone))
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"video_id": ["abcdefghij0"], "snapshot_time": times}), path)
    expected = datetime.fromtimestamp(1_768_046_430, UTC)
    assert import_snapshots([path]).snapshots["snapshot_time"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("name", "data"), [("a.parquet", b"PAR1 nothing"), ("a.csv", b"video_id,snapshot_time\n\xff\xfe,1\n")]
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TrendFlowError) as caught:
        import_snapshots([tmp_path / name])
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_source_that_is_no_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table({"video_id": ["abcdefghij0"], "snapshot_time": [datetime(2026, 1, 10, tzinfo=UTC)], "source": [7]}),
        path,
    )
    assert import_snapshots([path]).snapshots["source"].to_pylist() == ["table.parquet"]


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, frame(7), ".parquet")
    whole = import_snapshots([path])
    monkeypatch.setattr("trendflow.dataset.snapshots.long_table._BATCH", 2)
    parts = import_snapshots([path])
    assert table_digest(parts.snapshots) == table_digest(whole.snapshots)


def test_the_real_table(data_dir: Path) -> None:
    path = data_dir / "snapshots" / "snapshots.parquet"
    found = import_snapshots([path])
    assert (found.snapshots.num_rows, found.videos.num_rows) == (58_000, 1_357)
    known = pd.read_parquet(path).sort_values(["video_id", "snapshot_time"], ignore_index=True)
    ours = found.snapshots.to_pandas()
    for column in ("views", "likes", "comments", "channel_subscribers", "channel_views", "channel_videos"):
        pd.testing.assert_series_equal(ours[column], known[column].astype("float64"), check_names=False)
    assert (ours["snapshot_time"] == known["snapshot_time"]).all()
    first = known.drop_duplicates("video_id")
    videos = found.videos.to_pandas()
    for column in ("channel_id", "publish_time", "video_id"):
        assert (videos[column].to_numpy() == first[column].to_numpy()).all()
    assert counted(found) == {
        "counter_missing": 297,
        "publish_time_changed": 5,
        "text_decoded": found.report.counts["text_decoded"],
    }
    assert not videos["title"].str.contains("&(?:amp|quot|#39|lt|gt);").any()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"table.{form}"
    if form == "csv":
        path.write_text("video_id,snapshot_time,views,views\n-abcdefghi_,2026-01-10T12:00:00Z,1,2\n")
    else:
        columns = [pa.array(["-abcdefghi_"]), pa.array(["2026-01-10T12:00:00Z"]), pa.array([1]), pa.array([2])]
        pq.write_table(pa.Table.from_arrays(columns, names=["video_id", "snapshot_time", "views", "views"]), path)
    with pytest.raises(TrendFlowError, match="has the column views twice") as caught:
        import_snapshots([path])
    assert caught.value.error_code == "artifact_validation_failed"
