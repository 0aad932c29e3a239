"""A run whose document waits in the broker: it is there for the components, and gone when nobody needs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import find_row
from trendflow.contracts.video_document import VideoDocument
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import open_document, providing
from trendflow.orchestration.recorder import Halted
from trendflow.orchestration.run_state import RunFailed, conclude
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.text_intake import handed_over
from trendflow.orchestration.waiting_text import WaitingTexts, waiting_texts
from trendflow.state.errors import Fenced
from trendflow_tests.orchestration.canaries import CANARIES, canaries_in
from trendflow_tests.orchestration.queue.stage import Broker, running_broker
from trendflow_tests.orchestration.runs import TEXT, Here, Submit, only, with_profile

pytestmark = pytest.mark.xdist_group("queue")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def texts(deployment: Deployment, broker: Broker) -> Iterator[WaitingTexts]:
    """The texts of `deployment`, which has a broker and a key. None waits at first."""
    redis.Redis.from_url(broker.url).flushall()
    given = type(deployment.settings)(
        **{**deployment.settings.model_dump(), "broker_url": broker.url, "text_key": "a secret of this deployment"}
    )
    object.__setattr__(deployment, "settings", given)
    with_profile(deployment, only("segmenter", "loudness_extractor", "text_processor"))
    found = waiting_texts(deployment.settings)
    assert found is not None
    yield found
    found.close()


@pytest.fixture
def run(deployment: Deployment, texts: WaitingTexts, clip: Path, submit: Submit) -> RunContext:
    """Submitted with a document that waits for it."""
    made = submit(deployment, clip, document=TEXT)
    texts.put(TEXT, made.run_path)
    return made


def row_of(run: RunContext) -> dict[str, Any]:
    return dict(find_row(run.manifest(), "text_processor") or {})


def test_the_worker_reads_it_and_no_word_of_it_stays(
    deployment: Deployment,
    texts: WaitingTexts,
    broker: Broker,
    clip: Path,
    submit: Submit,
    here: Here,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    document = VideoDocument(CANARIES[0], f"{CANARIES[1]} of {CANARIES[2]}", (CANARIES[3], CANARIES[4]), "en")
    run = submit(deployment, clip, document=document)
    texts.put(document, run.run_path)
    assert here(run) == "success"
    assert row_of(run)["status"] == "ok"
    assert texts.get(document.digest, run.run_path) is None
    client = redis.Redis.from_url(broker.url)
    assert client.keys("*") == []

    client.save()
    files = [path for root in (tmp_path, broker.folder) for path in root.rglob("*") if path.is_file()]
    # What is searched holds what it should: results, the history of Dagster, the files of the broker.
    assert {".npz", ".json", ".db", ".aof", ".rdb"} <= {path.suffix for path in files}
    digest = document.digest.encode()
    assert {path.suffix for path in files if digest in path.read_bytes()} >= {".json", ".aof"}
    assert {path.name: found for path in files if (found := canaries_in(path.read_bytes()))} == {}
    assert canaries_in(caplog.text.encode()) == set()


def test_a_text_that_is_gone_is_an_error_and_no_empty(run: RunContext, texts: WaitingTexts, here: Here) -> None:
    texts.discard(TEXT.digest, run.run_path)
    assert here(run) == "success"  # text is optional in this profile
    row = row_of(run)
    assert (row["status"], row["error_code"], row["empty_reason"]) == ("error", "dependency_missing", None)
    assert run.manifest()["run"]["warnings"] == ["partial_failure"]


@pytest.mark.parametrize(
    ("cause", "kept"),
    [
        (RunFailed(TrendFlowError("video_unreadable", "No video."), "segmenter"), False),
        (RunFailed(TrendFlowError("storage_unavailable", "The store is away."), "segmenter"), True),
        (Halted(TrendFlowError("cancelled", "Stopped.")), False),
        (Halted(Fenced("cancelled", "Another process has the run.")), True),
        (GeneratorExit(), True),
    ],
)
def test_only_a_run_that_may_go_on_keeps_it(
    run: RunContext, texts: WaitingTexts, cause: BaseException, kept: bool
) -> None:
    def end() -> None:
        with handed_over(run):
            assert open_document(run) == TEXT
            raise cause

    with pytest.raises(type(cause)):
        end()
    assert texts.get(TEXT.digest, run.run_path) == (TEXT if kept else None)
    with pytest.raises(TrendFlowError):
        open_document(run)


def test_a_run_that_never_began_leaves_none(deployment: Deployment, run: RunContext, texts: WaitingTexts) -> None:
    assert conclude(deployment, run.run_path, TrendFlowError("cancelled", "Cancelled while it waited."))
    assert texts.get(TEXT.digest, run.run_path) is None


def test_what_this_process_was_given_stays(run: RunContext, texts: WaitingTexts) -> None:
    with providing(run, TEXT), handed_over(run):
        assert open_document(run) == TEXT
    assert texts.get(TEXT.digest, run.run_path) == TEXT  # it was not fetched, so it is not this process's to remove


def test_a_run_without_a_document_asks_nobody(
    deployment: Deployment, texts: WaitingTexts, clip: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = submit(deployment, clip)
    monkeypatch.setattr(WaitingTexts, "get", lambda *_: VideoDocument(title="somebody else's"))
    with handed_over(plain), pytest.raises(TrendFlowError):
        open_document(plain)
