"""Webhooks: where they may go, how they are signed, what happens when nobody takes them."""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.webhook_sender import Attempt, WebhookSender
from trendflow.service.webhook_target import parse_target, public_address
from trendflow_tests.service.certificates import make_certificate
from trendflow_tests.state.runs import FixedClock

SECRET = b"a key that only this test has"
PUBLIC = "93.184.216.34"
NOW = "2026-01-02T00:00:00.000Z"  # of `FixedClock`


class Receiver:
    """A TLS server that gives its answers in turn and keeps what it got, as bytes on the wire."""

    def __init__(self, answers: list[bytes], certificate: Path, key: Path) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.names: list[str | None] = []
        self._answers = list(answers)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._tls.sni_callback = lambda connection, name, context: self.names.append(name)

    def serve(self, listener: socket.socket) -> None:
        for answer in self._answers:
            connection, _ = listener.accept()
            try:
                with self._tls.wrap_socket(connection, server_side=True) as stream:
                    self._take(stream)
                    stream.sendall(answer)
            except OSError:  # the caller did not like us
                connection.close()

    def _take(self, stream: ssl.SSLSocket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += stream.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += stream.recv(65536)
        self.requests.append(({**headers, "": first}, body))


OK, BUSY, MOVED, GONE = (
    f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: https://127.0.0.1/\r\nConnection: close\r\n\r\n".encode()
    for status in ("204 No Content", "503 Busy", "307 Moved", "410 Gone")
)


@contextmanager
def receiving(tmp_path: Path, *answers: bytes) -> Iterator[tuple[Receiver, int, ssl.SSLContext]]:
    certificate, key = make_certificate(tmp_path, "hooks.example.org")
    receiver = Receiver(list(answers), certificate, key)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=receiver.serve, args=[listener], daemon=True)
        thread.start()
        yield receiver, listener.getsockname()[1], ssl.create_default_context(cafile=str(certificate))
        thread.join(60)


def sender(
    *, tls: ssl.SSLContext | None = None, waits: list[float] | None = None, looked_up: list[str] | None = None
) -> WebhookSender:
    """A sender that goes to the loopback interface, which only tests may, and does not really wait."""

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    def find(target: Any, resolver: object) -> str:
        if looked_up is not None:
            looked_up.append(target.host)
        return "127.0.0.1"

    return WebhookSender(SECRET, FixedClock(), find=find, tls=tls, sleep=sleep)


def send(made: WebhookSender, url: str, body: bytes = b"{}") -> list[Attempt]:
    return anyio.run(made.send, url, body)


def test_a_webhook_is_signed_and_goes_to_the_address_under_its_name(tmp_path: Path) -> None:
    body = b'{"run_id":"run-1"}'
    with receiving(tmp_path, OK) as (receiver, port, tls):
        attempts = send(sender(tls=tls), f"https://hooks.example.org:{port}/done", body)
    assert attempts == [Attempt(NOW, 204, None)]
    ((headers, received),) = receiver.requests
    assert headers[""] == "POST /done HTTP/1.1"
    assert headers["host"] == f"hooks.example.org:{port}"
    assert receiver.names == ["hooks.example.org"]
    assert received == body
    # RFC 2104 written out: no code is shared with the sender.
    padded = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + headers["x-trendflow-timestamp"].encode() + received)
    expected = hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner.digest()).hexdigest()
    assert hmac.compare_digest(headers["x-trendflow-signature"], f"sha256={expected}")


def test_a_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    with receiving(tmp_path, *[OK] * 4) as (receiver, port, tls):
        attempts = send(sender(tls=tls), f"https://other.example.org:{port}/done")
    assert [attempt.error_code for attempt in attempts] == ["network_error"] * 4
    assert receiver.requests == []


