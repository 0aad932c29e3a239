"""Wrong settings of an S3 store: each has its own sentence, its error code, and costs no more tries than can help."""

from __future__ import annotations

import http.server
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.retry import RetryPolicy
from trendflow_tests.s3 import BUCKET, CREDENTIALS, s3_client

# A retry that waits shows as the time limit of the test: these mistakes must not be repeated at all.
NEVER = RetryPolicy(waits=(3600.0,))
AT_ONCE = RetryPolicy(waits=(0.0, 0.0))


class Answering(http.server.ThreadingHTTPServer):
    """A web server that is no S3 store: it gives every request the same answer and counts them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.requests = 200, b"", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answering

    def _serve(self) -> None:
        self.server.requests += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response_only(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[Answering]:
    server = Answering()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT_URL_S3", "ENDPOINT_URL", "ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)


def complaint(call: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        call()
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith((".", "?"))
    return caught.value


def probe(bucket: str, options: dict[str, str], retry: RetryPolicy = NEVER) -> Callable[[], object]:
    return lambda: ObjectStore.open(f"s3://{bucket}/{uuid.uuid4().hex}", options, retry=retry).probe()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"access_key_id": "nobody"}, "does not know the access key; check access_key_id"),
        ({"secret_access_key": "wrong-one"}, "secret key does not fit the access key; check secret_access_key"),
        ({"skip_signature": "true"}, "denies access to the bucket"),
    ],
)
def test_wrong_credentials_are_named_and_not_tried_again(
    s3_options: dict[str, str], change: dict[str, str], words: str
) -> None:
    error = complaint(probe(BUCKET, {**s3_options, **change}))
    assert error.error_code == "config_invalid"
    assert words in error.message
    assert not any(secret in str(error) + str(error.detail) for secret in ("wrong-one", "test-secret", "127.0.0.1"))


def test_every_kind_of_request_says_that_credentials_are_wrong(s3_options: dict[str, str]) -> None:
    store = ObjectStore.open(f"s3://{BUCKET}/x", {**s3_options, "secret_access_key": "wrong"}, retry=NEVER)
    for call in (
        lambda: store.get("key"),
        lambda: store.head("key"),
        lambda: store.put("key", b""),
        lambda: store.put_if_absent("key", b""),
        lambda: store.put_if_match("key", b"", '"etag"'),
        lambda: store.folders(),
        lambda: list(store.list()),
    ):
        assert complaint(call).error_code == "config_invalid"


def test_a_missing_bucket_is_named_and_not_created(s3_options: dict[str, str]) -> None:
    bucket = f"missing-{uuid.uuid4().hex}"
    error = complaint(probe(bucket, s3_options))
    assert error.error_code == "config_invalid"
    assert error.message == "The bucket of the S3 store does not exist; create it or correct TRENDFLOW_STORE_URL."
    found = {each["Name"] for each in s3_client(s3_options).list_buckets()["Buckets"]}
    assert bucket not in found
    # A bucket that vanishes while runs are at work is no missing object either.
    assert complaint(lambda: ObjectStore.open(f"s3://{bucket}", s3_options).get("key")).message == error.message


def test_an_unknown_option_is_refused_before_any_request() -> None:
    error = complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", {"endpiont": "http://127.0.0.1:9"}))
    assert error.error_code == "config_invalid"
    assert error.message == "The S3 store knows no option 'endpiont'; did you mean 'endpoint'?"
    assert "'zzz'." in complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", {"zzz": "1"})).message


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:9000", "127.0.0.1", "ftp://host", "http://", "http://a b", "http://h:port", "not a url"]
)
def test_a_malformed_endpoint_is_refused_before_any_request(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", {**CREDENTIALS, "endpoint": endpoint}))
    assert error.error_code == "config_invalid"
    assert error.message.startswith("The endpoint of the S3 store is not a URL")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", CREDENTIALS)).message == error.message


def test_the_endpoint_may_come_from_the_environment(
    s3_options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_options["endpoint"])
    probe(BUCKET, CREDENTIALS)()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    probe(BUCKET, s3_options)()  # what a deployment says beats what the machine says


@pytest.mark.parametrize("name", ["access_key_id", "secret_access_key"])
def test_half_a_pair_of_credentials_is_refused(s3_options: dict[str, str], name: str) -> None:
    half = {option: value for option, value in s3_options.items() if option != name}
    error = complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", half))
    assert error.error_code == "config_invalid"
    assert error.message == f"The credentials of the S3 store are incomplete: {name} is missing."


def test_a_bad_value_is_refused_before_any_request(s3_options: dict[str, str]) -> None:
    options = {**s3_options, "virtual_hosted_style_request": "perhaps"}
    assert complaint(lambda: ObjectStore.open(f"s3://{BUCKET}", options)).error_code == "config_invalid"


def test_a_closed_port_is_an_outage(s3_options: dict[str, str], free_port: Callable[[], int]) -> None:
    options = {**s3_options, "endpoint": f"http://127.0.0.1:{free_port()}"}
    error = complaint(probe(BUCKET, options, AT_ONCE))
    assert error.error_code == "storage_unavailable"
    assert error.message == "The S3 store cannot be reached: nothing listens at its endpoint."


def test_an_unknown_host_and_a_server_without_https_are_told_apart(s3_options: dict[str, str]) -> None:
    # No label has 64 letters, so the answer does not wait for a name server, which this machine may not even reach.
    unknown = complaint(probe(BUCKET, {**s3_options, "endpoint": f"http://{'x' * 64}.invalid"}, AT_ONCE))
    assert (unknown.error_code, "host name" in unknown.message) == ("storage_unavailable", True)
    plain = s3_options["endpoint"].replace("http:", "https:")
    spoken = complaint(probe(BUCKET, {**s3_options, "endpoint": plain}, AT_ONCE))
    assert (spoken.error_code, "does not speak HTTPS" in spoken.message) == ("storage_unavailable", True)


@pytest.mark.parametrize(
    ("status", "body", "code", "words", "tries"),
    [
        (404, b"page not found", "config_invalid", "not as an S3 store does", 1),
        (204, b"", "config_invalid", "not as an S3 store does", 1),
        (301, b"", "config_invalid", "another region", 1),
        (400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>", "config_invalid", "another region", 1),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", "config_invalid", "has expired", 1),
        (403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", "config_invalid", "clock of this machine", 1),
        (400, b"", "config_invalid", "status 400", 1),
        (500, b"", "storage_unavailable", "status 500", 3),
        (503, b"<Error><Code>SlowDown</Code></Error>", "storage_unavailable", "status 503", 3),
        (429, b"", "storage_unavailable", "status 429", 3),
    ],
)
def test_only_what_may_pass_is_tried_again(
    web: Answering, status: int, body: bytes, code: str, words: str, tries: int
) -> None:
    web.status, web.body = status, body
    error = complaint(probe(BUCKET, {**CREDENTIALS, "endpoint": web.url}, AT_ONCE))
    assert error.error_code == code
    assert words in error.message
    assert web.requests == tries


def test_a_write_that_never_left_is_not_looked_for(s3_options: dict[str, str], free_port: Callable[[], int]) -> None:
    """A refused connection leaves no doubt; asking the same dead server again would double the wait."""
    waits = CountingPolicy(waits=(0.0, 0.0))
    options = {**s3_options, "endpoint": f"http://127.0.0.1:{free_port()}"}
    store = ObjectStore.open(f"s3://{BUCKET}/x", options, retry=waits)
    assert complaint(lambda: store.put_if_absent("key", b"")).error_code == "storage_unavailable"
    assert waits.rounds == 1


class CountingPolicy(RetryPolicy):
    rounds = 0

    def attempts(self) -> Iterator[bool]:
        type(self).rounds += 1
        return super().attempts()
