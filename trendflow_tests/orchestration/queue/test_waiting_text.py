"""Text from the service to the worker through a real broker, and what of it can be found on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import Transcript, TranscriptSegment, VideoDocument
from trendflow.orchestration.waiting_text import WaitingTexts
from trendflow_tests.orchestration.queue.stage import Broker
from trendflow_tests.ports import held_ports

pytestmark = pytest.mark.xdist_group("queue")

CANARIES = ("zquixo", "vlympra", "krothune", "Übelqyx")
DOCUMENT = VideoDocument(
    title=CANARIES[0],
    description=f"{CANARIES[1]} " * 200,
    tags=(CANARIES[2],),
    language="en",
    transcript=Transcript("captions", "2026-01-01T00:00:00Z", (TranscriptSegment(0.0, 4.0, CANARIES[3], 0.5),)),
)
RUN, OTHER = "youtube/abcdefghijk/run-1", "youtube/abcdefghijk/run-2"
SECRET = "a secret of the deployment"


@pytest.fixture
def texts(broker: Broker) -> Iterator[WaitingTexts]:
    redis.Redis.from_url(broker.url).flushall()
    made = WaitingTexts(broker.url, SECRET)
    yield made
    made.close()


def keys(broker: Broker) -> list[bytes]:
    found: Any = redis.Redis.from_url(broker.url).keys("*")
    return list(found)


def test_a_document_arrives_as_it_was(texts: WaitingTexts) -> None:
    texts.put(DOCUMENT, RUN)
    assert texts.get(DOCUMENT.digest, RUN) == DOCUMENT
    assert texts.get(VideoDocument(title="another").digest, RUN) is None


def test_nothing_of_it_can_be_read_on_the_way(texts: WaitingTexts, broker: Broker) -> None:
    texts.put(DOCUMENT, RUN)
    client = redis.Redis.from_url(broker.url)
    client.save()
    held: Any = b"".join(client.dump(key) or b"" for key in keys(broker)) + b"".join(keys(broker))
    files = {path: path.read_bytes() for path in broker.folder.rglob("*") if path.is_file()}
    assert {".rdb", ".aof"} <= {path.suffix for path in files}
    written = b"".join(files.values())
    assert DOCUMENT.digest.encode() in written  # it is there that one has to look
    for hidden in (*CANARIES, SECRET, "abcdefghijk", "observed_at"):
        for form in (hidden.encode(), hidden.lower().encode(), hidden.encode("unicode-escape")):
            assert form not in held + written
    values = {key: client.ttl(key) for key in keys(broker)}
    assert len(values) == 2
    assert all(0 < seconds <= 7 * 86400 for seconds in values.values())


def test_it_goes_with_the_last_run_that_needs_it(texts: WaitingTexts, broker: Broker) -> None:
    texts.put(DOCUMENT, RUN)
    assert texts.share(DOCUMENT.digest, OTHER)
    texts.discard(DOCUMENT.digest, RUN)
    texts.discard(DOCUMENT.digest, RUN)  # again
    assert texts.get(DOCUMENT.digest, OTHER) == DOCUMENT
    texts.discard(DOCUMENT.digest, OTHER)
    assert texts.get(DOCUMENT.digest, OTHER) is None
    assert keys(broker) == []
    assert not texts.share(DOCUMENT.digest, OTHER)
    assert keys(broker) == []


def test_a_video_is_forgotten_and_others_are_not(texts: WaitingTexts, broker: Broker) -> None:
    elsewhere = "youtube/-BCDEFGHIJK/run-3"
    for run_path in (RUN, OTHER, elsewhere):
        texts.put(DOCUMENT, run_path)
    assert (texts.count("youtube", "abcdefghijk"), texts.count("upload", "abcdefghijk")) == (1, 0)
    texts.forget("youtube", "abcdefghijk")
    assert texts.get(DOCUMENT.digest, RUN) is None
    assert texts.get(DOCUMENT.digest, elsewhere) == DOCUMENT
    texts.forget("youtube", "-BCDEFGHIJK")
    assert keys(broker) == []


def test_another_key_is_no_missing_document(texts: WaitingTexts, broker: Broker) -> None:
    """With another secret the video has another name: the text looks gone. Only a damaged one says so."""
    texts.put(DOCUMENT, RUN)
    assert WaitingTexts(broker.url, "another secret").get(DOCUMENT.digest, RUN) is None
    client = redis.Redis.from_url(broker.url)
    (name,) = [key for key in keys(broker) if key.startswith(b"trendflow:text:")]
    client.set(name, hashlib.sha256(b"no token").hexdigest())
    with pytest.raises(TrendFlowError) as caught:
        texts.get(DOCUMENT.digest, RUN)
    assert caught.value.error_code == "config_invalid"


def test_an_age_ends_it(broker: Broker) -> None:
    short = WaitingTexts(broker.url, SECRET, kept_sec=100)
    short.put(DOCUMENT, RUN)
    client = redis.Redis.from_url(broker.url)
    assert {0 < client.ttl(key) <= 100 for key in keys(broker)} == {True}
    for key in keys(broker):
        client.expire(key, 0)
    assert short.get(DOCUMENT.digest, RUN) is None


def test_a_broker_that_is_away_is_an_outage(texts: WaitingTexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trendflow.orchestration.waiting_text._RETRIES", 0)
    with held_ports(1) as ports:
        away = WaitingTexts(f"redis://127.0.0.1:{ports[0]}/0", SECRET)
        with pytest.raises(TrendFlowError) as caught:
            away.get(DOCUMENT.digest, RUN)
    assert caught.value.error_code == "storage_unavailable"
    assert caught.value.__cause__ is None
