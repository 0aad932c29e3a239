"""Tells callers of runs that ended: finds them in level 1, sends, and notes in the store what became of it.

state/<platform_id>/<video_id>/<run_id>/webhooks/<event id>.json     the tries and how they ended

Delivery is at least once: a process that dies while it tries begins anew after its restart. The event id follows from
the event, so receivers recognise what they have seen.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio
from anyio.abc import TaskGroup

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.service.webhook_sender import WebhookSender
from trendflow.state.layout import run_folder
from trendflow.state.status import status_document
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.inbox import Inbox

log = logging.getLogger(__name__)

STAGE_CHANGES = "callback_on_stage"
"""Entry of a request's metadata: true when changes of the stage are told as well."""

_EVENTS = uuid.UUID("0d7f3c52-6a2b-5f0e-9c55-7a3b2f1d9e64")  # namespace of event ids
_LOOK_BACK = timedelta(days=1)
_AT_ONCE = 8


@dataclass(frozen=True)
class Notice:
    """Something to tell about a run: `what` ∈ terminal statuses, or `stage:<name>`."""

    run_path: str
    what: str
    at: str

    @property
    def event_id(self) -> str:
        return str(uuid.uuid5(_EVENTS, f"{self.run_path}/{self.what}/{self.at}"))

    @property
    def record_key(self) -> str:
        return f"{run_folder(self.run_path)}/webhooks/{self.event_id}.json"


class _NotYet(Exception):
    """Look again later."""


class WebhookDispatch:
    """One per deployment, in a process of the service."""

    def __init__(self, store: ObjectStore, states: StateStore, inbox: Inbox, sender: WebhookSender) -> None:
        self._store, self._states, self._inbox, self._sender = store, states, inbox, sender
        self._handled: set[Notice] = set()
        self._wants_stages: dict[str, bool] = {}
        self._places = anyio.Semaphore(_AT_ONCE)

    async def run(self, every_sec: float = 2.0) -> None:
        """Look and send until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    await self.look(tasks)
                except TrendFlowError as error:  # an outage of the store ends no deliveries and not this loop
                    log.warning("looking for webhooks to send failed: %s", error.error_code)
                await anyio.sleep(every_sec)

    async def look(self, tasks: TaskGroup) -> None:
        """Begin to send everything that is due and was not handled yet."""
        runs = (await anyio.to_thread.run_sync(self._states.read_global))["runs"]
        notices = await anyio.to_thread.run_sync(lambda: set(self._due(runs)))
        self._handled &= notices
        self._wants_stages = {path: wants for path, wants in self._wants_stages.items() if path in runs}
        for notice in sorted(notices - self._handled, key=lambda due: due.at):
            try:
                found = await anyio.to_thread.run_sync(self._letter, notice)
            except _NotYet:
                continue
            except TrendFlowError as error:
                if error.error_class == "transient":
                    raise
                log.warning("a webhook cannot be written: %s", error.error_code)  # and the others must not wait for it
                found = None
            except Exception as error:  # a bug in one letter must not end the deliveries of all others
                log.error("a webhook cannot be written: unexpected %s", type(error).__name__)
                found = None
            self._handled.add(notice)
            if found is not None:
                tasks.start_soon(self._send, notice, *found)

    def _due(self, runs: Mapping[str, Any]) -> Iterator[Notice]:
        oldest = datetime.fromisoformat(self._states.clock.utc()) - _LOOK_BACK
        for path, row in runs.items():
            if row["status"] in RUN_END:
                if datetime.fromisoformat(row["finished_at"]) >= oldest:
                    yield Notice(path, row["status"], row["finished_at"])
            elif row["started_at"] is not None:
                stage = self._stage(path)
                if stage is not None:
                    yield Notice(path, f"stage:{stage}", row["started_at"])

    def _stage(self, run_path: str) -> str | None:
        """The stage of a run at work whose caller wants to be told; its own log has it, level 1 only how it began."""
        try:
            if run_path not in self._wants_stages:
                message = self._inbox.message_of(run_path.rpartition("/")[2])
                self._wants_stages[run_path] = message is not None and message.metadata.get(STAGE_CHANGES) is True
            view = self._states.read_run(run_path) if self._wants_stages[run_path] else None
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            log.warning("the stages of a run cannot be told: %s", error.error_code)
        except Exception as error:  # a bug in one run must not end the deliveries of all others
            log.error("the stages of a run cannot be told: unexpected %s", type(error).__name__)
        else:
            return None if view is None else str(view.run["stage"])
        self._wants_stages[run_path] = False
        return None

    def _letter(self, notice: Notice) -> tuple[str, bytes] | None:
        """Address and body, None when nobody wants to know or was told already.

        Raises `_NotYet` while the log of the run does not say what level 1 says: the letter would contradict itself.
        """
        message = self._inbox.message_of(notice.run_path.rpartition("/")[2])
        if message is None or message.callback_url is None or message.run_path != notice.run_path:
            return None
        view = self._states.read_run(notice.run_path)
        if view is None or self._store.exists(notice.record_key):
            return None
        if notice.what in RUN_END and view.run["status"] not in RUN_END:
            raise _NotYet
        document = status_document(view)
        del document["progress"]["components"]
        letter = {**document, "event_id": notice.event_id, "ts": self._states.clock.utc()}
        return message.callback_url, canonical_json(letter)

    def _record(self, notice: Notice, record: bytes) -> None:
        """Nothing is left of a video that was deleted while the message was on its way."""
        if self._states.read_run(notice.run_path) is not None:
            self._store.put(notice.record_key, record)

    async def _send(self, notice: Notice, url: str, body: bytes) -> None:
        async with self._places:
            attempts = await self._sender.send(url, body)
        delivered = attempts[-1].error_code is None
        record = {
            "event_id": notice.event_id,
            "event": notice.what,
            "delivered": delivered,
            "attempts": [asdict(attempt) for attempt in attempts],
        }
        if not delivered:
            log.warning("a webhook could not be delivered: %s", attempts[-1].error_code)
        try:
            await anyio.to_thread.run_sync(self._record, notice, canonical_json(record))
        except TrendFlowError as error:  # it was sent; without the record it may be sent again after a restart
            log.warning("a webhook could not be recorded: %s", error.error_code)
