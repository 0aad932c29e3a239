"""What is to be removed and why: the common language of all rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, get_args

from trendflow.storage.object_store import ObjectInfo

Reason = Literal[
    "deleted_video", "derived", "frames", "raw_text", "render_cache", "state", "orphans", "index", "tables"
]
REASONS: tuple[str, ...] = get_args(Reason)


@dataclass(frozen=True)
class Removal:
    """One object as it was seen. An object that is another by now is no longer meant."""

    reason: Reason
    key: str
    size: int
    last_modified: datetime

    @classmethod
    def of(cls, reason: Reason, info: ObjectInfo) -> Removal:
        return cls(reason, info.key, info.size, info.last_modified)


class Rule(Protocol):
    """Finds what is to be removed, scope by scope.

    A scope is judged twice: when everything is planned and again right before its objects are removed. What both
    judgements name is removed, so no removal rests on a manifest that was read before the planning ended.
    """

    def scopes(self) -> Iterable[str]:
        """What is judged by itself, in a fixed order."""
        ...

    def removals(self, scope: str, gone: frozenset[str] = frozenset()) -> Iterator[Removal]:
        """Objects to remove, in the order of removal. `gone`: run paths that count as removed already."""
        ...
