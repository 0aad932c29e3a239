"""The text of a submitted video on its way from the service to the worker: encrypted, in the broker, for some days.

    trendflow:text:<video>:<document digest>        the document, under a key that only the deployment has
    trendflow:text_runs:<video>:<document digest>   ids of the runs that may need it

`<video>` is a keyed hash: the broker's files keep what was removed for a while, and must not name a deleted video. A
text lies under its digest, so a request that is refused cannot replace the text of another one. It goes when the last
run that needs it has ended for good; one that may be repeated keeps it. What nobody fetches goes by its age.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import cached_property

import redis
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from trendflow.config import Settings
from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import VideoDocument, parse_document
from trendflow.orchestration.deployment import Deployment
from trendflow.submission.message import Message

log = logging.getLogger(__name__)

KEPT_SEC = 7 * 86400
"""As long as any raw text may be kept."""

_TIMEOUT_S = 5.0
_RETRIES = 3

# KEYS text runs, ARGV run. The text goes with the last run that may need it.
_DISCARD = """
redis.call('SREM', KEYS[2], ARGV[1])
if redis.call('SCARD', KEYS[2]) > 0 then return 0 end
return redis.call('DEL', KEYS[1])
"""


class WaitingTexts:
    """Texts in one broker, under one key. Raises `storage_unavailable` when the broker does not answer."""

    def __init__(self, url: str, secret: str, kept_sec: int = KEPT_SEC) -> None:
        self._url, self._secret, self._kept_sec = url, secret.encode(), kept_sec

    def put(self, document: VideoDocument, run_path: str) -> None:
        """Keep the document of a run's video for that run."""
        text, runs = self._keys(run_path, document.digest)
        token = self._cipher.encrypt(canonical_json(asdict(document)))
        with _answers():
            pipe = self._redis.pipeline()
            pipe.set(text, token, ex=self._kept_sec)
            self._note_run(pipe, runs, run_path)
            pipe.execute()

    def share(self, digest: str, run_path: str) -> bool:
        """Keep a document for another run of the same video; False when it is gone."""
        text, runs = self._keys(run_path, digest)
        with _answers():
            if not self._redis.expire(text, self._kept_sec):
                return False
            pipe = self._redis.pipeline()
            self._note_run(pipe, runs, run_path)
            pipe.execute()
        return True

    def get(self, digest: str, run_path: str) -> VideoDocument | None:
        """The document, None when it is gone. Raises `config_invalid` for one that cannot be read with this key."""
        text, _ = self._keys(run_path, digest)
        with _answers():
            token = self._redis.get(text)
        if token is None:
            return None
        try:
            document = parse_document(self._cipher.decrypt(token))
        except InvalidToken:
            document = None
        if document is None or document.digest != digest:
            raise TrendFlowError("config_invalid", "The text that waits for the run cannot be read with this key.")
        return document

    def discard(self, digest: str, run_path: str) -> None:
        """A run needs its text no more. May be repeated, also for a run that never had one."""
        with _answers():
            self._redis.eval(_DISCARD, 2, *self._keys(run_path, digest), _run_id(run_path))

    def count(self, platform_id: str, video_id: str) -> int:
        """How many texts of a video wait."""
        with _answers():
            return sum(1 for _ in self._redis.scan_iter(f"trendflow:text:{self._video(platform_id, video_id)}:*"))

    def forget(self, platform_id: str, video_id: str) -> None:
        """Remove all texts of a video, whoever may need them."""
        with _answers():
            for key in self._redis.scan_iter(f"trendflow:text*:{self._video(platform_id, video_id)}:*"):
                self._redis.delete(key)

    def close(self) -> None:
        self._redis.close()

    @cached_property
    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(ExponentialBackoff(cap=4.0, base=1.0), _RETRIES),
        )

    @cached_property
    def _cipher(self) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(self._derived(b"trendflow waiting text")))

    @cached_property
    def _video_key(self) -> bytes:
        return self._derived(b"trendflow video of a waiting text")

    def _derived(self, purpose: bytes) -> bytes:
        """A key of its own for each purpose: RFC 5869, of a secret that is random already and needs no salt."""
        return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(self._secret)

    def _video(self, platform_id: str, video_id: str) -> str:
        return hmac.digest(self._video_key, f"{platform_id}/{video_id}".encode(), "sha256").hex()

    def _keys(self, run_path: str, digest: str) -> tuple[str, str]:
        platform_id, video_id, _ = run_path.split("/")
        video = self._video(platform_id, video_id)
        return f"trendflow:text:{video}:{digest}", f"trendflow:text_runs:{video}:{digest}"

    def _note_run(self, pipe: redis.client.Pipeline, runs: str, run_path: str) -> None:
        pipe.sadd(runs, _run_id(run_path))
        pipe.expire(runs, self._kept_sec)


class BrokerHandOver:
    """Hands the documents of requests over to the workers (`trendflow.service.parts.TextHandOver`)."""

    def __init__(self, texts: WaitingTexts) -> None:
        self._texts = texts

    def __call__(self, message: Message, document: VideoDocument) -> None:
        self._texts.put(document, message.run_path)

    def withdraw(self, message: Message, document: VideoDocument) -> None:
        with _else_by_age():
            self._texts.discard(document.digest, message.run_path)


def waiting_texts(settings: Settings) -> WaitingTexts | None:
    """The texts of this deployment; None without a broker or without a key."""
    if settings.broker_url is None or settings.text_key is None:
        return None
    return WaitingTexts(settings.broker_url.get_secret_value(), settings.text_key.get_secret_value())


@contextmanager
def sharing(settings: Settings) -> Iterator[Callable[[str, str], bool]]:
    """`WaitingTexts.share` of this deployment; without waiting texts all are gone."""
    texts = waiting_texts(settings)
    if texts is None:
        yield lambda digest, run_path: False
        return
    with closing(texts):
        yield texts.share


def discard_text(deployment: Deployment, run_path: str, error: TrendFlowError | None) -> None:
    """Remove the text of a run that has ended, with `error` or without, unless the run may be repeated.

    What cannot be removed now goes by its age.
    """
    texts = waiting_texts(deployment.settings)
    if texts is None or (error is not None and error.error_class == "transient"):
        return
    with closing(texts), _else_by_age():
        manifest = deployment.results.read_manifest(run_path)
        digest = None if manifest is None else manifest["run"]["document_digest"]
        if digest is not None:
            texts.discard(digest, run_path)


def forget_text(deployment: Deployment, platform_id: str, video_id: str) -> None:
    """Remove the texts of a deleted video. Raises `storage_unavailable`."""
    texts = waiting_texts(deployment.settings)
    if texts is not None:
        with closing(texts):
            texts.forget(platform_id, video_id)


@contextmanager
def _else_by_age() -> Iterator[None]:
    try:
        yield
    except TrendFlowError as error:
        log.warning("a text cannot be removed and goes by its age: %s", error.error_code)


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as exc:
        # Without the cause: its arguments may hold the command.
        raise TrendFlowError("storage_unavailable", "The broker does not answer.", type=type(exc).__name__) from None


def _run_id(run_path: str) -> str:
    return run_path.rpartition("/")[2]
