"""Accepting submissions: what is new, what is answered by a run that exists, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.run_index import IndexedRun, RunIndex
from trendflow.submission.admission import Admission, SubmissionLimits
from trendflow.submission.drafts import Draft
from trendflow.submission.inbox import Inbox, Place
from trendflow.submission.items import (
    Cached,
    Duplicate,
    Exists,
    Item,
    New,
    Refused,
    Submission,
    minted_run_id,
    path_of,
    submission_day,
)
from trendflow.submission.message import Message

WAITING = ("pending", "queued")
_CLOCK_SKEW = timedelta(days=1)
_READERS = 8
_DELETED = Refused("input_constraint_violated", "The video was deleted here and is not processed again.")


@dataclass(frozen=True)
class _Found:
    """What the store says about a draft."""

    run_id_taken: bool
    success: IndexedRun | None


class SubmissionDesk:
    """Accepts submissions from any number of threads and processes at once.

    `deleted()` gives the (platform_id, video_id) that may not come back, such as `Tombstones`. It is asked before and
    after a submission is stored: a deletion refuses the video before it removes anything, so one sees the other.
    """

    def __init__(
        self,
        store: ObjectStore,
        states: StateStore,
        inbox: Inbox,
        admission: Admission,
        *,
        limits: SubmissionLimits | None = None,
        deleted: Callable[[], Container[tuple[str, str]]] = frozenset,
    ) -> None:
        self._states, self._inbox, self._admission = states, inbox, admission
        self._limits, self._deleted = limits or SubmissionLimits(), deleted
        self._results, self._index = ResultStore(store), RunIndex(store)

    def submit(
        self,
        submission_id: str,
        user_id: str,
        drafts: Sequence[Draft],
        *,
        cache_ttl_days: float | None = None,
    ) -> Submission:
        """Accept a submission and return what became of its items.

        The same submission again gets the same answer and changes nothing. Raises `NotNow` when new runs cannot be
        taken, `input_constraint_violated` for a bad id, no items, another user's message, or an id under which
        something else was submitted before.
        """
        digest = _digest(user_id, drafts)
        standing = self._inbox.get(submission_id)
        if standing is None:
            now = self._states.clock.utc()
            _require_fit(submission_id, user_id, drafts, now)
            ttl = timedelta(days=self._limits.cache_ttl_days if cache_ttl_days is None else cache_ttl_days)
            while True:
                items = self._decide(submission_id, drafts, datetime.fromisoformat(now) - ttl)
                made = Submission(submission_id, user_id, now, digest, items)
                if made.messages:
                    self._admission.require(self.waiting(), len(made.messages))
                lost = self._inbox.claim_run_ids(made)
                if not lost:
                    break
                minted = {minted_run_id(submission_id, place) for place in range(len(drafts))}
                if minted & set(lost):  # an attempt under this id died, and was about other videos
                    raise _another_submission()
                # What another submission reserved meanwhile is taken when we look again.
            standing = self._without_deleted(self._inbox.put(made))
        if standing.request_digest != digest:
            raise _another_submission()
        return standing

    def _without_deleted(self, submission: Submission) -> Submission:
        """The submission as it stands, without the videos that were deleted while it was decided."""
        deleted = self._deleted()
        paths = (path_of(item) for item in submission.items)
        named = {(platform_id, video_id) for platform_id, video_id, _ in (path.split("/") for path in paths if path)}
        gone = [video for video in sorted(named) if video in deleted]
        for video in gone:
            self._inbox.forget(*video)
        return self._inbox.read(submission.submission_id) if gone else submission

    def waiting(self) -> int:
        """Length of the queue: runs that wait in level 1, and accepted ones that level 1 does not know yet."""
        runs = self._states.read_global()["runs"]
        known = sum(row["status"] in WAITING for row in runs.values())
        unknown = sum(
            message.run_path not in runs for submission in self._inbox.open() for _, message in submission.messages
        )
        return known + unknown

    def _decide(self, submission_id: str, drafts: Sequence[Draft], fresh_since: datetime) -> tuple[Item, ...]:
        deleted = self._deleted()
        with ThreadPoolExecutor(_READERS) as readers:
            places = range(len(drafts))
            found = list(readers.map(self._look_up, [submission_id] * len(drafts), places, drafts))
        first: dict[RunIdentity, tuple[int, str]] = {}
        run_ids: set[str] = set()
        items: list[Item] = []
        for place, (draft, known) in enumerate(zip(drafts, found, strict=True)):
            if isinstance(draft, TrendFlowError):
                items.append(Refused(draft.error_code, draft.message))
                continue
            identity, same = draft.identity, _without_run(draft.identity)
            if (identity.platform_id, identity.video_id) in deleted:
                items.append(_DELETED)
            elif known.run_id_taken or identity.run_id in run_ids:
                items.append(Exists(identity.run_id))
            elif same in first:
                items.append(Duplicate(*first[same]))
            elif known.success is not None and datetime.fromisoformat(known.success.finished_at) >= fresh_since:
                run_path = f"{identity.platform_id}/{identity.video_id}/{known.success.run_id}"
                first[same] = place, run_path
                items.append(Cached(run_path, known.success.finished_at))
            else:
                first[same] = place, draft.run_path
                run_ids.add(identity.run_id)
                items.append(New(draft))
        return tuple(items)

    def _look_up(self, submission_id: str, place: int, draft: Draft) -> _Found:
        if isinstance(draft, TrendFlowError):
            return _Found(False, None)
        identity = draft.identity
        success = None if draft.force_recompute else self._index.latest(identity)
        # The id that follows from the submission and the place belongs to nobody else.
        minted = identity.run_id == minted_run_id(submission_id, place)
        taken = not minted and self._is_taken(Place(submission_id, place, identity.run_path), identity)
        return _Found(taken, success)

    def _is_taken(self, place: Place, identity: RunIdentity) -> bool:
        """Whether another item has the run id, or the run was made on another way than by a submission."""
        holder = self._inbox.place_of(identity.run_id)
        if holder is not None:
            return holder != place
        return self._results.read_manifest(identity.run_path) is not None


def _require_fit(submission_id: str, user_id: str, drafts: Sequence[Draft], now: str) -> None:
    day = datetime.strptime(submission_day(submission_id), "%Y%m%d").date()
    if abs(day - datetime.fromisoformat(now).date()) > _CLOCK_SKEW:
        raise TrendFlowError("input_constraint_violated", "A submission id begins with the day of the submission.")
    if not drafts:
        raise TrendFlowError("input_constraint_violated", "A submission has at least one item.")
    if any(draft.user_id != user_id for draft in drafts if isinstance(draft, Message)):
        raise TrendFlowError("input_constraint_violated", "A submission holds messages of one user only.")


def _another_submission() -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", "Something else was submitted under this id before.")


def _digest(user_id: str, drafts: Sequence[Draft]) -> str:
    asked = [draft.as_dict() if isinstance(draft, Message) else draft.error_code for draft in drafts]
    return digest_of({"user_id": user_id, "items": asked})


def _without_run(identity: RunIdentity) -> RunIdentity:
    """What two runs of the same video in the same configuration have in common."""
    return replace(identity, run_id="any")
