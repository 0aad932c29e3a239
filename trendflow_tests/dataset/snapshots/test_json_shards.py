"""Forms A, B and C: what is read of a shard, what is passed by, and how malformed parts are counted."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.json_shards import stream_records
from trendflow.dataset.snapshots.tables import COUNTERS
from trendflow_tests.dataset.snapshots.shards import counted, imported, metadata, record, snapshot

VIDEO = "-abcdefghi_"
CANARY = "canary-7f3a"
NO_ROW = {"video_without_snapshot": 1}
REPO = Path(__file__).resolve().parents[3]


def test_form_a_becomes_one_row_per_snapshot_and_one_per_video(tmp_path: Path) -> None:
    found = imported(tmp_path, {VIDEO: record(snapshot(), snapshot("2026_01_17_12_30", "2500", "90"))})
    first, second = found.snapshots.to_pylist()
    assert first["snapshot_time"] == datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
    assert second["snapshot_time"] == datetime(2026, 1, 17, 12, 30, tzinfo=UTC)
    assert [first[name] for name in COUNTERS] == [1000.0, 50.0, 7.0, 900.0, 123456.0, 42.0]
    assert (second["views"], second["likes"], second["source"], second["source_row"]) == (2500.0, 90.0, "shard.json", 1)
    (video,) = found.videos.to_pylist()
    assert video == {
        "platform_id": "youtube",
        "video_id": VIDEO,
        "publish_time": datetime(2026, 1, 9, 18, 30, tzinfo=UTC),
        "channel_id": "UC_synthetic_channel_0001",
        "channel_title": "A SYNTHETIC channel",
        "category_id": "28",
        "title": "A title",
        "description": "First line\nsecond line",
        "tags": ["one", "two"],
        "duration_seconds": 2 * 3600 + 6 * 60 + 5,
        "made_for_kids": False,
        "has_chapters": True,
        "chapter_count": 2.0,
        "n_thumbnails": 2.0,
        "n_subtitle_langs": 3.0,
        "language": "en",
        "definition": None,
        "caption": None,
        "captured_at": datetime(2026, 1, 10, 12, 0, tzinfo=UTC),
        "source": "shard.json",
    }
    assert counted(found) == {}
    assert found.report.sources == [{"name": "shard.json", "records": {"A": 1}, "snapshots": 2}]


def test_form_b_says_the_same_as_form_a(tmp_path: Path) -> None:
    shots = [snapshot(), snapshot("2026_01_17_12_30", "2500")]
    listed = [{"snapshot_index": 5 - at, **shot} for at, shot in enumerate(shots)]
    one = imported(tmp_path / "a", {VIDEO: record(*shots)})
    other = imported(tmp_path / "b", {VIDEO: {"metadata": metadata(), "snapshots": listed}})
    assert one.snapshots.equals(other.snapshots)
    assert one.videos.to_pylist() == other.videos.to_pylist()
    assert other.report.sources[0]["records"] == {"B": 1}


def test_form_c_has_the_first_snapshot_alone(tmp_path: Path) -> None:
    found = imported(tmp_path, {VIDEO: record(snapshot())})
    assert found.report.sources[0]["records"] == {"C": 1}
    assert found.snapshots.num_rows == 1


def test_the_first_snapshot_is_the_earliest_one_whatever_its_number(tmp_path: Path) -> None:
    shots = (
        snapshot("2026_01_24_12_00", "300"),
        snapshot("2026_01_10_12_00", "100"),
        snapshot("2026_01_17_12_00", "200"),
    )
    found = imported(tmp_path, {VIDEO: record(*shots)})
    assert found.snapshots["views"].to_pylist() == [100.0, 200.0, 300.0]
    assert found.videos["captured_at"].to_pylist() == [datetime(2026, 1, 10, 12, 0, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("value", "expected", "rule"),
    [
        ("0", 0.0, None),
        (" 12 ", 12.0, None),
        (12, 12.0, None),
        ("1e3", 1000.0, None),
        ("-5", math.nan, "counter_bad"),
        (-5, math.nan, "counter_bad"),
        ("1,234", math.nan, "counter_bad"),
        ("many", math.nan, "counter_bad"),
        ("nan", math.nan, "counter_bad"),
        ("inf", math.nan, "counter_bad"),
        ("1e999", math.nan, "counter_bad"),
        ("٣", math.nan, "counter_bad"),
        (True, math.nan, "counter_bad"),
        ([], math.nan, "counter_bad"),
        ({"value": "3"}, math.nan, "counter_bad"),
        (10**400, math.nan, "counter_bad"),
        ("", math.nan, "counter_missing"),
        (None, math.nan, "counter_missing"),
    ],
)
def test_counters(tmp_path: Path, value: Any, expected: float, rule: str | None) -> None:
    found = imported(tmp_path, {VIDEO: record(snapshot(likes=value))})
    (likes,) = found.snapshots["likes"].to_pylist()
    assert likes == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert counted(found) == ({rule: 1} if rule else {})
    assert found.report.as_dict()["details"] == ({rule: {"likes": 1}} if rule else {})


@pytest.mark.parametrize(
    ("shard", "rules", "rows"),
    [
        ({VIDEO: record(snapshot(), None, {})}, {"snapshot_missing": 2}, 1),
        ({VIDEO: record(snapshot(), "text", 3)}, {"snapshot_malformed": 2}, 1),
        ({VIDEO: record(snapshot(), snapshot("2026_13_01_00_00"))}, {"snapshot_time_bad": 1}, 1),
        ({VIDEO: record(snapshot(), snapshot("2026-01-17T12:00:00Z"))}, {"snapshot_time_bad": 1}, 1),
        ({VIDEO: record()}, NO_ROW, 0),
        ({VIDEO: "nothing", "bad id!": record(snapshot())}, {"record_malformed": 2}, 0),
        ({VIDEO: [record(snapshot())]}, {"record_malformed": 1}, 0),
        ({VIDEO: {"metadata": metadata(), "snapshots": "none"}}, {"snapshot_malformed": 1, **NO_ROW}, 0),
        ({VIDEO: {"metadata": "none", "snapshot_0": snapshot()}}, {"publish_time_missing": 1}, 1),
        ({VIDEO: record(snapshot(), publishedAt=None)}, {"publish_time_missing": 1}, 1),
        ({VIDEO: record(snapshot(), publishedAt="2026-01-09")}, {"publish_time_missing": 1}, 1),
        ({VIDEO: record(snapshot(), publishedAt="yesterday")}, {"publish_time_missing": 1}, 1),
        ({VIDEO: record(snapshot(), publishedAt="2026-01-10T12:00:01Z")}, {"before_publication": 1, **NO_ROW}, 0),
        ({VIDEO: record(snapshot(), publishedAt="2026-01-10T12:00:00Z")}, {}, 1),
        ({VIDEO: record(snapshot(), channelId=VIDEO)}, {"metadata_bad": 1}, 1),
        ({VIDEO: record(snapshot(), channelId="A SYNTHETIC channel")}, {"metadata_bad": 1}, 1),
        ({VIDEO: record(snapshot(), title=5, tags="[1", categoryId="2.5")}, {"metadata_bad": 3}, 1),
        ({VIDEO: record(snapshot(), thumbnails=None, thumbnails_ytdlp=[1, 2])}, {"thumbnails_from_ytdlp": 1}, 1),
    ],
)  # fmt: skip
def test_every_malformed_part_is_counted(
    tmp_path: Path, shard: dict[str, Any], rules: dict[str, int], rows: int
) -> None:
    found = imported(tmp_path, shard)
    assert counted(found) == rules
    assert found.snapshots.num_rows == rows


def test_a_refused_video_is_named_in_the_report_and_has_no_invented_date(tmp_path: Path) -> None:
    found = imported(tmp_path, {VIDEO: record(snapshot(), publishedAt="soon")})
    assert found.videos["publish_time"].to_pylist() == [None]
    assert found.report.as_dict()["listed"] == {"publish_time_missing": [{"video_id": VIDEO}]}


def test_texts_are_decoded_once_and_composed(tmp_path: Path) -> None:
    changes = {"title": "Fish &amp; chips &quot;now&quot;", "description": "Cafe\u0301 &copy=1", "tags": ["R&amp;D"]}
    found = imported(tmp_path, {VIDEO: record(snapshot(), **changes)})
    (video,) = found.videos.to_pylist()
    assert video["title"] == 'Fish & chips "now"'
    assert video["description"] == "Caf\u00e9 &copy=1"
    assert video["tags"] == ["R&D"]
    assert counted(found) == {"text_decoded": 3}


def test_half_a_surrogate_pair_cannot_break_the_tables(tmp_path: Path) -> None:
    found = imported(tmp_path, {VIDEO: record(snapshot(), title="ab\ud83dcd")})
    assert found.videos["title"].to_pylist()[0].encode("utf-8")


def test_comments_and_unknown_keys_leave_nothing_behind(tmp_path: Path) -> None:
    texts = [{"text": CANARY, "likes": n} for n in range(3)]
    shot = {**snapshot(comments=texts), "_secret": {"deep": [CANARY]}}
    shard = {VIDEO: {**record(shot, _note=CANARY, comments=texts), "time_interval": CANARY, "_x": [CANARY]}}
    found = imported(tmp_path / "in", shard)
    found.write(tmp_path / "out")
    stored = json.dumps([found.snapshots.to_pylist(), found.videos.to_pylist(), found.report.as_dict()], default=str)
    assert CANARY in (tmp_path / "in" / "shard.json").read_text()
    assert CANARY not in stored
    assert all(CANARY.encode() not in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_unknown_keys_are_not_even_built() -> None:
    shard = {VIDEO: {**record(snapshot(comments=[CANARY])), "other": [CANARY]}}
    ((_, found),) = stream_records(io.BytesIO(json.dumps(shard).encode()))
    assert CANARY not in str(found)
    assert found["snapshot_0"]["viewCount"] == "1000"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b'{"a": 1',
        b'{"-abcdefghi_": {"metadata": {"title": "' + CANARY.encode(),
        b'{"a": \xff}',
        b"{}{}",
    ],
)
def test_a_broken_shard_is_refused_without_quoting_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "shard.json"
    path.write_bytes(data)
    with pytest.raises(TrendFlowError) as caught:
        import_snapshots([path])
    assert caught.value.error_code == "artifact_validation_failed"
    assert "shard.json" in caught.value.message
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps({VIDEO: record(snapshot())}).encode())
    found = import_snapshots([marked])
    assert found.snapshots["video_id"].to_pylist() == [VIDEO]
    assert found.snapshots["views"].to_pylist() == [1000.0]


def test_hostile_nesting_is_only_a_malformed_part(tmp_path: Path) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    path = tmp_path / "shard.json"
    inner = f'"snapshots": {deep}, "snapshot_0": {deep}, "x": {deep}, "metadata": {{"tags": {deep}}}'
    path.write_text(f'{{"{VIDEO}": {{{inner}}}}}')
    found = import_snapshots([path])
    assert found.snapshots.num_rows == 0
    assert counted(found) == {"snapshot_malformed": 2, "metadata_bad": 1, **NO_ROW}


def test_an_empty_shard_gives_empty_tables(tmp_path: Path) -> None:
    found = imported(tmp_path, {})
    assert (found.snapshots.num_rows, found.videos.num_rows) == (0, 0)
    found.write(tmp_path / "out")


def test_unknown_and_absent_files_are_refused(tmp_path: Path) -> None:
    for name, code in (("a.txt", "config_invalid"), ("a.json", "dependency_missing")):
        with pytest.raises(TrendFlowError) as caught:
            import_snapshots([tmp_path / name])
        assert caught.value.error_code == code


def test_memory_does_not_grow_with_the_size_of_a_shard() -> None:
    command = [sys.executable, "-m", "trendflow_tests.dataset.snapshots.shard_memory"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    grown = json.loads(done.stdout)
    assert grown["comments"] < 10, "40 MB of comments instead of 2 MB cost more than a few MB"
    assert grown["videos"] < 25, "what is kept of a video is not small"
