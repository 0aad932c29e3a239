"""Channels that snapshots lack, looked up: who is asked for, and that a table of them is an input like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.channel_statistics import ChannelStatistics
from trendflow.dataset.table.enrichment import Enrichment, look_up_channels
from trendflow_tests.dataset.table.corpora import START, build, snapshot_rows, snapshots, table_sha256

SILENT = dict.fromkeys(("channel_subscribers", "channel_views", "channel_videos"))
NAMED, UNNAMED, SILENT_VIDEO, UNKNOWN = "aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc", "ddddddddddd"


class Platform:
    """A platform that knows two videos and answers at a given time. It notes what it was asked."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.clock = lambda: at
        self.asked: list[list[str]] = []

    def channel_ids(self, video_ids: Iterable[str]) -> Mapping[str, str]:
        self.asked.append(list(video_ids))
        return {name: "found" for name in self.asked[-1] if name == UNNAMED}

    def statistics(self, channel_ids: Iterable[str]) -> Mapping[str, ChannelStatistics]:
        self.asked.append(list(channel_ids))
        return {name: ChannelStatistics(10.0, 20.0, 30.0, self.at) for name in self.asked[-1]}


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return [
        *snapshot_rows(0, video_id=NAMED),
        *snapshot_rows(0, video_id=UNNAMED, channel_id=None),
        *snapshot_rows(0, video_id=SILENT_VIDEO, channel_id="quiet", **SILENT),
        *snapshot_rows(0, video_id=UNKNOWN, channel_id=None),
    ]


def test_only_what_is_missing_is_asked_for(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    platform = Platform(START + timedelta(minutes=59))
    found = look_up_channels(snapshots(tmp_path, rows), platform, platform.clock)
    assert platform.asked == [[UNNAMED, UNKNOWN], ["quiet"]]
    assert {row["video_id"]: row["channel_id"] for row in found.table.to_pylist()} == {
        UNNAMED: "found",
        SILENT_VIDEO: "quiet",
        UNKNOWN: None,
    }


@pytest.mark.parametrize(("minutes", "asked"), [(60, ["quiet"]), (61, None)])
def test_counters_that_no_build_could_take_are_not_asked_for(
    tmp_path: Path, rows: list[dict[str, object]], minutes: int, asked: list[str] | None
) -> None:
    platform = Platform(START + timedelta(minutes=minutes))
    look_up_channels(snapshots(tmp_path, rows), platform, platform.clock)
    assert platform.asked == [[UNNAMED, UNKNOWN], *([] if asked is None else [asked])]


@pytest.mark.parametrize(("minutes", "expected"), [(60, ("lookup", 10.0)), (61, ("missing", None))])
def test_counters_count_only_if_they_were_seen_in_time(
    tmp_path: Path, rows: list[dict[str, object]], minutes: int, expected: tuple[str, float | None]
) -> None:
    imported, platform = snapshots(tmp_path, rows), Platform(START + timedelta(minutes=minutes))
    asked_in_time = look_up_channels(imported, platform, lambda: START)
    built = build(imported, enrichment=asked_in_time)
    source, value = expected
    assert built.table["video_id"].to_pylist() == [NAMED, UNNAMED, SILENT_VIDEO]
    assert built.metadata["channel_enrichment"][f"statistics_{source}"] == 1
    assert built.metadata["channel_enrichment"]["id_lookup"] == 1
    assert built.metadata["excluded"] == {"channel_id_missing": 1}
    assert built.table["mask_channel_statistics"].to_pylist() == [True, True, value is not None]
    subscribers = built.table["channel_subscribers_0"].to_pylist()[2]
    assert subscribers == pytest.approx(float("nan") if value is None else value, nan_ok=True)


def test_a_written_table_builds_the_same_dataset(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    imported = snapshots(tmp_path, rows)
    platform = Platform(datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
    asked = look_up_channels(imported, platform, platform.clock)
    path = tmp_path / "channels.parquet"
    path.write_bytes(asked.to_parquet())
    kept = Enrichment.read(path)
    assert table_sha256(build(imported, enrichment=kept)) == table_sha256(build(imported, enrichment=asked))
    assert build(imported, enrichment=kept).version != build(imported).version


@pytest.mark.parametrize("data", [b"", b"PAR1 no table PAR1"])
def test_what_is_no_table_of_channels_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "channels.parquet"
    path.write_bytes(data)
    with pytest.raises(TrendFlowError) as caught:
        Enrichment.read(path)
    assert caught.value.error_code == "config_invalid"
