"""JSON shards, forms A, B and C: `{video_id: {metadata, snapshot_0 …}}` or `{video_id: {metadata, snapshots: […]}}`.

Shards are read as a stream of events. Only the keys named here are ever built into values: comments, which can be most
of a shard, pass by unread.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import ijson
from ijson.common import ObjectBuilder

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.metadata import METADATA_KEYS, platform_metadata
from trendflow.dataset.snapshots.observations import Metadata, Observations, is_video_id
from trendflow.dataset.snapshots.tables import COUNTERS
from trendflow.dataset.snapshots.values import time_get

_COUNTER_KEYS = dict(
    zip(
        ("viewCount", "likeCount", "commentCount", "subscriberCount", "viewCount_channel", "videoCount"),
        COUNTERS,
        strict=True,
    )
)
_SNAPSHOT_KEYS = frozenset({"time_get", *_COUNTER_KEYS})
_NUMBERED = re.compile(r"snapshot_[0-9]{1,3}\Z")
_LIST = "snapshots"

Event = tuple[str, Any]


def read_json_shard(file: BinaryIO, name: str, into: Observations) -> None:
    """Add the snapshots of one shard.

    Raises `artifact_validation_failed` when the file is not one JSON object; nothing is imported of half a shard,
    since the caller gives up with it.
    """
    report = into.report
    forms: Counter[str] = Counter()
    row = 0
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:  # which some programs begin a text with
        file.seek(0)
    try:
        for video_id, record in stream_records(file):
            where = {"source": name, "record": sum(forms.values())}
            if not is_video_id(video_id) or not isinstance(record, dict):
                forms["malformed"] += 1
                report.add("record_malformed", where)
                continue
            into.saw_video(video_id)
            metadata = platform_metadata(record.get("metadata"), video_id, into)
            entries = _entries(record)
            forms[_form(record)] += 1
            for position, entry in enumerate(entries, row):
                _add(entry, video_id, metadata, (name, position), into)
            row += len(entries)
    except (ijson.JSONError, UnicodeDecodeError):
        # Without the cause: a parser quotes the text around the fault.
        raise TrendFlowError(
            "artifact_validation_failed",
            f"{name} is not one JSON object in UTF-8, or it is cut off, after {sum(forms.values())} whole records.",
        ) from None
    report.sources.append({"name": name, "records": dict(sorted(forms.items())), "snapshots": row})


def stream_records(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Pairs of video id and record, the record cut down to the keys that are used. Holds one record at a time.

    Raises ijson.JSONError for broken JSON, and for a file that is no object.
    """
    events = ijson.basic_parse(file)
    if next(events, None) != ("start_map", None):
        raise ijson.JSONError("not an object")
    for event, video_id in events:
        if event == "map_key":
            yield video_id, _read(events, {"metadata": METADATA_KEYS, _LIST: _SNAPSHOT_KEYS})


def _read(events: Iterator[Event], parts: Mapping[str, frozenset[str]]) -> Any:
    """One record: its parts with their known keys."""
    event, value = next(events)
    if event != "start_map":
        _skip(events, event)
        return value
    record: dict[str, Any] = {}
    for event, key in events:
        if event == "end_map":
            break
        keys = _SNAPSHOT_KEYS if _NUMBERED.match(key) else parts.get(key)
        if keys is None:
            _skip(events, next(events)[0])
        else:
            record[key] = _part(events, next(events), keys)
    return record


def _part(events: Iterator[Event], start: Event, keys: frozenset[str]) -> Any:
    """An object with only `keys`, or a list of such; another value as it is."""
    if start[0] != "start_array":
        return _object(events, start, keys)
    items = []
    for item in events:
        if item[0] == "end_array":
            break
        items.append(_object(events, item, keys))
    return items


def _object(events: Iterator[Event], start: Event, keys: frozenset[str]) -> Any:
    event, value = start
    if event != "start_map":
        _skip(events, event)  # a list inside a list is no snapshot
        return _LIST if event == "start_array" else value
    found: dict[str, Any] = {}
    for event, key in events:
        if event == "end_map":
            break
        if key in keys:
            found[key] = _whole(events, next(events))
        else:
            _skip(events, next(events)[0])
    return found


def _whole(events: Iterator[Event], start: Event) -> Any:
    if not start[0].startswith("start_"):
        return start[1]
    builder = ObjectBuilder()
    builder.event(*start)
    depth = 1
    while depth:
        event, value = next(events)
        builder.event(event, value)
        depth += _DEPTH.get(event, 0)
    return builder.value


_DEPTH = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}


def _skip(events: Iterator[Event], event: str) -> None:
    """Pass by the value that begins with `event`."""
    depth = _DEPTH.get(event, 0)
    while depth:
        depth += _DEPTH.get(next(events)[0], 0)


def _entries(record: Mapping[str, Any]) -> list[Any]:
    """The snapshots of a record. Their numbers mean nothing; times do."""
    listed = record.get(_LIST)
    entries = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return [*(value for key, value in record.items() if key not in (_LIST, "metadata")), *entries]


def _form(record: Mapping[str, Any]) -> str:
    if _LIST in record:
        return "B"
    return "C" if [key for key, value in record.items() if key != "metadata" and value] == ["snapshot_0"] else "A"


def _add(entry: Any, video_id: str, metadata: Metadata, place: tuple[str, int], into: Observations) -> None:
    source, row = place
    where = {"video_id": video_id, "source": source, "source_row": row}
    if entry is None or entry == {}:
        into.report.add("snapshot_missing")
    elif not isinstance(entry, dict):
        into.report.add("snapshot_malformed", where)
    elif (time := time_get(entry.get("time_get"))) is None:
        into.report.add("snapshot_time_bad", where)
    else:
        counters = [into.values.counter(entry.get(key), column) for key, column in _COUNTER_KEYS.items()]
        into.add(video_id, time, counters, metadata, source, row)
