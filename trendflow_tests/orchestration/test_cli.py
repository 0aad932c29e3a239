"""The command line as a person or a script meets it: exit codes, one-sentence errors, ids as data."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_video_id
from trendflow.submission.sources import parse_source
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import write_quick_graph

# The run that most tests look at is made once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("command-line")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Cli:
    folder = tmp_path_factory.mktemp("cli")
    graph = write_quick_graph(folder / "component_graph.yaml")
    return Cli(folder / "home", models_dir, TRENDFLOW_GRAPH_FILE=str(graph))


@pytest.fixture(scope="module")
def processed(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, subprocess.CompletedProcess[str]]:
    """A run whose video id begins with '-', as YouTube's may."""
    clip = write_clip(tmp_path_factory.mktemp("cli") / "clip.mp4")
    found = cli("process", str(clip), "--video-id=-starts-with-a-dash", "--run-id=-run")
    return "-starts-with-a-dash/-run", found


def test_process_prints_table_report_and_succeeds(
    cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    _, found = processed
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    for name in ("segmenter", "core_clip", "tempo_extractor"):
        assert name in found.stdout
    report = next(line for line in found.stdout.splitlines() if line.startswith("report ")).removeprefix("report ")
    assert "<html" in Path(report).read_text(encoding="utf-8")


def test_run_folder_holds_npz_and_manifest_only(
    cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    folder = cli.home / "store" / "result_store" / "upload" / processed[0]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in files} == {".npz", ".json"}
    assert [path.name for path in folder.rglob("*.json")] == ["manifest.json"]
    assert not list((cli.home / "scratch").rglob("*.npy")), "scratch must be empty after a run"


@pytest.mark.parametrize("command", [["show"], ["validate"], ["report"]])
def test_run_keys_that_begin_with_a_dash_are_data(
    cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]], command: list[str]
) -> None:
    found = cli(*command, processed[0])
    assert found.returncode == 0, found.stderr


def test_explain_names_every_part_of_the_key(cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]]) -> None:
    found = cli("explain", processed[0], "core_clip")
    assert found.returncode == 0, found.stderr
    for part in ("config_hash", "producer_version", "schema_version", "model_signature", "source_media", "upstream"):
        assert part in found.stdout


def test_show_lists_runs_and_arrays(cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]]) -> None:
    assert processed[0] in cli("show").stdout
    assert "frame_embeddings" in cli("show", processed[0], "core_clip").stdout


def test_a_second_run_id_is_refused(cli: Cli, processed: tuple[str, subprocess.CompletedProcess[str]]) -> None:
    clip = next(Path(processed[1].args[4]).parent.glob("clip.mp4"))
    before = json.loads((cli.home / "store/result_store/upload" / processed[0] / "manifest.json").read_text())
    found = cli("process", str(clip), "--video-id=-starts-with-a-dash", "--run-id=-run")
    assert (found.returncode, found.stderr.count("input_constraint_violated")) == (3, 1)
    after = json.loads((cli.home / "store/result_store/upload" / processed[0] / "manifest.json").read_text())
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["process", "there-is-no-such-file.mp4"], 4, "source_unavailable"),
        (["process", "https://example.com/video.mp4"], 3, "input_constraint_violated"),
        (["process", __file__, "--video-id", "two words"], 3, "input_constraint_violated"),
        (["process", __file__, "--profile", "nobody"], 2, "config_invalid"),
        (["submit", __file__, "--profile", "v1"], 2, "config_invalid"),
        (["process"], 2, "config_invalid"),
        (["brew"], 2, "config_invalid"),
        (["show", "not-a-key"], 3, "input_constraint_violated"),
        (["show", "no-such-video/no-such-run"], 3, "dependency_missing"),
        (["models", "verify", "nobody"], 4, "model_not_found"),
        (["schemas", "docs", "nobody_v1"], 3, "artifact_validation_failed"),
    ],
)
def test_mistakes_get_one_sentence_and_their_exit_code(cli: Cli, arguments: list[str], code: int, word: str) -> None:
    found = cli(*arguments)
    assert found.returncode == code, found.stderr
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith(f"{word}: ")


def test_a_file_that_is_no_video_exits_10_and_leaves_only_the_error(cli: Cli) -> None:
    found = cli("process", __file__, "--video-id=no-video-at-all", "--run-id=r1")
    assert found.returncode == 10, found.stderr
    assert "video_unreadable" in found.stderr
    folder = cli.home / "store" / "result_store" / "upload" / "no-video-at-all" / "r1"
    files = {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}
    assert files == {"manifest.json", "segmenter.npz"}
    assert cli("validate", "no-video-at-all/r1").returncode == 0


def test_a_video_of_a_wrong_length_never_becomes_a_run(cli: Cli, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", seconds=4)
    found = cli("process", str(clip), "--video-id=too-short-for-us")
    assert found.returncode == 3, found.stderr
    assert found.stderr.strip() == "input_constraint_violated: The video lasts 4.00 s; allowed are 5 to 1200 s."
    assert not (cli.home / "store" / "result_store" / "upload" / "too-short-for-us").exists()
    assert not list(cli.home.rglob("*too-short-for-us*"))


def test_ctrl_c_cancels_and_resume_continues(cli: Cli, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", seed=5)
    process = subprocess.Popen(
        [sys.executable, "-m", "trendflow", "process", str(clip), "--video-id=interrupted-clip", "--run-id=r1"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    manifest = cli.home / "store/result_store/upload/interrupted-clip/r1/manifest.json"
    pause = threading.Event()
    while not manifest.exists() or not json.loads(manifest.read_text())["components"]:
        assert process.poll() is None, process.communicate()
        pause.wait(0.02)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate()
    assert process.returncode == 130, complaint
    assert complaint.splitlines()[-1].startswith("cancelled: ")
    assert json.loads(manifest.read_text())["run"]["finished_at"]
    done = {row["name"] for row in json.loads(manifest.read_text())["components"]}
    assert "segmenter" in done

    resumed = cli("resume", "interrupted-clip/r1")
    assert resumed.returncode == 0, resumed.stderr
    rows = json.loads(manifest.read_text())["components"]
    assert {row["name"] for row in rows} > done
    assert cli("validate", "interrupted-clip/r1").returncode == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://www.youtube.com/watch?feature=share&v=dQw4w9WgXcQ&t=3",
        "https://youtu.be/dQw4w9WgXcQ?si=abc",
        "https://m.youtube.com/shorts/dQw4w9WgXcQ",
    ],
)
def test_youtube_urls_give_their_id(url: str) -> None:
    source = parse_source(url)
    assert (source.platform_id, source.video_id, source.source_type) == ("youtube", "dQw4w9WgXcQ", "youtube_url")


@pytest.mark.parametrize(
    "url",
    [
        "https://youtube.com.evil.example/watch?v=dQw4w9WgXcQ",
        "file:///etc/passwd",
        "https://youtu.be/short",
        "ftp://x/y",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        parse_source(url)
    assert caught.value.error_code == "input_constraint_violated"


@pytest.mark.parametrize("name", ["a.mp4", "ünï cödé.mp4", "x" * 90 + ".mp4", "eleven_chr.mp4", "-.mp4"])
def test_ids_of_files_are_valid_and_follow_the_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    found = parse_source(str(tmp_path / name))
    validate_video_id("upload", found.video_id)
    (tmp_path / name).write_bytes(b"other content")
    assert parse_source(str(tmp_path / name)).video_id != found.video_id