def test_outages_are_tried_again_at_the_same_address(tmp_path: Path) -> None:
    waits: list[float] = []
    looked_up: list[str] = []
    with receiving(tmp_path, BUSY, BUSY, OK) as (receiver, port, tls):
        attempts = send(sender(tls=tls, waits=waits, looked_up=looked_up), f"https://hooks.example.org:{port}/done")
    assert [attempt.http_status for attempt in attempts] == [503, 503, 204]
    assert [attempt.error_code for attempt in attempts] == ["network_error", "network_error", None]
    assert waits == [5.0, 30.0]
    assert looked_up == ["hooks.example.org"]
    assert len({body for _, body in receiver.requests}) == 1


def test_it_is_given_up_after_the_last_wait(tmp_path: Path) -> None:
    waits: list[float] = []
    with receiving(tmp_path, *[BUSY] * 4) as (receiver, port, tls):
        attempts = send(sender(tls=tls, waits=waits), f"https://hooks.example.org:{port}/done")
    assert (len(attempts), attempts[-1].error_code) == (4, "network_error")
    assert waits == [5.0, 30.0, 120.0]
    assert len(receiver.requests) == 4


@pytest.mark.parametrize("answer", [MOVED, GONE])
def test_redirects_and_refusals_are_final(tmp_path: Path, answer: bytes) -> None:
    with receiving(tmp_path, answer) as (receiver, port, tls):
        attempts = send(sender(tls=tls), f"https://hooks.example.org:{port}/done")
    assert [(attempt.http_status, attempt.error_code) for attempt in attempts] == [
        (int(answer.split()[1]), "network_error")
    ]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://user:password@example.org/",
        "https://example.org@127.0.0.1/",
        "https:///path",
        "https://example.org/#part",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org/\r\nX: y",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
        "https://１２７.0.0.1/",  # written in full-width digits: the same address
        "https://a..b.example/",
        f"https://{'a' * 64}.example/",
        "https://bü..cher.example/",
        "https://example.org/\ud800",
    ],
)
def test_urls_that_no_webhook_goes_to(url: str) -> None:
    with pytest.raises(TrendFlowError, match="input_constraint_violated"):
        parse_target(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "no address",
    ],
)
def test_names_that_lead_to_addresses_that_are_not_public(address: str) -> None:
    target = parse_target("https://hooks.example.org/done")
    for found in ([address], [PUBLIC, address], [address, PUBLIC]):  # one that is not public spoils them all
        with pytest.raises(TrendFlowError, match="input_constraint_violated"):
            public_address(target, lambda host, port, found=found: found)


def test_names_of_other_scripts_have_an_ascii_form() -> None:
    """RFC 3490 as the registries write it; `bücher` in Punycode is the example of the article on it."""
    target = parse_target("https://bücher.example:8443/done")
    assert (target.host, target.authority) == ("xn--bcher-kva.example", "xn--bcher-kva.example:8443")


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), socket.gaierror("unknown")])
def test_what_the_resolver_refuses_is_a_name_that_is_not_known(error: Exception) -> None:
    def resolver(host: str, port: int) -> list[str]:
        raise error

    with pytest.raises(TrendFlowError, match="network_error"):
        public_address(parse_target("https://hooks.example.org/done"), resolver)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946"])
def test_names_that_lead_to_public_addresses(address: str) -> None:
    asked = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return [address]

    assert public_address(parse_target("https://hooks.example.org:8443/done"), resolver) == address
    assert asked == [("hooks.example.org", 8443)]


def test_nothing_is_sent_to_a_name_that_leads_inside(tmp_path: Path) -> None:
    """The resolver answers with an address where somebody listens, who must hear nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        made = WebhookSender(SECRET, FixedClock(), resolver=lambda host, port: ["127.0.0.1"])
        attempts = send(made, f"https://inside.example.org:{listener.getsockname()[1]}/")
        assert [attempt.error_code for attempt in attempts] == ["input_constraint_violated"]
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_names_that_nobody_knows_are_tried_again() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def resolver(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    attempts = send(WebhookSender(SECRET, FixedClock(), resolver=resolver, sleep=sleep), "https://example.org/")
    assert [attempt.error_code for attempt in attempts] == ["network_error"] * 4
    assert waits == [5.0, 30.0, 120.0]
