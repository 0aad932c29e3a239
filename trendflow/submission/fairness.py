"""Whose turn it is: the urgent first, and nobody passed over for ever."""

from __future__ import annotations

import json
from collections.abc import Mapping

from trendflow.contracts.canonical import canonical_json
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.submission.message import PRIORITIES, Priority

_KEY = "submissions/_turns.json"
_PATIENCE: Mapping[Priority, int] = {"low": 9, "normal": 8}
"""How many messages of other classes may go before one of this class that waits.

Low is thereby served at least every tenth message, and so is normal: were their turns to fall together, the one place
of difference lets both be in time.
"""


class Turns:
    """Chooses the class that is served next. FIFO inside a class is the caller's.

    `passed`: how many messages of other classes went since the last one of each, while one waited; what `served`
    leaves in it is to be kept over restarts. Without it every class counts as having waited for its turn, so that the
    promise holds whatever went before.
    """

    def __init__(self, passed: Mapping[Priority, int] = _PATIENCE) -> None:
        self.passed = {name: max(0, passed.get(name, most)) for name, most in _PATIENCE.items()}

    def copy(self) -> Turns:
        """The same turns, to look ahead with."""
        return Turns(self.passed)

    def next(self, waiting: Mapping[Priority, int]) -> Priority | None:
        """The class to be served, None when nobody waits. `waiting` counts messages by class."""
        overdue = [name for name in _PATIENCE if waiting.get(name) and self.passed[name] >= _PATIENCE[name]]
        present = [name for name in PRIORITIES if waiting.get(name)]
        return next(iter([*overdue, *present]), None)

    def served(self, chosen: Priority, waiting: Mapping[Priority, int]) -> None:
        """One message of `chosen` was served while `waiting` (with it) waited."""
        for name in _PATIENCE:
            passed_over = name != chosen and waiting.get(name)
            self.passed[name] = self.passed[name] + 1 if passed_over else 0


def kept_turns(store: ObjectStore) -> Turns:
    """The turns that the process before this one kept; fresh ones where there are none or they cannot be read."""
    try:
        passed = json.loads(store.get(_KEY))
    except (ObjectNotFound, ValueError):
        return Turns()
    readable = isinstance(passed, dict) and all(type(count) is int for count in passed.values())
    return Turns(passed) if readable else Turns()


def keep_turns(store: ObjectStore, turns: Turns) -> None:
    """Keep the turns for the next process."""
    store.put(_KEY, canonical_json(turns.passed))
