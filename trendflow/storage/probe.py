"""Start-up proof that a store honours conditional writes.

Some S3 servers accept and ignore the conditions, or race them; manifests would then lose rows without any error.
"""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.backend import Backend, ObjectNotFound

PROBE_FOLDER = "state/_global/probe"
_WRITERS = 8


def probe_conditional_writes(store: Backend) -> None:
    """Raise `config_invalid` unless the store passes all three checks; a store that passes is left as it was.

    Eight concurrent put-if-absent on a fresh key have exactly one winner, whose bytes stay; a stale `If-Match` is
    refused and changes nothing; an `If-Match` on a missing key is refused and creates nothing.
    """
    folder = f"{PROBE_FOLDER}/{uuid.uuid4().hex}"
    # Reading first: some servers create a missing bucket at the first write, and a typing error would go unnoticed.
    store.folders(PROBE_FOLDER)
    try:
        _check_put_if_absent(store, f"{folder}/create")
        _check_stale_match(store, f"{folder}/swap")
        _check_missing_match(store, f"{folder}/missing")
    except ObjectNotFound as exc:
        raise _refuse("it does not hold what was just written") from exc
    except TrendFlowError as exc:
        # The probe's own key would mean nothing to a reader.
        if exc.error_code == "config_invalid" and (number := exc.detail.get("errno")):
            raise _refuse(f"its folder cannot be written ({os.strerror(number)})") from exc
        raise
    store.delete_prefix(folder)


def _refuse(reason: str) -> TrendFlowError:
    return TrendFlowError("config_invalid", f"The store cannot be used: {reason}.", check="conditional_writes")


def _check_put_if_absent(store: Backend, key: str) -> None:
    gate = threading.Barrier(_WRITERS)

    def write(writer: int) -> bool:
        gate.wait()
        return store.put_if_absent(key, b"writer %d" % writer)

    with ThreadPoolExecutor(_WRITERS) as pool:
        wins = list(pool.map(write, range(_WRITERS)))
    if sum(wins) != 1:
        raise _refuse(f"{sum(wins)} of {_WRITERS} concurrent put-if-absent writers won instead of one")
    if store.get(key) != b"writer %d" % wins.index(True):
        raise _refuse("a losing put-if-absent replaced the winner's bytes")


def _check_stale_match(store: Backend, key: str) -> None:
    store.put(key, b"first")
    stale = store.get_with_etag(key)[1]
    if not store.put_if_match(key, b"second", stale):
        raise _refuse("a valid If-Match was refused")
    if store.put_if_match(key, b"third", stale) or store.get(key) != b"second":
        raise _refuse("a stale If-Match was accepted")


def _check_missing_match(store: Backend, key: str) -> None:
    store.put(key, b"gone")
    etag = store.get_with_etag(key)[1]
    store.delete(key)
    if store.put_if_match(key, b"back", etag):
        raise _refuse("an If-Match on a missing object was accepted")
    try:
        store.head(key)
    except ObjectNotFound:
        return
    raise _refuse("a refused If-Match created the object")
