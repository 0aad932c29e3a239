"""The durable inbox: one object per submission, written once.

submissions/<yyyymmdd>/<submission id>.json     the submission
submissions/<yyyymmdd>/<submission id>.taken    level 1 knows all its runs
submissions/_run_ids/<run id>.json              which item of which submission the run is
submissions/_answered/<run path>/<user id>/<submission id>      the run answered that user's submission
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_run_id
from trendflow.contracts.schema import SchemaRegistry
from trendflow.state.clock import Clock
from trendflow.storage.object_store import ObjectInfo, ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted
from trendflow.submission.items import (
    Cached,
    Item,
    New,
    Refused,
    Submission,
    decode_submission,
    path_of,
    submission_day,
)
from trendflow.submission.message import Message

log = logging.getLogger(__name__)

ROOT = "submissions"
_RUN_IDS = f"{ROOT}/_run_ids"
_ANSWERED = f"{ROOT}/_answered"
_WORKERS = 8
# A submission id of yesterday is accepted, and clocks differ: days before these get no further submissions.
_OPEN_DAYS = 2
_RESERVED_LATER = timedelta(days=_OPEN_DAYS)
# Reading and decoding a long list takes tenths of a second, and its runs are asked for one after another.
_DECODED = 16


@dataclass(frozen=True)
class Place:
    """Where the message of a run stands."""

    submission_id: str
    item: int
    run_path: str


class Inbox:
    """Submissions in the store. Any number of processes may put and read; one takes them in (level 1)."""

    def __init__(self, store: ObjectStore, schemas: SchemaRegistry, clock: Clock) -> None:
        self._store, self._schemas, self._clock = store, schemas, clock
        self._finished_days: set[str] = set()
        self._damaged: set[str] = set()
        self._left_out: dict[str, ObjectInfo] = {}
        self._decoded: dict[str, tuple[bytes, Submission]] = {}
        self._decoding = threading.Lock()

    def put(self, submission: Submission) -> Submission:
        """Store it, unless one of the same id stands already; returns what stands. Raises what `encode` does."""
        data = submission.encode(self._schemas)
        if self._store.put_if_absent(_key(submission.submission_id), data):
            return submission
        return self.read(submission.submission_id)

    def get(self, submission_id: str) -> Submission | None:
        """A stored submission. Raises `artifact_validation_failed` for one that is damaged."""
        try:
            return self.read(submission_id)
        except ObjectNotFound:
            return None

    def read(self, submission_id: str) -> Submission:
        """As `get`, but raises `ObjectNotFound`."""
        data = self._store.get(_key(submission_id))
        digest = hashlib.sha256(data).digest()
        with self._decoding:
            known = self._decoded.pop(submission_id, None)
            if known is None or known[0] != digest:  # the deletion of a video changes it
                known = digest, decode_submission(self._schemas, data)
            self._decoded[submission_id] = known
            while len(self._decoded) > _DECODED:
                del self._decoded[next(iter(self._decoded))]  # who was asked for the longest time ago
        return known[1]

    def open(self) -> list[Submission]:
        """Submissions that level 1 does not know yet, in the order of their acceptance.

        A damaged one is left out and logged once: it must not keep the others waiting.
        """
        waiting = [info for info in self._open_infos() if self._left_out.get(info.key) != info]
        with ThreadPoolExecutor(_WORKERS) as readers:
            read = list(readers.map(self.readable, [_submission_id(info.key) for info in waiting]))
        for info in (info for info, submission in zip(waiting, read, strict=True) if submission is None):
            self._left_out[info.key] = info  # until it is repaired
        found = [submission for submission in read if submission is not None]
        return sorted(found, key=lambda submission: (submission.accepted_at, submission.submission_id))

    def recent(self, count: int) -> list[Submission]:
        """Up to `count` submissions, the latest first. A damaged one is left out and logged."""
        found: list[Submission] = []
        for day in sorted(self._days(), reverse=True):
            ids = [_submission_id(info.key) for info in self._store.list(f"{ROOT}/{day}") if _is_submission(info.key)]
            with ThreadPoolExecutor(_WORKERS) as readers:
                readable = [submission for submission in readers.map(self.readable, ids) if submission is not None]
            found += sorted(readable, key=lambda each: (each.accepted_at, each.submission_id), reverse=True)
            if len(found) >= count:
                break
        return found[:count]

    def readable(self, submission_id: str) -> Submission | None:
        """As `get`, but None also for a damaged one, which is logged once."""
        try:
            return self.get(submission_id)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            if submission_id not in self._damaged:
                log.error("the submission %s cannot be read: %s", submission_id, error.error_code)
                self._damaged.add(submission_id)
            return None

    def mark_taken(self, submission_id: str) -> None:
        """Level 1 knows all runs of the submission."""
        self._store.put_if_absent(_taken_key(submission_id), b"{}")

    def claim_run_ids(self, submission: Submission) -> list[str]:
        """Reserve the run ids of the new runs for this submission; returns those that another run has.

        Claiming again for the same submission succeeds, so that one that died in between can be repeated.
        """
        places = [Place(submission.submission_id, item, message.run_path) for item, message in submission.messages]
        with ThreadPoolExecutor(_WORKERS) as writers:
            won = list(writers.map(self._claim, places))
        return [_run_id(place.run_path) for place, mine in zip(places, won, strict=True) if not mine]

    def know(self, place: Place, user_id: str) -> None:
        """Let the run that answers an item of this user be found by its id, and seen by the user whoever made it."""
        self._claim(place)
        self._store.put_if_absent(_answered_key(place.run_path, user_id, place.submission_id), b"{}")

    def may_see(self, user_id: str, run_path: str) -> bool:
        """Whether the run was made for a submission of this user or answered one."""
        place = self.place_of(_run_id(run_path))
        if place is not None and place.run_path == run_path:
            submission = self.readable(place.submission_id)
            if submission is not None and submission.user_id == user_id:
                return True
        return next(iter(self._store.list(_answered_folder(run_path, user_id))), None) is not None

    def place_of(self, run_id: str) -> Place | None:
        """Where the message of a run stands, also of one that ended; None for a run that was never submitted here."""
        validate_run_id(run_id)
        try:
            document = json.loads(self._store.get(_run_id_key(run_id)))
        except ObjectNotFound:
            return None
        return Place(**document)

    def message_of(self, run_id: str) -> Message | None:
        """The message of a run. None when it was never submitted here, or its video was deleted since."""
        place = self.place_of(run_id)
        submission = None if place is None else self.get(place.submission_id)
        if place is None or submission is None:
            return None
        item = submission.items[place.item]
        return item.message if isinstance(item, New) and item.message.identity.run_id == run_id else None

    def forget(self, platform_id: str, video_id: str) -> int:
        """Take everything about a video out of the submissions; returns how many items named it. May be repeated."""
        count = 0
        for key in [info.key for info in self._store.list(ROOT) if _is_submission(info.key)]:
            count += self._forget_in(key, f"{platform_id}/{video_id}/")
        for run_id in self.run_ids_of(platform_id, video_id):  # reserved by submissions that died
            self._store.delete(_run_id_key(run_id))
        self._store.delete_prefix(f"{_ANSWERED}/{platform_id}/{video_id}")
        return count

    def run_ids_of(self, platform_id: str, video_id: str) -> list[str]:
        """Run ids that submissions reserved for a video, sorted; those of submissions that died count too."""
        reserved = [info.key.rpartition("/")[2].removesuffix(".json") for info in self._store.list(_RUN_IDS)]
        with ThreadPoolExecutor(_WORKERS) as readers:
            places = list(readers.map(self.place_of, reserved))
        folder = f"{platform_id}/{video_id}/"
        return sorted(
            run_id
            for run_id, place in zip(reserved, places, strict=True)
            if place is not None and place.run_path.startswith(folder)
        )

    def remove_before(self, day: str) -> int:
        """Remove the submissions of days before `day` (`yyyymmdd`) with the run ids they hold; returns their number."""
        count = 0
        for old in [name for name in self._days() if name < day]:
            for key in [info.key for info in self._store.list(f"{ROOT}/{old}") if _is_submission(info.key)]:
                submission = self.readable(_submission_id(key))
                for item in submission.items if submission else ():
                    self._release(_submission_id(key), item)
                    if submission is not None and isinstance(item, Cached):
                        answered = _answered_key(item.run_path, submission.user_id, submission.submission_id)
                        self._store.delete(answered)
                self._store.delete(key)
                self._store.delete(_taken_key(_submission_id(key)))
                count += 1
        self._release_dead(day)
        return count

    def _release_dead(self, day: str) -> None:
        """Remove the run ids that submissions of days before `day` reserved and did not live to hold."""
        midnight = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        old = [info.key for info in self._store.list(_RUN_IDS) if info.last_modified < midnight + _RESERVED_LATER]
        for key in old:
            place = self.place_of(key.rpartition("/")[2].removesuffix(".json"))
            if place is not None and submission_day(place.submission_id) < day:
                self._store.delete(key)

    def _days(self) -> list[str]:
        return [name for name in self._store.folders(ROOT) if name.isdigit()]

    def _open_infos(self) -> Iterator[ObjectInfo]:
        now = datetime.fromisoformat(self._clock.utc())
        oldest_open = (now - timedelta(days=_OPEN_DAYS)).strftime("%Y%m%d")
        for day in self._days():
            if day in self._finished_days:
                continue
            infos = list(self._store.list(f"{ROOT}/{day}"))
            taken = {_submission_id(info.key) for info in infos if info.key.endswith(".taken")}
            left = [info for info in infos if _is_submission(info.key) and _submission_id(info.key) not in taken]
            if not left and day < oldest_open:
                self._finished_days.add(day)
            yield from left

    def _claim(self, place: Place) -> bool:
        run_id = _run_id(place.run_path)
        data = canonical_json({"submission_id": place.submission_id, "item": place.item, "run_path": place.run_path})
        return self._store.put_if_absent(_run_id_key(run_id), data) or self.place_of(run_id) == place

    def _release(self, submission_id: str, item: Item) -> None:
        """Remove the run id that an item holds; one that another submission holds stays."""
        if isinstance(item, New | Cached):
            run_id = _run_id(item.message.run_path if isinstance(item, New) else item.run_path)
            place = self.place_of(run_id)
            if place is not None and place.submission_id == submission_id:
                self._store.delete(_run_id_key(run_id))

    def _forget_in(self, key: str, folder: str) -> int:
        for _ in ContentionPolicy().attempts():
            try:
                data, etag = self._store.get_with_etag(key)
            except ObjectNotFound:
                return 0
            submission = decode_submission(self._schemas, data)
            named = [(path_of(item) or "").startswith(folder) for item in submission.items]
            if not any(named):
                return 0
            for _, message in submission.messages:
                if message.run_path.startswith(folder):
                    self._store.delete(_run_id_key(message.identity.run_id))
            items = [_DELETED if hit else item for hit, item in zip(named, submission.items, strict=True)]
            if self._store.put_if_match(key, replace(submission, items=items).encode(self._schemas), etag):
                return sum(named)
        raise exhausted(TrendFlowError("storage_unavailable", "A submission stayed contended for too long."))


_DELETED = Refused("input_constraint_violated", "The video was deleted.")


def _key(submission_id: str) -> str:
    return f"{ROOT}/{submission_day(submission_id)}/{submission_id}.json"


def _taken_key(submission_id: str) -> str:
    return f"{ROOT}/{submission_day(submission_id)}/{submission_id}.taken"


def _run_id_key(run_id: str) -> str:
    return f"{_RUN_IDS}/{run_id}.json"


def _answered_folder(run_path: str, user_id: str) -> str:
    return f"{_ANSWERED}/{run_path}/{user_id}"


def _answered_key(run_path: str, user_id: str, submission_id: str) -> str:
    return f"{_answered_folder(run_path, user_id)}/{submission_id}"


def _run_id(run_path: str) -> str:
    return run_path.rpartition("/")[2]


def _submission_id(key: str) -> str:
    return key.rpartition("/")[2].rpartition(".")[0]


def _is_submission(key: str) -> bool:
    folder, _, name = key.removeprefix(f"{ROOT}/").partition("/")
    return folder.isdigit() and name.endswith(".json")
