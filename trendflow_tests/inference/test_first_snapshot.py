"""The first snapshot of one video, typed or from a file."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.inference.first_snapshot import from_file, from_values

VIDEO = "AAAAAAAAAAA"
TEXT = "views=1200,likes=40,published=2026-03-01T12:00Z,at=2026-03-01T15:00+01:00,language=en,made_for_kids=false"


def test_values_become_the_rows_an_import_would_give() -> None:
    found = from_values(TEXT, "youtube", VIDEO)
    assert found.first["t0"] == datetime(2026, 3, 1, 14, tzinfo=UTC)
    assert (found.first["views"], found.first["likes"]) == (1200.0, 40.0)
    assert math.isnan(found.first["comments"])
    assert found.video["publish_time"] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert (found.video["language"], found.video["made_for_kids"], found.video["title"]) == ("en", False, None)
    assert found.video["captured_at"] == found.first["t0"]


@pytest.mark.parametrize(
    "text",
    [
        "views=1200",
        "views=many,published=2026-03-01,at=2026-03-02",
        "views=1,published=yesterday,at=2026-03-02",
        "views=1,published=0001-01-01T00:00+14:00,at=2026-03-02",
        "views=1,views=2,published=2026-03-01,at=2026-03-02",
        "shares=1,views=1,published=2026-03-01,at=2026-03-02",
        "views=1,published=2026-03-01,at=2026-03-02,made_for_kids=perhaps",
        "",
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        from_values(text, "youtube", VIDEO)
    assert caught.value.error_code == "config_invalid"
    assert "many" not in caught.value.message


@pytest.mark.parametrize("value", ["-1", "inf", "nan", "1e23"])
@pytest.mark.parametrize("name", ["views", "likes", "duration_seconds"])
def test_a_number_that_is_no_count_is_refused_by_name(name: str, value: str) -> None:
    given = {"views": "1", "published": "2026-03-01", "at": "2026-03-02", name: value}
    with pytest.raises(TrendFlowError) as caught:
        from_values(",".join(f"{key}={text}" for key, text in given.items()), "youtube", VIDEO)
    assert caught.value.error_code == "input_constraint_violated"
    assert f"'{name}'" in caught.value.message
    assert value not in caught.value.message.split()


def test_a_file_gives_the_earliest_snapshot_of_the_video_asked_for(tmp_path: Path) -> None:
    def shot(time: str, views: int) -> dict[str, str]:
        return {"time_get": time, "viewCount": str(views), "likeCount": "5"}

    shard = {
        VIDEO: {
            "metadata": {"publishedAt": "2026-03-01T12:00:00Z", "title": "SYNTHETIC"},
            "snapshot_1": shot("2026_03_09_12_00", 900),
            "snapshot_0": shot("2026_03_02_12_00", 100),
        },
        "BBBBBBBBBBB": {"metadata": {"publishedAt": "2026-03-01T12:00:00Z"}, "snapshot_0": shot("2026_03_01_13_00", 7)},
    }
    path = tmp_path / "shard.json"
    path.write_text(json.dumps(shard))
    found = from_file(path, "youtube", VIDEO)
    assert found is not None
    assert (found.first["views"], found.first["t0"]) == (100.0, datetime(2026, 3, 2, 12, tzinfo=UTC))
    assert found.video["title"] == "SYNTHETIC"
    assert from_file(path, "youtube", "CCCCCCCCCCC") is None

    import_snapshots([path]).write(tmp_path / "tables")
    # As text, because NaN differs from itself.
    assert repr(from_file(tmp_path / "tables", "youtube", VIDEO)) == repr(found)
