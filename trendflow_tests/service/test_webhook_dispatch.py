"""Which letters are sent, to whom, and what is noted of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.webhook_dispatch import WebhookDispatch
from trendflow.service.webhook_sender import Attempt, WebhookSender
from trendflow.submission.message import Message
from trendflow_tests.service.deployment import begun_run
from trendflow_tests.state.runs import FixedClock
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

SECRET = b"a key that only this test has"
NOW = "2026-01-02T00:00:00.000Z"  # of `FixedClock`


class Letters(WebhookSender):
    """Keeps what it should send."""

    def __init__(self, outcome: Attempt) -> None:
        super().__init__(SECRET, FixedClock())
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._outcome = outcome

    async def send(self, url: str, body: bytes) -> list[Attempt]:
        self.sent.append((url, json.loads(body)))
        return [self._outcome]


def looked(*dispatches: WebhookDispatch) -> None:
    """Each dispatch looks once and finishes what it begins."""

    async def look(dispatch: WebhookDispatch) -> None:
        async with anyio.create_task_group() as tasks:
            await dispatch.look(tasks)

    for dispatch in dispatches:
        anyio.run(look, dispatch)


def ended_run(
    behind: Deployment, name: str = "hook", video: int = 1, host: str = "hooks.example.org", **metadata: Any
) -> tuple[str, Callable[[], None]]:
    """A running run with a callback; the second value ends it."""
    message = draft(name, 0, video, callback_url=f"https://{host}/done", metadata=metadata)
    behind.desk.submit(submission_id(name), USER, [message])
    manager = begun_run(behind, message)

    def end() -> None:
        manager.fail(TrendFlowError("timeout", "The run took too long."))
        behind.level1()[1].run_status(message.run_path, "error")

    return message.run_path, end


@pytest.mark.parametrize(
    "outcome",
    [Attempt("2026-01-02T00:00:00.000Z", 204, None), Attempt("2026-01-02T00:00:00.000Z", 500, "network_error")],
)
def test_the_end_of_a_run_is_told_once_and_recorded(outcome: Attempt) -> None:
    behind = Deployment()
    path, end = ended_run(behind)
    letters = Letters(outcome)
    first = WebhookDispatch(behind.store, behind.states, behind.inbox, letters)
    looked(first)
    assert letters.sent == []  # nobody asked for stages
    before = behind.states.events(path)
    end()
    after_end = behind.states.events(path)
    restarted = WebhookDispatch(behind.store, behind.states, behind.inbox, letters)
    looked(first, first, restarted)
    ((url, letter),) = letters.sent
    assert url == "https://hooks.example.org/done"
    assert (letter["status"], letter["error_code"]) == ("error", "timeout")
    assert "components" not in letter["progress"]
    (key,) = [info.key for info in behind.store.list(f"state/{path}/webhooks")]
    record = json.loads(behind.store.get(key))
    assert record["event_id"] == letter["event_id"]
    assert record["delivered"] is (outcome.error_code is None)
    assert record["attempts"] == [
        {"ts": outcome.ts, "http_status": outcome.http_status, "error_code": outcome.error_code}
    ]
    assert len(before) < len(after_end) == len(behind.states.events(path))  # the run itself was left alone


def test_nothing_is_noted_of_a_run_that_was_deleted_while_its_letter_was_on_its_way() -> None:
    behind = Deployment()
    path, end = ended_run(behind)
    end()

    class Slow(Letters):
        async def send(self, url: str, body: bytes) -> list[Attempt]:
            behind.store.delete_prefix(f"state/{path}")
            return await super().send(url, body)

    letters = Slow(Attempt("2026-01-02T00:00:00.000Z", 204, None))
    looked(WebhookDispatch(behind.store, behind.states, behind.inbox, letters))
    assert len(letters.sent) == 1
    assert list(behind.store.list(f"state/{path}")) == []


def test_stages_are_told_to_who_asks() -> None:
    behind = Deployment()
    message = draft("a", 0, 1, callback_url="https://hooks.example.org/done", metadata={"callback_on_stage": True})
    behind.desk.submit(submission_id("a"), USER, [message])
    manager = begun_run(behind, message)
    letters = Letters(Attempt(NOW, 204, None))
    dispatch = WebhookDispatch(behind.store, behind.states, behind.inbox, letters)
    looked(dispatch, dispatch)
    assert told(letters) == [("running", "ingest")]
    for component, stage in (("segmenter", "segmenter"), ("core_clip", "visual")):
        manager.component_started(component, owner="worker-1")
        looked(dispatch, dispatch, WebhookDispatch(behind.store, behind.states, behind.inbox, letters))
        assert told(letters)[-1] == ("running", stage)
    manager.fail(TrendFlowError("timeout", "The run took too long."))
    behind.level1()[1].run_status(message.run_path, "error")
    looked(dispatch)
    assert told(letters)[-1] == ("error", "visual")
    assert len(letters.sent) == len({letter["event_id"] for _, letter in letters.sent}) == 4


def told(letters: Letters) -> list[tuple[str, str]]:
    return [(letter["status"], letter["stage"]) for _, letter in letters.sent]


def test_one_bad_letter_leaves_the_others_running() -> None:
    """The first address breaks the search for its host in a way that nobody foresaw; the second one is refused."""
    behind = Deployment()
    runs = [ended_run(behind, f"hook-{number}", number, f"host-{number}.example.org") for number in (1, 2)]
    for _, end in runs:
        end()

    def resolver(host: str, port: int) -> list[str]:
        if host == "host-1.example.org":
            raise RuntimeError("nobody foresaw this")
        return ["127.0.0.1"]

    sender = WebhookSender(SECRET, FixedClock(), resolver=resolver)
    looked(WebhookDispatch(behind.store, behind.states, behind.inbox, sender))
    codes = []
    for path, _ in runs:
        (key,) = [info.key for info in behind.store.list(f"state/{path}/webhooks")]
        (attempt,) = json.loads(behind.store.get(key))["attempts"]
        codes.append(attempt["error_code"])
    assert codes == ["internal_error", "input_constraint_violated"]


def test_a_letter_that_cannot_be_written_leaves_the_others_running(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = Deployment()
    runs = [ended_run(behind, f"hook-{number}", number) for number in (1, 2)]
    for _, end in runs:
        end()
    known = behind.inbox.message_of

    def message_of(run_id: str) -> Message | None:
        if runs[0][0].endswith(run_id):
            raise RuntimeError("nobody foresaw this")
        return known(run_id)

    monkeypatch.setattr(behind.inbox, "message_of", message_of)
    letters = Letters(Attempt(NOW, 204, None))
    looked(WebhookDispatch(behind.store, behind.states, behind.inbox, letters))
    assert [letter["run_id"] for _, letter in letters.sent] == [runs[1][0].rpartition("/")[2]]
