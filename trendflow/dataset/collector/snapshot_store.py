"""Collected snapshots in the object store: one small object per video and due time, written once and never changed.

Numbers and metadata lie apart, so that texts have one place: `snapshots/videos_v1`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_video_id
from trendflow.dataset.collector.schedule import TrackedVideo
from trendflow.dataset.snapshots.metadata import platform_metadata
from trendflow.dataset.snapshots.observations import Observations
from trendflow.dataset.snapshots.tables import COUNTERS
from trendflow.dataset.snapshots.values import utc_time
from trendflow.storage.object_store import ObjectNotFound, ObjectStore

PLATFORM = "youtube"
SOURCE = "youtube_data_api_v3"

_TRACKED = f"snapshots/tracked/{PLATFORM}"
_SNAPSHOTS = f"snapshots/snapshots_v1/{PLATFORM}"
_VIDEOS = f"snapshots/videos_v1/{PLATFORM}"
CHANNELS = f"snapshots/channels/{PLATFORM}/of_video"
"""Where `ChannelLookup` keeps the channel of each video it was asked about."""

_VERSION = "collected_v1"
_READERS = 8

Outcome = Literal["observed", "unavailable", "missed"]


class SnapshotStore:
    """What the collector tracks and took. Every write happens at most once per key, whoever comes first.

    `deleted`: (platform_id, video_id) of videos that may not be followed any more, such as `Tombstones`.
    """

    def __init__(self, store: ObjectStore, deleted: Container[tuple[str, str]] = ()) -> None:
        self._store, self._deleted = store, deleted

    def track(self, video_id: str, at: datetime) -> bool:
        """Register a video; False when it is registered already.

        Raises `input_constraint_violated` for a bad id and for a deleted video.
        """
        validate_video_id(PLATFORM, video_id)
        if (PLATFORM, video_id) in self._deleted:
            raise TrendFlowError("input_constraint_violated", "The video was deleted here and is not followed again.")
        return self._store.put_if_absent(f"{_TRACKED}/{video_id}.json", _document(tracked_at=at.isoformat()))

    def unfinished(self, horizons_days: Sequence[int]) -> list[TrackedVideo]:
        """Registered videos, by id, that lack the answer to one of their due times."""
        taken: dict[str, list[int]] = {}
        for info in self._store.list(_SNAPSHOTS):
            taken.setdefault(info.key.split("/")[-2], []).append(_days(info.key))
        wanted = {0, *horizons_days}
        registered = (info.key.split("/")[-1].removesuffix(".json") for info in self._store.list(_TRACKED))
        ids = [video_id for video_id in registered if self._is_open(video_id, wanted - set(taken.get(video_id, ())))]
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(lambda video_id: self._tracked(video_id, taken.get(video_id, ())), ids))

    def add(
        self,
        video_id: str,
        days: int,
        due_at: datetime,
        outcome: Outcome,
        at: datetime,
        counters: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store what was found `at` that time; False when this due time was answered already, which stands.

        The metadata of a first snapshot is kept too, under the names of `METADATA_KEYS`.
        """
        if metadata is not None and days == 0:
            # Before the snapshot, so that no snapshot is ever without it.
            self._store.put_if_absent(
                f"{_VIDEOS}/{video_id}.json", _document(captured_at=at.isoformat(), metadata=metadata)
            )
        numbers = {name: None if value != value else value for name, value in (counters or {}).items()}
        return self._store.put_if_absent(
            _key(video_id, days),
            _document(due_at=due_at.isoformat(), observed_at=at.isoformat(), outcome=outcome, counters=numbers),
        )

    def holds_any(self) -> bool:
        """Whether a snapshot was ever taken, or found impossible to take."""
        return next(iter(self._store.list(_SNAPSHOTS)), None) is not None

    def read_into(self, into: Observations) -> None:
        """Add every stored snapshot that was observed. Raises `artifact_validation_failed` for a damaged object."""
        videos = snapshots = 0
        for video_id, documents in self._observed():
            metadata = platform_metadata(self._read(f"{_VIDEOS}/{video_id}.json")["metadata"], video_id, into)
            into.saw_video(video_id)
            for days, document in documents.items():
                counters = [into.values.counter(document["counters"].get(name), name) for name in COUNTERS]
                # The days as the row: a number that does not change when other videos arrive.
                into.add(video_id, _time(document["observed_at"]), counters, metadata, SOURCE, days)
            videos, snapshots = videos + 1, snapshots + len(documents)
        into.report.sources.append({"name": SOURCE, "records": {"collected": videos}, "snapshots": snapshots})

    def forget(self, video_id: str) -> int:
        """Remove everything about a video; returns how many objects there were."""
        return sum(self._store.delete(key) for key in self.keys_of(video_id))

    def keys_of(self, video_id: str) -> list[str]:
        """Keys of everything about a video, the registration first.

        Removed in this order, a collector at work does not begin anew with a video that is being removed.
        """
        validate_video_id(PLATFORM, video_id)
        single = (f"{root}/{video_id}.json" for root in (_TRACKED, _VIDEOS, CHANNELS))
        taken = (info.key for info in self._store.list(f"{_SNAPSHOTS}/{video_id}"))
        return [*(key for key in single if self._store.exists(key)), *taken]

    def _is_open(self, video_id: str, missing: Collection[int]) -> bool:
        return bool(missing) and (PLATFORM, video_id) not in self._deleted

    def _tracked(self, video_id: str, taken: Iterable[int]) -> TrackedVideo:
        tracked_at = _time(self._read(f"{_TRACKED}/{video_id}.json")["tracked_at"])
        closed = frozenset(taken)
        first = self._read(_key(video_id, 0)) if 0 in closed else None
        t0 = _time(first["observed_at"]) if first is not None and first["outcome"] == "observed" else None
        return TrackedVideo(video_id, tracked_at, t0, closed)

    def _observed(self) -> Iterator[tuple[str, dict[int, dict[str, Any]]]]:
        with ThreadPoolExecutor(_READERS) as readers:
            for video_id in self._store.folders(_SNAPSHOTS):
                if (PLATFORM, video_id) in self._deleted:
                    continue
                keys = [info.key for info in self._store.list(f"{_SNAPSHOTS}/{video_id}")]
                documents = zip(map(_days, keys), readers.map(self._read, keys), strict=True)
                observed = {days: found for days, found in documents if found["outcome"] == "observed"}
                if observed:
                    yield video_id, observed

    def _read(self, key: str) -> dict[str, Any]:
        try:
            document = json.loads(self._store.get(key))
        except ObjectNotFound as exc:
            raise _damaged(key) from exc
        except ValueError as exc:
            raise _damaged(key) from exc
        if not isinstance(document, dict) or document.get("schema_version") != _VERSION:
            raise _damaged(key)
        return document


def _key(video_id: str, days: int) -> str:
    return f"{_SNAPSHOTS}/{video_id}/{days:03d}.json"


def _days(key: str) -> int:
    return int(key.split("/")[-1].removesuffix(".json"))


def _document(**content: Any) -> bytes:
    return canonical_json({"schema_version": _VERSION, **content})


def _time(value: Any) -> datetime:
    found = utc_time(value)
    if found is None:
        raise TrendFlowError("artifact_validation_failed", "A collected object holds no readable time.")
    return found


def _damaged(key: str) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", f"The collected object {key} is missing or not readable.")
