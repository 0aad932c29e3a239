"""`--document`: the text of a video goes in on the command line, and nothing but numbers comes out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.commands.sources import read_document
from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import MAX_DOCUMENT_BYTES, VideoDocument, parse_document
from trendflow.orchestration.deployment import Deployment
from trendflow_tests.orchestration.canaries import CANARIES, canaries_in
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import Submit, write_graph

# The run that most tests look at is made once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("document")

TEXT = {
    "title": f"{CANARIES[0]} is not #{CANARIES[1]}",
    "description": f"{CANARIES[2]} by @{CANARIES[3]}",
    "tags": [CANARIES[4]],
    "transcript": {
        "source": "captions",
        "observed_at": "2026-01-01T00:00:00Z",
        "segments": [{"start": 0.0, "end": 4.0, "text": f"{CANARIES[5]} " * 120}],
    },
}
KEY = "with-text/r1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("document")
    (folder / "document.json").write_text(json.dumps(TEXT), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cli(folder: Path, models_dir: Path) -> Cli:
    graph = write_graph(folder / "component_graph.yaml", "segmenter", "loudness_extractor", "text_processor")
    return Cli(folder / "home", models_dir, TRENDFLOW_GRAPH_FILE=str(graph))


@pytest.fixture(scope="module")
def small_clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def processed(cli: Cli, folder: Path, small_clip: Path) -> subprocess.CompletedProcess[str]:
    document = str(folder / "document.json")
    return cli(
        *("--verbose", "process", str(small_clip), "--document", document),
        *("--video-id", KEY.partition("/")[0], "--run-id", KEY.partition("/")[2]),
    )


def manifest_of(cli: Cli, key: str) -> dict[str, Any]:
    return dict(json.loads((cli.home / "store/result_store/upload" / key / "manifest.json").read_text()))


def row_of(cli: Cli, key: str) -> dict[str, Any]:
    """What the manifest says of text_processor."""
    (row,) = (row for row in manifest_of(cli, key)["components"] if row["name"] == "text_processor")
    return dict(row)


def test_a_run_with_a_document_measures_it(cli: Cli, processed: subprocess.CompletedProcess[str]) -> None:
    assert processed.returncode == 0, processed.stderr
    assert row_of(cli, KEY)["status"] == "ok"
    with np.load(cli.home / "store/result_store/upload" / KEY / "text_processor/text_processor.npz") as stored:
        found = dict(zip(stored["feature_names"].tolist(), stored["feature_values"].tolist(), strict=True))
        assert np.linalg.norm(stored["title_embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert found["tp_lex_title_len_words"] == 3
    assert found["tp_tags_hashtag_unique_count"] == 1
    assert found["tp_lex_description_mention_count"] == 1
    assert found["tp_lex_transcript_len_words"] == 120


def test_no_word_of_the_document_lies_anywhere_afterwards(
    cli: Cli, folder: Path, processed: subprocess.CompletedProcess[str]
) -> None:
    files = [path for path in cli.home.rglob("*") if path.is_file()]
    held = {path: path.read_bytes() for path in files}
    # What is searched holds what it should: the digest, the numbers, the report and Dagster's history.
    digest = read_document(str(folder / "document.json")).digest.encode()
    assert any(digest in data for path, data in held.items() if path.name == "manifest.json")
    assert any("tp_lex_title_len_words".encode("utf-32-le") in data for data in held.values())
    assert {".npz", ".html", ".db"} <= {path.suffix for path in files}
    assert {path.relative_to(cli.home): found for path, data in held.items() if (found := canaries_in(data))} == {}
    assert canaries_in((processed.stdout + processed.stderr).encode()) == set()


def test_the_search_finds_what_is_there(folder: Path) -> None:
    assert canaries_in((folder / "document.json").read_bytes()) == set(CANARIES)
    assert canaries_in(np.array(CANARIES).tobytes()) == set(CANARIES)


def test_a_run_without_a_document_goes_on_without_its_text(cli: Cli, small_clip: Path) -> None:
    found = cli("process", str(small_clip), "--video-id=no-text-here", "--run-id=r1")
    assert found.returncode == 0, found.stderr
    assert "text_processor: The run was submitted without a document." in " ".join(found.stdout.split())
    row = row_of(cli, "no-text-here/r1")
    assert (row["status"], row["error_code"]) == ("error", "dependency_missing")
    run = manifest_of(cli, "no-text-here/r1")["run"]
    assert (run["warnings"], run["skipped"]) == (["partial_failure"], [])
    assert cli("validate", "no-text-here/r1").returncode == 0


def test_resuming_takes_the_document_of_the_run_and_no_other(
    cli: Cli, folder: Path, small_clip: Path, models_dir: Path, submit: Submit
) -> None:
    settings = Settings(home=cli.home, models=models_dir, graph_file=folder / "component_graph.yaml")
    document = read_document(str(folder / "document.json"))
    run = submit(Deployment(settings), small_clip, video_id="resumed-text", document=document)
    key = run.identity.partition_key

    other = cli("resume", key, "--document", "/dev/stdin", stdin='{"title": "zquixo"}')
    assert other.returncode == 3
    (line,) = other.stderr.splitlines()
    assert line.startswith("input_constraint_violated: The document is not the one ")
    assert run.manifest()["components"] == [], "a wrong document is refused before anything is computed"

    without = cli("resume", key)
    assert without.returncode == 0, without.stderr
    assert row_of(cli, key)["error_code"] == "dependency_missing"

    again = cli("resume", key, "--document", str(folder / "document.json"))
    assert again.returncode == 0, again.stderr
    assert row_of(cli, key)["status"] == "ok"


@pytest.mark.parametrize(
    ("document", "code", "sentence"),
    [
        ("nowhere.json", 4, "source_unavailable: There is no file 'nowhere.json' at the given path."),
        (".", 4, "source_unavailable: The given path is a folder, not a file."),
        (__file__, 3, "input_constraint_violated: The document is not JSON in UTF-8."),
    ],
)
def test_a_document_that_is_none_is_one_sentence_and_never_a_run(
    cli: Cli, small_clip: Path, document: str, code: int, sentence: str
) -> None:
    found = cli("process", str(small_clip), "--document", document, "--video-id=without-any-run")
    assert (found.returncode, found.stderr) == (code, f"{sentence}\n")
    assert not list(cli.home.rglob("*without-any-run*"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"titel": "zquixo"}', "The document has a field other than title, description, tags, language, transcript."),
        (b'{"title": ["zquixo"]}', "The field title of the document is not a text."),
        (b'"zquixo"', "The document is not an object."),
        (b" " * (MAX_DOCUMENT_BYTES + 2), f"The document has more than {MAX_DOCUMENT_BYTES} bytes."),
    ],
)
def test_the_sentence_names_the_field_and_quotes_nothing(tmp_path: Path, text: bytes, problem: str) -> None:
    (tmp_path / "document.json").write_bytes(text)
    error = complaint(lambda: read_document(str(tmp_path / "document.json")))
    assert (error.error_code, error.message) == ("input_constraint_violated", problem)


def test_a_document_may_be_empty_of_text(tmp_path: Path) -> None:
    (tmp_path / "document.json").write_bytes(b"{}")
    assert read_document(str(tmp_path / "document.json")) == parse_document(b"{}") == VideoDocument()


def complaint(work: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        work()
    return caught.value
