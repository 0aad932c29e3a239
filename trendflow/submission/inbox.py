"""The durable inbox: one object per submission, written once.

submissions/<yyyymmdd>/<submission id>.json     the submission
submissions/<yyyymmdd>/<submission id>.taken    level 1 knows all its runs
submissions/_run_ids/<run id>.json              which item of which submission the run is
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_run_id
from trendflow.contracts.schema import SchemaRegistry
from trendflow.state.clock import Clock
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted
from trendflow.submission.items import Cached, Item, New, Refused, Submission, decode_submission, submission_day
from trendflow.submission.message import Message

log = logging.getLogger(__name__)

ROOT = "submissions"
_RUN_IDS = f"{ROOT}/_run_ids"
_WORKERS = 8
# A submission id of yesterday is accepted, and clocks differ: days before these get no further submissions.
_OPEN_DAYS = 2


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

    def put(self, submission: Submission) -> Submission:
        """Store it, unless one of the same id stands already; returns what stands."""
        data = submission.encode()
        # What cannot be read back must not be stored: the reader would find it for ever.
        decode_submission(self._schemas, data)
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
        return decode_submission(self._schemas, self._store.get(_key(submission_id)))

    def open(self) -> list[Submission]:
        """Submissions that level 1 does not know yet, in the order of their acceptance.

        A damaged one is left out and logged once: it must not keep the others waiting.
        """
        waiting = list(self._open_ids())
        with ThreadPoolExecutor(_WORKERS) as readers:
            found = [submission for submission in readers.map(self.readable, waiting) if submission is not None]
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

    def know(self, place: Place) -> None:
        """Let a run that answers an item, and was made on another way than by a submission, be found by its id."""
        self._claim(place)

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
                self._store.delete(key)
                self._store.delete(_taken_key(_submission_id(key)))
                count += 1
        return count

    def _days(self) -> list[str]:
        return [name for name in self._store.folders(ROOT) if name.isdigit()]

    def _open_ids(self) -> Iterator[str]:
        now = datetime.fromisoformat(self._clock.utc())
        oldest_open = (now - timedelta(days=_OPEN_DAYS)).strftime("%Y%m%d")
        for day in self._days():
            if day in self._finished_days:
                continue
            names = [info.key for info in self._store.list(f"{ROOT}/{day}")]
            taken = {_submission_id(key) for key in names if key.endswith(".taken")}
            left = [name for key in names if _is_submission(key) and (name := _submission_id(key)) not in taken]
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
            run_id = _run_id(_path_of(item))
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
            named = [_path_of(item).startswith(folder) for item in submission.items]
            if not any(named):
                return 0
            for _, message in submission.messages:
                if message.run_path.startswith(folder):
                    self._store.delete(_run_id_key(message.identity.run_id))
            items = [_DELETED if hit else item for hit, item in zip(named, submission.items, strict=True)]
            if self._store.put_if_match(key, replace(submission, items=items).encode(), etag):
                return sum(named)
        raise exhausted(TrendFlowError("storage_unavailable", "A submission stayed contended for too long."))


_DELETED = Refused("input_constraint_violated", "The video was deleted.")


def _path_of(item: Item) -> str:
    if isinstance(item, New):
        return item.message.run_path
    return getattr(item, "run_path", "")


def _key(submission_id: str) -> str:
    return f"{ROOT}/{submission_day(submission_id)}/{submission_id}.json"


def _taken_key(submission_id: str) -> str:
    return f"{ROOT}/{submission_day(submission_id)}/{submission_id}.taken"


def _run_id_key(run_id: str) -> str:
    return f"{_RUN_IDS}/{run_id}.json"


def _run_id(run_path: str) -> str:
    return run_path.rpartition("/")[2]


def _submission_id(key: str) -> str:
    return key.rpartition("/")[2].rpartition(".")[0]


def _is_submission(key: str) -> bool:
    folder, _, name = key.removeprefix(f"{ROOT}/").partition("/")
    return folder.isdigit() and name.endswith(".json")
