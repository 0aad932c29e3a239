"""The transition rules once more, written out from the specification and sharing no code with the package."""

from __future__ import annotations

COMPONENT_STATES = ("waiting", "running", "success", "empty", "error", "skipped")
RUN_STATES = ("pending", "queued", "running", "recovering", "success", "error", "cancelled")

COMPONENT_ARROWS = {
    ("waiting", "running"),
    ("running", "success"),
    ("running", "empty"),
    ("running", "error"),
    ("waiting", "skipped"),
    ("running", "waiting"),
}
CACHE_ARROWS = {("waiting", "success"), ("waiting", "empty")}
RUN_ARROWS = {
    (None, "pending"),
    ("pending", "queued"),
    ("queued", "running"),
    ("running", "success"),
    ("running", "error"),
    ("running", "cancelled"),
    ("running", "recovering"),
    ("recovering", "running"),
    *((state, end) for state in ("pending", "queued", "recovering") for end in ("cancelled", "error")),
}
ENDS = {"success", "empty", "error", "skipped"}
RUN_ENDS = {"success", "error", "cancelled"}


def processor(components: list[tuple[str, bool]]) -> str:
    """State of a processor from (state, required) of its components: the rows of the table from top to bottom."""
    states = [state for state, _ in components]
    for state, required in components:
        if required and state in ("error", "skipped"):
            return "error"
    started = [state for state in states if state != "waiting"]
    if not started:
        return "waiting"
    if any(state == "running" for state in states) or len(started) < len(states):
        return "running"
    if states.count("success") >= 1:
        return "success"
    if states.count("skipped") == len(states):
        return "skipped"
    return "empty"


class Refused(Exception):
    pass


class NaiveRun:
    """States of one run and its components, moved by the same calls as a `RunManager`."""

    def __init__(self, required: dict[str, bool]) -> None:
        self.required = required
        self.run, self.attempt = "pending", 1
        self.state = dict.fromkeys(required, "waiting")
        self.since = dict.fromkeys(required, 1)  # attempt in which a component came to its state

    def _set(self, name: str, to: str) -> None:
        self.state[name], self.since[name] = to, self.attempt

    def _move_run(self, to: str) -> None:
        if (self.run, to) not in RUN_ARROWS and self.run != to:
            raise Refused
        self.run = to

    def queued(self) -> None:
        self._move_run("queued")

    def begin(self) -> None:
        if self.run == "pending":
            self.run = "queued"
        elif self.run != "queued":
            self.attempt += 1
            for name, state in self.state.items():
                if state not in ("success", "empty", "waiting"):
                    self._set(name, "waiting")
        self.run = "running"

    def started(self, name: str) -> None:
        self._anew(name)
        if self.state[name] == "running":
            return
        if self.run != "running" or (self.state[name], "running") not in COMPONENT_ARROWS:
            raise Refused
        self._set(name, "running")

    def finished(self, name: str, to: str, cached: bool) -> None:
        if cached and self.state[name] == to and self.since[name] < self.attempt:
            return
        self._anew(name)
        if self.state[name] == to:
            return
        arrows = COMPONENT_ARROWS | (CACHE_ARROWS if cached else set())
        if self.run != "running" or (self.state[name], to) not in arrows:
            raise Refused
        self._set(name, to)

    def failed(self, name: str) -> None:
        if self.state[name] == "error" and self.since[name] == self.attempt:
            return
        self.started(name)
        self._set(name, "error")

    def skipped(self, name: str) -> None:
        self._anew(name)
        if self.state[name] == "skipped":
            return
        if self.state[name] != "waiting":
            raise Refused
        self._set(name, "skipped")

    def retried(self, name: str) -> None:
        if self.state[name] not in ("running", "waiting"):
            raise Refused
        self.state[name] = "waiting"

    def succeed(self) -> None:
        bad = any(self.required[name] and state in ("error", "skipped") for name, state in self.state.items())
        if bad or not set(self.state.values()) <= ENDS or self.run not in ("running", "success"):
            raise Refused
        self.run = "success"

    def end_badly(self, to: str) -> None:
        if (self.run, to) not in RUN_ARROWS and self.run != to:
            raise Refused
        for name, state in self.state.items():
            if state in ("waiting", "running"):
                self._set(name, "skipped" if state == "waiting" else "error")
        self.run = to

    def _anew(self, name: str) -> None:
        if self.state[name] in ENDS and self.since[name] < self.attempt and self.run not in RUN_ENDS:
            self._set(name, "waiting")
