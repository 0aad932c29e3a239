"""Lost answers: a proxy between client and real S3 server drops replies, and the writer must still know the truth."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.retry import RetryPolicy

Fault = Literal["lose_answer", "lose_request", "overloaded"]
RETRY = RetryPolicy(waits=(0.0, 0.0, 0.0))


class FaultyProxy(ThreadingHTTPServer):
    """Forwards every request to the server; the next requests in `faults` go wrong in the given way."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.requests = 0


class _Handler(BaseHTTPRequestHandler):
    server: FaultyProxy

    def _serve(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.close_connection = True
        if fault == "lose_request":
            return
        if fault == "overloaded":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.server.upstream.hostname or "", self.server.upstream.port or 0)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # Host included: it is part of the signature
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "lose_answer":
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def proxy(s3_options: dict[str, str]) -> Iterator[FaultyProxy]:
    server = FaultyProxy(s3_options["endpoint"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(s3_store_url: str) -> str:
    return f"{s3_store_url}/{uuid.uuid4().hex}"


@pytest.fixture
def shaky(proxy: FaultyProxy, url: str, s3_options: dict[str, str]) -> ObjectStore:
    """The store as seen through the proxy."""
    host, port = proxy.server_address[:2]
    return ObjectStore.open(url, {**s3_options, "endpoint": f"http://{host}:{port}"}, retry=RETRY)


@pytest.fixture
def direct(url: str, s3_options: dict[str, str]) -> ObjectStore:
    """The same store without the proxy."""
    return ObjectStore.open(url, s3_options, retry=RETRY)


def test_the_proxy_is_transparent(shaky: ObjectStore) -> None:
    shaky.probe()


@pytest.mark.parametrize("losses", [1, 2, 4])
def test_a_success_whose_answer_was_lost_is_recognised(shaky: ObjectStore, proxy: FaultyProxy, losses: int) -> None:
    proxy.faults = ["lose_answer"] * losses
    assert shaky.put_if_absent("claim", b"mine")
    assert shaky.get("claim") == b"mine"
    etag = shaky.get_with_etag("claim")[1]
    proxy.faults = ["lose_answer"] * losses
    assert shaky.put_if_match("claim", b"mine, changed", etag)
    assert shaky.get("claim") == b"mine, changed"


def test_a_defeat_whose_answer_was_lost_stays_a_defeat(
    shaky: ObjectStore, direct: ObjectStore, proxy: FaultyProxy
) -> None:
    # Equal bytes: only the nonce can tell whose object it is.
    assert direct.put_if_absent("claim", b"same bytes")
    proxy.faults = ["lose_answer"]
    assert not shaky.put_if_absent("claim", b"same bytes")
    etag = direct.get_with_etag("claim")[1]
    assert direct.put_if_match("claim", b"other bytes", etag)
    proxy.faults = ["lose_answer"]
    assert not shaky.put_if_match("claim", b"other bytes", etag)


def test_a_request_that_never_arrived_is_repeated(shaky: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.faults = ["lose_request", "overloaded"]
    assert shaky.put_if_absent("claim", b"mine")
    proxy.faults = ["overloaded", "lose_request", "overloaded"]
    assert shaky.get("claim") == b"mine"
    proxy.faults = ["lose_answer", "overloaded"]
    shaky.put("claim", b"plain")
    assert shaky.get("claim") == b"plain"


def test_after_three_retries_the_store_counts_as_unavailable(
    shaky: ObjectStore, direct: ObjectStore, proxy: FaultyProxy
) -> None:
    proxy.faults = ["overloaded"] * 20
    with pytest.raises(TrendFlowError) as caught:
        shaky.get("claim")
    assert caught.value.error_code == "storage_unavailable"
    assert proxy.requests == 4
    with pytest.raises(TrendFlowError) as caught:
        shaky.put_if_absent("claim", b"mine")
    assert caught.value.error_code == "storage_unavailable"
    assert not direct.exists("claim")
