"""`trendflow snapshots` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import tombstone_key
from trendflow_tests.dataset.collector.youtube_server import KEY, channel, video, youtube_server
from trendflow_tests.dataset.snapshots.shards import record, snapshot, write
from trendflow_tests.orchestration.command_line import Cli

VIDEO = "-abcdefghi_"


def test_collect_and_import(tmp_path: Path) -> None:
    with youtube_server() as server:
        server.videos = {VIDEO: video(VIDEO, 4321, likeCount=None)}
        server.channels = {"UC_synthetic_1": channel("UC_synthetic_1")}
        cli = Cli(tmp_path / "home", tmp_path / "models", TRENDFLOW_YOUTUBE_API_KEY=KEY)
        cli.environment |= {"TRENDFLOW_YOUTUBE_ENDPOINT": server.url}
        assert "1 registered" in cli("snapshots", "track", VIDEO).stdout
        assert "1 due" in cli("snapshots", "due").stdout
        collected = cli("snapshots", "collect")
        assert (collected.returncode, collected.stderr) == (0, "")
        assert "1 taken" in collected.stdout
        assert "1 without likes" in collected.stdout
        again = cli("snapshots", "collect")
        assert "0 taken" in again.stdout
    shard = write(tmp_path, {"zyxwvutsrq1": record(snapshot(), snapshot("nonsense"))})
    done = cli("snapshots", "import", str(shard), "--collected", "--output", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "snapshot_time_bad" in done.stdout
    found = SnapshotSet.read(tmp_path / "out")
    assert found.snapshots["views"].to_pylist() == [4321.0, 1000.0]
    assert KEY not in done.stdout + collected.stdout


def test_a_deleted_video_stays_out_of_every_import(tmp_path: Path) -> None:
    secret, gone, kept = "a key of a test", VIDEO, "zyxwvutsrq1"
    cli = Cli(tmp_path / "home", tmp_path / "models", TRENDFLOW_TOMBSTONE_KEY=secret)
    store = ObjectStore.open(f"file://{tmp_path / 'home' / 'store'}")
    store.put(tombstone_key("youtube", gone, secret.encode()), b"{}")
    # Its second snapshot has no time: what an import lists by the video's id.
    shard = write(tmp_path, {gone: record(snapshot(), snapshot("nonsense")), kept: record(snapshot())})
    done = cli("snapshots", "import", str(shard), "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 snapshot of 1 video" in done.stdout
    assert "video_deleted" in done.stdout
    found = SnapshotSet.read(tmp_path / "out")
    assert found.videos["video_id"].to_pylist() == found.snapshots["video_id"].to_pylist() == [kept]
    assert gone not in json.dumps(found.report.as_dict())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    alone = write(tmp_path / "alone", {gone: record(snapshot())})
    nothing = cli("snapshots", "import", str(alone), "-o", str(tmp_path / "out"))
    assert nothing.returncode == 3
    assert nothing.stderr.startswith("input_constraint_violated: No snapshot was left to import (1 × video_deleted)")
    del cli.environment["TRENDFLOW_TOMBSTONE_KEY"]
    keyless = cli("snapshots", "import", str(shard), "-o", str(tmp_path / "out"))
    assert keyless.returncode == 2
    assert keyless.stderr.startswith("config_invalid: Videos were deleted from this store")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_ignored_columns_are_printed(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home", tmp_path / "models")
    path = tmp_path / "table.csv"
    path.write_text(f"video_id,snapshot_time,[red]mood,view_count\n{VIDEO},2026-01-10T12:00:00Z,good,1\n")
    done = cli("snapshots", "import", str(path), "--output", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "table.csv: ignored '[red]mood', 'view_count'" in done.stdout


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home", tmp_path / "models")
    cli.environment.pop("TRENDFLOW_YOUTUBE_API_KEY", None)
    broken = tmp_path / "shard.json"
    broken.write_text("[1, 2")
    untimely = write(tmp_path / "untimely", {"zyxwvutsrq1": record(snapshot("nonsense"))})
    (tmp_path / "file").write_text("")
    cases = [
        (("collect",), 2, "config_invalid: A key of the YouTube Data API"),
        (("import", "-o", str(tmp_path / "out")), 2, "config_invalid: Name at least one file"),
        (("import", str(broken), "-o", str(tmp_path / "out")), 3, "artifact_validation_failed: shard.json is not"),
        (("import", "none.csv", "-o", str(tmp_path / "out")), 3, "dependency_missing: There is no file 'none.csv'"),
        (("import", str(untimely), "-o", str(tmp_path / "out")), 3, "input_constraint_violated: No snapshot was left"),
        (("import", str(untimely), "-o", str(tmp_path / "file")), 2, "config_invalid: The output 'file' cannot be"),
        (("track", "not an id"), 3, "input_constraint_violated: Video id"),
    ]
    for arguments, code, sentence in cases:
        done = cli("snapshots", *arguments)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith(sentence), done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
