"""Erasure of a video: requested once, continued by anybody, proven by a receipt that names nobody."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.retention.lineage import datasets_with, models_of
from trendflow.retention.traces import Executions, History, NoExecutions, NoHistory, StillAtWork, Traces
from trendflow.state.clock import Clock, SystemClock
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.tombstones import ROOT as TOMBSTONES
from trendflow.storage.tombstones import tombstone_key

log = logging.getLogger(__name__)

Document = dict[str, Any]

ERASURES, RECEIPTS = "erasures", "receipts"
USER_REQUEST = "user_request"
_TOMBSTONE, _ERASURE, _RECEIPT = "tombstone_v1", "erasure_v1", "deletion_receipt_v1"
_ID = re.compile(r"[0-9a-f]{64}\Z")
_REASON = re.compile(r"[a-z][a-z_]{0,63}\Z")

PATIENCE_S = 60
"""How long a deletion waits for runs to stop before it is left to the next clean-up."""
_PAUSE_S = 1.0
_SWEEPS = 3


class Eraser:
    """Deletes videos from one store.

    1. `erasures/<tombstone id>.json`: the request. It names the video, and whatever happens from here on, whoever
       finds it can finish.
    2. `tombstones/<tombstone id>.json`: from here on readers refuse the video.
    3. What there is, is noted in the request; its runs are asked to stop, and when they have, everything is removed.
    4. `receipts/<tombstone id>.json`; the tombstone gets the counts; the request goes.

    Every step may be repeated, so a deletion that was cut short is continued from the beginning. While a run is still
    at work nothing is removed and no receipt is written: the state of the run, which tells it to stop, is needed.
    """

    def __init__(
        self,
        store: ObjectStore,
        schemas: SchemaRegistry,
        secret: bytes | None,
        *,
        clock: Clock | None = None,
        history: History | None = None,
        executions: Executions | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`wait` pauses for seconds.

        Raises `config_invalid` without the key that the ids of deleted videos are hashed with."""
        if not secret:
            raise TrendFlowError("config_invalid", "Set TRENDFLOW_TOMBSTONE_KEY: deleted videos are told by it.")
        self._store, self._schemas, self._secret = store, schemas, secret
        self._clock, self._wait = clock or SystemClock(), wait
        self._history, self._executions = history or NoHistory(), executions or NoExecutions()

    def request(
        self, platform_id: str, video_id: str, *, reason: str = USER_REQUEST, request_id: str | None = None
    ) -> str:
        """Refuse the video from now on and note that it is to be erased. Returns the id of the tombstone.

        Raises `input_constraint_violated` for a malformed id and for a reason that is no single word.
        """
        self._traces(platform_id, video_id)  # refuses what is no video
        if not _REASON.match(reason):
            raise TrendFlowError(
                "input_constraint_violated", "The reason of a deletion is a word, such as user_request."
            )
        tombstone_id = self._id(platform_id, video_id)
        erasure = {
            "schema_version": _ERASURE,
            "platform_id": platform_id,
            "video_id": video_id,
            "reason": reason,
            "request_id": request_id or uuid.uuid4().hex,
            "requested_at": self._clock.utc(),
            "found": None,
        }
        self._store.put_if_absent(f"{ERASURES}/{tombstone_id}.json", self._encode(_ERASURE, erasure))
        self._bury(tombstone_id)
        return tombstone_id

    def erase(
        self, platform_id: str, video_id: str, *, reason: str = USER_REQUEST, request_id: str | None = None
    ) -> Document:
        """Delete a video now and return the receipt (`deletion_receipt_v1`). Errors as `request`.

        Repeated for a video of which nothing came back, it returns the receipt there is. Raises `StillAtWork` when a
        run of the video does not stop in time: the deletion then is pending.
        """
        if not self.pending(platform_id, video_id) and self._store.exists(
            tombstone_key(platform_id, video_id, self._secret)
        ):
            standing = self.receipt(platform_id, video_id)
            if standing is not None and not self._traces(platform_id, video_id).inventory().counts:
                return standing
        tombstone_id = self.request(platform_id, video_id, reason=reason, request_id=request_id)
        self._stop([tombstone_id])
        return self._finish(tombstone_id)

    def continue_all(self) -> list[Document]:
        """Finish every deletion that was requested; returns the receipts. One whose runs do not stop stays pending."""
        names = [info.key.rpartition("/")[2].removesuffix(".json") for info in self._store.list(ERASURES)]
        self._stop(names)
        receipts = []
        for tombstone_id in names:
            try:
                receipts.append(self._finish(tombstone_id))
            except StillAtWork:
                log.warning("the deletion %s waits for a run that is still at work", tombstone_id)
        return receipts

    def pending(self, platform_id: str, video_id: str) -> bool:
        """Whether a deletion of the video was requested and is not complete."""
        return self.is_pending(self._id(platform_id, video_id))

    def is_pending(self, tombstone_id: str) -> bool:
        """As `pending`. Raises `input_constraint_violated` for what is no id."""
        return self._store.exists(f"{ERASURES}/{_valid(tombstone_id)}.json")

    def pending_videos(self) -> list[tuple[str, str]]:
        """(platform_id, video_id) of every deletion that was requested and is not complete."""
        found = (self._read(_ERASURE, info.key) for info in list(self._store.list(ERASURES)))
        return [(erasure["platform_id"], erasure["video_id"]) for erasure in found if erasure is not None]

    def receipt(self, platform_id: str, video_id: str) -> Document | None:
        """The receipt of the last complete deletion of the video."""
        return self.receipt_of(self._id(platform_id, video_id))

    def receipt_of(self, tombstone_id: str) -> Document | None:
        """As `receipt`. Raises `input_constraint_violated` for what is no id."""
        return self._read(_RECEIPT, f"{RECEIPTS}/{_valid(tombstone_id)}.json")

    def lift(self, platform_id: str, video_id: str) -> bool:
        """Let the video be submitted again; False when it was not deleted. The receipt stays.

        Raises `input_constraint_violated` while its deletion is not complete.
        """
        if self.pending(platform_id, video_id):
            raise TrendFlowError(
                "input_constraint_violated", "The deletion of the video is not complete; repeat it first."
            )
        return self._store.delete(tombstone_key(platform_id, video_id, self._secret))

    def _stop(self, tombstone_ids: Sequence[str]) -> None:
        """Ask all runs of these videos to stop, and give them the time to do so, together."""
        working = []
        for tombstone_id in tombstone_ids:
            self._bury(tombstone_id)
            erasure = self._look(tombstone_id)
            traces = self._traces(erasure["platform_id"], erasure["video_id"])
            traces.cancel_runs()
            working.append(traces)
        waited = 0.0
        while (working := [traces for traces in working if not traces.stop()]) and waited < PATIENCE_S:
            self._wait(_PAUSE_S)
            waited += _PAUSE_S

    def _finish(self, tombstone_id: str) -> Document:
        """Remove and write the receipt. Raises `StillAtWork` when a run has not stopped."""
        erasure = self._look(tombstone_id)
        self._remove(self._traces(erasure["platform_id"], erasure["video_id"]))
        found = erasure["found"]
        receipt = {
            "schema_version": _RECEIPT,
            "tombstone_id": tombstone_id,
            **{name: erasure[name] for name in ("request_id", "reason", "requested_at")},
            "completed_at": self._clock.utc(),
            **found,
        }
        self._store.put(f"{RECEIPTS}/{tombstone_id}.json", self._encode(_RECEIPT, receipt))
        self._store.put(_tombstone(tombstone_id), self._stone(tombstone_id, erasure, found["counts"]))
        self._store.delete(f"{ERASURES}/{tombstone_id}.json")
        return receipt

    @staticmethod
    def _remove(traces: Traces) -> None:
        """Everything, also what was at work without being known to whoever executes runs, and wrote meanwhile."""
        for _ in range(_SWEEPS):
            if not traces.stop():
                break
            traces.remove()
            if not traces.written_since():
                return
        raise StillAtWork.on_a_video()

    def _bury(self, tombstone_id: str) -> None:
        """Put the tombstone up, unless one stands."""
        self._store.put_if_absent(
            _tombstone(tombstone_id), self._stone(tombstone_id, self._request_of(tombstone_id), {})
        )

    def _look(self, tombstone_id: str) -> Document:
        """The request with what there is, noted before anything is removed: a repetition finds less."""
        erasure = self._request_of(tombstone_id)
        if erasure["found"] is not None:
            return erasure
        video = erasure["platform_id"], erasure["video_id"]
        inventory = self._traces(*video).inventory()
        versions = datasets_with(self._store, video)
        erasure["found"] = {
            "counts": inventory.counts,
            "bytes": inventory.size,
            "live_runs": inventory.live_runs,
            "datasets": versions,
            "models": models_of(self._store, versions),
        }
        self._store.put(f"{ERASURES}/{tombstone_id}.json", self._encode(_ERASURE, erasure))
        return erasure

    def _request_of(self, tombstone_id: str) -> Document:
        key = f"{ERASURES}/{tombstone_id}.json"
        found = self._read(_ERASURE, key)
        if found is None:
            raise ObjectNotFound.at(key)
        return found

    def _stone(self, tombstone_id: str, erasure: Document, counts: dict[str, int]) -> bytes:
        stone = {
            "schema_version": _TOMBSTONE,
            "tombstone_id": tombstone_id,
            "deleted_at": erasure["requested_at"],
            "reason": erasure["reason"],
            "counts": counts,
            "request_id": erasure["request_id"],
        }
        return self._encode(_TOMBSTONE, stone)

    def _traces(self, platform_id: str, video_id: str) -> Traces:
        return Traces(self._store, self._schemas, platform_id, video_id, self._clock, self._history, self._executions)

    def _id(self, platform_id: str, video_id: str) -> str:
        return tombstone_key(platform_id, video_id, self._secret).rpartition("/")[2].removesuffix(".json")

    def _encode(self, schema: str, document: Document) -> bytes:
        problems = validate_document(self._schemas, schema, document)
        if problems:
            raise TrendFlowError("input_constraint_violated", f"The deletion is not valid: {problems[0]}")
        return canonical_json(document)

    def _read(self, schema: str, key: str) -> Document | None:
        try:
            document: Document = json.loads(self._store.get(key))
        except ObjectNotFound:
            return None
        except ValueError as exc:
            raise TrendFlowError("artifact_validation_failed", f"The object {key} is not JSON.") from exc
        problems = validate_document(self._schemas, schema, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"The object {key} is not valid: {problems[0]}")
        return document


def _tombstone(tombstone_id: str) -> str:
    return f"{TOMBSTONES}/{tombstone_id}.json"


def _valid(tombstone_id: str) -> str:
    if not _ID.match(tombstone_id):
        raise TrendFlowError("input_constraint_violated", "The id of a deletion is 64 lower-case hex digits.")
    return tombstone_id
