"""Clocks that are hours wrong: what the store refuses is said in one sentence, and nothing rests on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from trendflow.contracts.errors import TrendFlowError
from trendflow.retention import clocks
from trendflow.retention.housekeeping import clean_up
from trendflow.retention.policy import RetentionPolicy
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.retry import RetryPolicy
from trendflow_tests.retention.stored import all_keys, make_run, now
from trendflow_tests.s3_proxy import S3Proxy, proxy_of

SKEW = timedelta(hours=5)


@pytest.fixture
def proxy(s3_options: dict[str, str]) -> Iterator[S3Proxy]:
    with proxy_of(s3_options["endpoint"]) as made:
        yield made


@pytest.mark.parametrize("skew", [SKEW, -SKEW], ids=["ahead", "behind"])
def test_a_store_that_refuses_the_time_of_this_machine(
    skew: timedelta,
    proxy: S3Proxy,
    s3_store_url: str,
    s3_options: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy signs again as a machine would whose clock is wrong; who refuses that is the real server."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.now(UTC).replace(tzinfo=None) + skew)
    signer = S3SigV4Auth(
        Credentials(s3_options["access_key_id"], s3_options["secret_access_key"]), "s3", s3_options["region"]
    )

    def signed(method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        own = {name: value for name, value in headers.items() if name.lower() not in ("authorization", "x-amz-date")}
        request = AWSRequest(method, f"http://{headers['host']}{path}", headers=own, data=body)
        signer.add_auth(request)
        return dict(request.headers.items())

    proxy.resign = signed
    url = f"{s3_store_url}/{uuid4().hex}"
    shaken = ObjectStore.open(url, {**s3_options, "endpoint": proxy.endpoint}, retry=RetryPolicy((0.0, 0.0, 0.0)))
    calls: list[Callable[[], object]] = [
        lambda: shaken.get("key"),
        lambda: shaken.put("key", b"data"),
        lambda: shaken.put_if_absent("key", b"data"),
        lambda: list(shaken.list()),
    ]
    for call in calls:
        with pytest.raises(TrendFlowError) as caught:
            call()
        assert caught.value.error_code == "config_invalid"
        assert "clock of this machine is wrong" in caught.value.message
    assert len(proxy.seen) == len(calls), "the time is not put right by trying again"
    assert list(ObjectStore.open(url, s3_options).list()) == []


@pytest.mark.parametrize("days", [10, -10])
def test_nothing_is_removed_by_a_clock_that_is_wrong(
    days: int, s3_store_url: str, s3_options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore.open(f"{s3_store_url}/{uuid4().hex}", s3_options)
    make_run(store, "at-work")
    make_run(store, "ended", ended=now())
    before = all_keys(store)

    def cleaned() -> int:
        report = clean_up(store, RetentionPolicy(), (), None, dry_run=False)
        return sum(report.objects.values())

    with monkeypatch.context() as patch:
        patch.setattr(clocks, "_now", lambda: datetime.now(UTC) + timedelta(days=days))
        with pytest.raises(TrendFlowError, match=r"240\.0 hours") as caught:
            cleaned()
    assert caught.value.error_code == "config_invalid"
    assert cleaned() == 0
    assert all_keys(store) == before
