"""The capability probe passes real stores and refuses each kind of store that breaks conditional writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.backend import ObjectNotFound, Payload
from trendflow.storage.local_backend import LocalBackend
from trendflow.storage.object_store import ObjectStore


def test_good_stores_pass_and_stay_empty(store: ObjectStore) -> None:
    store.probe()
    assert list(store.list()) == []


class IgnoresIfNoneMatch(LocalBackend):
    """Accepts the header and overwrites anyway."""

    def put_if_absent(self, key: str, data: Payload) -> bool:
        self.put(key, data)
        return True


class LosersOverwrite(LocalBackend):
    """Answers correctly but stores the loser's bytes."""

    def put_if_absent(self, key: str, data: Payload) -> bool:
        won = super().put_if_absent(key, data)
        if not won:
            self.put(key, data)
        return won


class NobodyWins(LocalBackend):
    def put_if_absent(self, key: str, data: Payload) -> bool:
        return False


class IgnoresIfMatch(LocalBackend):
    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        self.put(key, data)
        return True


class WritesDespiteStaleMatch(LocalBackend):
    """Answers 412 but has stored the bytes."""

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        matched = super().put_if_match(key, data, etag)
        self.put(key, data)
        return matched


class CreatesOnIfMatch(LocalBackend):
    """Honours If-Match on existing objects and treats a missing one as a match."""

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            self.put(key, data)
            return True
        return super().put_if_match(key, data, etag)


class RefusesEveryMatch(LocalBackend):
    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        return False


class ForgetsObjects(LocalBackend):
    def get(self, key: str) -> bytes:
        raise ObjectNotFound.at(key)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (IgnoresIfNoneMatch, "8 of 8"),
        (LosersOverwrite, "losing put-if-absent"),
        (NobodyWins, "0 of 8"),
        (IgnoresIfMatch, "stale If-Match"),
        (WritesDespiteStaleMatch, "stale If-Match"),
        (CreatesOnIfMatch, "missing object"),
        (RefusesEveryMatch, "valid If-Match"),
        (ForgetsObjects, "does not hold"),
    ],
)
def test_stores_that_break_the_rules_are_refused(broken: type[LocalBackend], reason: str, tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match=reason) as caught:
        ObjectStore(broken(tmp_path)).probe()
    assert caught.value.error_code == "config_invalid"
