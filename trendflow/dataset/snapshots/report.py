"""The import report: what was read, and every rule that changed or kept out something."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REPORT_VERSION = "import_report_v1"

RULES: Mapping[str, str] = {
    "record_malformed": "a record is no object, or its id is no video id: kept out",
    "snapshot_malformed": "a snapshot is there but no object: kept out",
    "snapshot_missing": "a numbered snapshot is null or empty: nothing to keep",
    "snapshot_time_bad": "the time of a snapshot is missing or unreadable: kept out",
    "video_without_snapshot": "no snapshot of the video was left: no row",
    "video_deleted": "the video was deleted here: kept out, and named nowhere",
    "counter_bad": "a counter is not a number, or negative: NaN",
    "counter_missing": "a counter is not there: NaN",
    "duplicate_equal": "a second row of the same video and time says the same: the last one stands",
    "duplicate_conflict": "rows of the same video and time contradict each other: all kept out",
    "before_publication": "the snapshot is older than the publication: kept out",
    "publish_time_missing": "no publication time that can be read: kept, refused for training",
    "publish_time_changed": "snapshots name several publication times: that of the first snapshot holds",
    "metadata_bad": "a metadata value has the wrong type or is out of range: missing",
    "text_decoded": "a text held HTML character references or was not NFC: decoded",
    "thumbnails_from_ytdlp": "thumbnails were counted in the list of yt-dlp, the platform's own was not there",
}
"""Every case an import counts, and what happens then."""

LISTED = frozenset(
    {
        "record_malformed",
        "snapshot_malformed",
        "snapshot_time_bad",
        "video_without_snapshot",
        "duplicate_conflict",
        "before_publication",
        "publish_time_missing",
        "publish_time_changed",
    }
)
"""Cases that keep something out of training; the report names each of them."""


@dataclass
class ImportReport:
    """Counts per rule, and the places of those in `LISTED`. No text of any video enters it.

    `sources`: per input `name records snapshots`, and of a table its `ignored_columns` if any. `details`: per rule,
    counts per column where it has columns.
    """

    sources: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    details: dict[str, Counter[str]] = field(default_factory=dict)
    listed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    n_videos: int = 0
    n_snapshots: int = 0

    def add(self, rule: str, where: Mapping[str, Any] | None = None, *, column: str | None = None) -> None:
        """Count one case. `where` is kept for rules that are listed."""
        if rule not in RULES:
            raise ValueError(f"unknown {rule = }")
        self.counts[rule] += 1
        if column is not None:
            self.details.setdefault(rule, Counter())[column] += 1
        if rule in LISTED:
            self.listed.setdefault(rule, []).append(dict(where or {}))

    def as_dict(self) -> dict[str, Any]:
        """Everything in one order, whichever the inputs came in; every rule has a count, 0 included."""
        return {
            "report_version": REPORT_VERSION,
            "n_videos": self.n_videos,
            "n_snapshots": self.n_snapshots,
            "sources": sorted(self.sources, key=_text),
            "counts": {rule: self.counts[rule] for rule in RULES},
            "details": {rule: dict(sorted(found.items())) for rule, found in sorted(self.details.items())},
            "listed": {rule: sorted(found, key=_text) for rule, found in sorted(self.listed.items())},
        }

    def without(self, deleted: Callable[[str], bool]) -> ImportReport:
        """The same report with no place of a video that is `deleted`; counts stay."""
        listed = {
            rule: [where for where in places if "video_id" not in where or not deleted(where["video_id"])]
            for rule, places in self.listed.items()
        }
        return replace(self, counts=Counter(self.counts), listed={rule: kept for rule, kept in listed.items() if kept})

    def to_json(self) -> bytes:
        return (json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ImportReport:
        """The inverse of `as_dict`, of a document that fits the schema `import_report_v1`."""
        return cls(
            sources=list(values["sources"]),
            counts=Counter({rule: n for rule, n in values["counts"].items() if n}),
            details={rule: Counter(found) for rule, found in values["details"].items()},
            listed={rule: list(found) for rule, found in values["listed"].items()},
            n_videos=values["n_videos"],
            n_snapshots=values["n_snapshots"],
        )


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, default=str)
