"""Lost answers: a proxy between client and real S3 server drops replies, and the writer must still know the truth."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.retry import RetryPolicy
from trendflow_tests.s3_proxy import Fault, S3Proxy, proxy_of

RETRY = RetryPolicy(waits=(0.0, 0.0, 0.0))


@pytest.fixture
def proxy(s3_options: dict[str, str]) -> Iterator[S3Proxy]:
    with proxy_of(s3_options["endpoint"]) as made:
        yield made


def next_fail(proxy: S3Proxy, *faults: Fault, times: int = 1) -> None:
    """The next requests go wrong like this, one after the other, that often."""
    left = list(faults) * times
    proxy.decide = lambda request: left.pop(0) if left else None


@pytest.fixture
def url(s3_store_url: str) -> str:
    return f"{s3_store_url}/{uuid.uuid4().hex}"


@pytest.fixture
def shaky(proxy: S3Proxy, url: str, s3_options: dict[str, str]) -> ObjectStore:
    """The store as seen through the proxy."""
    return ObjectStore.open(url, {**s3_options, "endpoint": proxy.endpoint}, retry=RETRY)


@pytest.fixture
def direct(url: str, s3_options: dict[str, str]) -> ObjectStore:
    """The same store without the proxy."""
    return ObjectStore.open(url, s3_options, retry=RETRY)


def test_the_proxy_is_transparent(shaky: ObjectStore) -> None:
    shaky.probe()


@pytest.mark.parametrize("losses", [1, 2, 4])
def test_a_success_whose_answer_was_lost_is_recognised(shaky: ObjectStore, proxy: S3Proxy, losses: int) -> None:
    next_fail(proxy, "lose_answer", times=losses)
    assert shaky.put_if_absent("claim", b"mine")
    assert shaky.get("claim") == b"mine"
    etag = shaky.get_with_etag("claim")[1]
    next_fail(proxy, "lose_answer", times=losses)
    assert shaky.put_if_match("claim", b"mine, changed", etag)
    assert shaky.get("claim") == b"mine, changed"


def test_a_defeat_whose_answer_was_lost_stays_a_defeat(shaky: ObjectStore, direct: ObjectStore, proxy: S3Proxy) -> None:
    # Equal bytes: only the nonce can tell whose object it is.
    assert direct.put_if_absent("claim", b"same bytes")
    next_fail(proxy, "lose_answer")
    assert not shaky.put_if_absent("claim", b"same bytes")
    etag = direct.get_with_etag("claim")[1]
    assert direct.put_if_match("claim", b"other bytes", etag)
    next_fail(proxy, "lose_answer")
    assert not shaky.put_if_match("claim", b"other bytes", etag)


def test_a_request_that_never_arrived_is_repeated(shaky: ObjectStore, proxy: S3Proxy) -> None:
    next_fail(proxy, "lose_request", "overloaded")
    assert shaky.put_if_absent("claim", b"mine")
    next_fail(proxy, "overloaded", "lose_request", "overloaded")
    assert shaky.get("claim") == b"mine"
    next_fail(proxy, "lose_answer", "overloaded")
    shaky.put("claim", b"plain")
    assert shaky.get("claim") == b"plain"


def test_after_three_retries_the_store_counts_as_unavailable(
    shaky: ObjectStore, direct: ObjectStore, proxy: S3Proxy
) -> None:
    next_fail(proxy, "overloaded", times=20)
    with pytest.raises(TrendFlowError) as caught:
        shaky.get("claim")
    assert caught.value.error_code == "storage_unavailable"
    assert len(proxy.seen) == 4
    with pytest.raises(TrendFlowError) as caught:
        shaky.put_if_absent("claim", b"mine")
    assert caught.value.error_code == "storage_unavailable"
    assert not direct.exists("claim")
