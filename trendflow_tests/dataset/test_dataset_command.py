"""`trendflow dataset`: from SYNTHETIC runs and snapshots to a dataset, and one sentence when it cannot be built."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trendflow.cli import main
from trendflow.dataset.simulation.videos import SNAPSHOT_FILE
from trendflow.dataset.table.enrichment import CHANNELS_V1
from trendflow.dataset.table.reader import Dataset
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import tombstone_key
from trendflow_tests.dataset.collector.youtube_server import KEY, video, youtube_server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def snapshots(home: Path) -> Path:
    assert command(home, "simulate", "12", "-o", str(home / "snapshots")) == 0
    return home / "snapshots" / SNAPSHOT_FILE


def command(home: Path, *words: str) -> int:
    """The exit code of `trendflow dataset WORDS` with the state folder `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trendflow", "dataset", *words])
        patch.setenv("TRENDFLOW_PROFILE", "starter")
        patch.setenv("TRENDFLOW_HOME", str(home))
        with pytest.raises(SystemExit) as exit_code:
            main()
    return int(exit_code.value.code or 0)


def test_a_dataset_is_built_and_shown(home: Path, snapshots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(home, "build", str(snapshots), "--synthetic") == 0
    (folder,) = (home / "datasets").iterdir()
    assert folder.name.startswith("SYNTHETIC_")
    told = capsys.readouterr().out
    assert f"dataset {folder}" in told
    assert "12 videos" in told
    assert "SYNTHETIC" in told
    found = Dataset.read(folder)
    assert (found.table.num_rows, found.metadata["excluded"]) == (12, {})
    assert any(name.startswith("shot_quality__") for name in found.feature_names)
    assert command(home, "show", str(folder)) == 0
    assert "12 videos" in capsys.readouterr().out


def test_metadata_alone_need_no_run(home: Path, snapshots: Path, tmp_path: Path) -> None:
    parent = tmp_path / "out"
    words = ("build", str(snapshots), "--synthetic", "--metadata-only", "-o", str(parent))
    assert command(tmp_path / "empty", *words) == 0
    (folder,) = parent.iterdir()
    found = Dataset.read(folder)
    assert found.table["run_id"].null_count == 12
    assert {found.family_of(name) for name in found.feature_names} == {"metadata"}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 3, "input_constraint_violated: The snapshots or runs are SYNTHETIC"),
        (["--synthetic", "--config-hash", "0" * 64], 3, "dependency_missing: No run can be used: 12 × other_config"),
        (["--synthetic", "--profile", "nonsense"], 2, "config_invalid:"),
        (
            ["--metadata-only", "--profile", "starter"],
            2,
            "config_invalid: A dataset of metadata alone takes no profile",
        ),
        (["--synthetic", "--spec", "no/such/file.yaml"], 2, "config_invalid: The feature spec 'file.yaml'"),
        (["--synthetic", "--channels", "no/such/file"], 2, "config_invalid: The table of channels 'file'"),
        (["--readers", "0"], 2, "config_invalid:"),
    ],
)
def test_what_cannot_be_built_leaves_one_sentence_and_no_file(
    home: Path,
    snapshots: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    sentence: str,
) -> None:
    parent = tmp_path / "out"
    assert command(home, "build", str(snapshots), "-o", str(parent), *words) == code
    told = capsys.readouterr().err
    assert told.startswith(sentence)
    assert told.count("\n") == 1
    assert not parent.exists()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("video_id,snapshot_time,publish_time\na,2026-03-02T00:00Z,2026-03-01T00:00Z\n", "1 × channel_id_missing"),
        ("video_id,snapshot_time\n", "the snapshots name none"),
    ],
)
def test_snapshots_of_which_no_video_can_have_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, sentence: str
) -> None:
    (tmp_path / "snapshots.csv").write_text(table)
    assert command(tmp_path / "home", "build", str(tmp_path / "snapshots.csv"), "--metadata-only") == 3
    assert capsys.readouterr().err == f"dependency_missing: No video can have a row: {sentence}.\n"
    assert not (tmp_path / "home" / "datasets").exists()


GONE, KEPT = "SYNTHETIC_gone", "SYNTHETIC_kept"
SECRET = "a key of a test"


@pytest.fixture
def with_deleted_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose tombstones name GONE, and snapshots of it and of KEPT; GONE has a counter that falls."""
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", SECRET)
    store = ObjectStore.open(f"file://{tmp_path / 'home' / 'store'}")
    store.put(tombstone_key("upload", GONE, SECRET.encode()), b"{}")
    rows = [
        f"{video},2026-03-{day:02d}T00:00Z,2026-03-01T00:00Z,{views},UC_{video}"
        for video, views_of in ((GONE, (100, 1)), (KEPT, (100, 200)))
        for day, views in zip((2, 9), views_of, strict=True)
    ]
    # A video of no channel has no row and is named among the refused.
    rows.append(f"{GONE}2,2026-03-02T00:00Z,2026-03-01T00:00Z,1,")
    store.put(tombstone_key("upload", f"{GONE}2", SECRET.encode()), b"{}")
    file = tmp_path / "snapshots.csv"
    file.write_text("\n".join(["video_id,snapshot_time,publish_time,views,channel_id", *rows, ""]))
    return file


def test_a_deleted_video_is_named_in_no_file_of_a_dataset(with_deleted_video: Path, tmp_path: Path) -> None:
    row = dict.fromkeys(CHANNELS_V1.names, float("nan")) | {"platform_id": "upload", "channel_id": "UC_x"}
    looked_up = [{**row, "video_id": video, "observed_at": None} for video in (GONE, f"{GONE}2", KEPT)]
    pq.write_table(pa.Table.from_pylist(looked_up, schema=CHANNELS_V1), tmp_path / "channels.parquet")
    words = ("--metadata-only", "--synthetic", "--channels", str(tmp_path / "channels.parquet"))
    assert command(tmp_path / "home", "build", str(with_deleted_video), *words) == 0
    (folder,) = (tmp_path / "home" / "datasets").iterdir()
    assert Dataset.read(folder).table["video_id"].to_pylist() == [KEPT]
    for path in folder.iterdir():
        parquet = path.suffix == ".parquet"
        text = str(pq.read_table(path).to_pylist()) if parquet else path.read_text(encoding="utf-8")
        assert GONE not in text, path.name


def test_the_channel_of_a_deleted_video_is_not_asked_for(
    with_deleted_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = "abcdefghi_1", "abcdefghi_2"
    ObjectStore.open(f"file://{tmp_path / 'home' / 'store'}").put(
        tombstone_key("youtube", gone, SECRET.encode()), b"{}"
    )
    lines = [f"{video},2026-03-02T00:00Z" for video in (gone, kept)]
    with_deleted_video.write_text("\n".join(["video_id,snapshot_time", *lines, ""]))
    with youtube_server() as server:
        monkeypatch.setenv("TRENDFLOW_YOUTUBE_API_KEY", KEY)
        monkeypatch.setenv("TRENDFLOW_YOUTUBE_ENDPOINT", server.url)
        server.videos = {name: video(name) for name in (gone, kept)}
        output = tmp_path / "channels.parquet"
        assert command(tmp_path / "home", "channels", str(with_deleted_video), "-o", str(output)) == 0
    assert pq.read_table(output)["video_id"].to_pylist() == [kept]


def test_a_missing_input_and_a_blocked_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "home", "build", str(tmp_path / "none")) == 3
    assert capsys.readouterr().err == "dependency_missing: There is no file or folder 'none'.\n"
    (tmp_path / "file").write_text("")
    assert command(tmp_path / "home", "simulate", "3", "-o", str(tmp_path / "file")) == 2
    assert capsys.readouterr().err.startswith("config_invalid: The output 'file' cannot be written")
    assert not (tmp_path / "home" / "store" / "result_store").exists()


def test_a_folder_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "show", str(tmp_path)) == 3
    assert "holds no dataset" in capsys.readouterr().err
