"""The inbox: what lies in it, in which order it is read, and how it is emptied."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import Any

import pytest
from jsonschema.protocols import Validator

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.submission.inbox import Inbox, Place
from trendflow.submission.items import New, Refused, decode_submission, minted_run_id, new_submission_id, submission_day
from trendflow.submission.message import Message
from trendflow_tests.state.runs import SCHEMAS, BreakingStore, Crash
from trendflow_tests.submission.desks import DAY, USER, Deployment, draft, submission_id, video_id

DAY_SEC = 24 * 3600.0


def put(deployment: Deployment, name: str, seconds: float, *drafts: Message) -> None:
    deployment.clock.seconds = seconds
    deployment.desk.submit(submission_id(name), USER, drafts)


def test_one_object_per_submission_under_its_day() -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1), draft("a", 1, 2))
    keys = [info.key for info in deployment.store.list("submissions") if "/_" not in info.key]
    assert keys == [f"submissions/{DAY}/{DAY}-a.json"]
    stored = json.loads(deployment.store.get(keys[0]))
    assert [item["message"]["video_id"] for item in stored["items"]] == [video_id(1), video_id(2)]
    assert deployment.inbox.message_of(minted_run_id(submission_id("a"), 1)) == draft("a", 1, 2)
    assert deployment.inbox.message_of("unknown") is None


def test_after_midnight_a_submission_is_still_the_same() -> None:
    deployment = Deployment()
    put(deployment, "a", DAY_SEC - 1, draft("a", 0, 1))
    first = deployment.inbox.open()
    put(deployment, "a", DAY_SEC + 1, draft("a", 0, 1))
    assert deployment.inbox.open() == first
    assert submission_day(new_submission_id("2026-03-04T05:06:07.890Z")) == "20260304"
    assert new_submission_id("2026-03-04T05:06:07.890Z") != new_submission_id("2026-03-04T05:06:07.890Z")


def test_open_ones_come_in_the_order_of_acceptance() -> None:
    deployment = Deployment()
    for name, seconds in (("c", 0.0), ("b", 2.0), ("a", 2.0), ("z", 1.0)):
        put(deployment, name, seconds, draft(name, 0, ord(name)))
    names = [submission.submission_id for submission in deployment.inbox.open()]
    assert names == [submission_id(name) for name in "czab"]
    for name in names[:2]:
        deployment.inbox.mark_taken(name)
        deployment.inbox.mark_taken(name)
    assert [submission.submission_id for submission in deployment.inbox.open()] == names[2:]


def test_an_old_day_is_read_until_all_of_it_was_taken_in() -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    deployment.clock.seconds = 30 * DAY_SEC
    (found,) = deployment.inbox.open()
    deployment.inbox.mark_taken(found.submission_id)
    assert deployment.inbox.open() == []
    assert Inbox(deployment.store, SCHEMAS, deployment.clock).open() == []


def test_a_damaged_submission_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    deployment.store.put(f"submissions/{DAY}/{DAY}-b.json", b"{")
    deployment.store.put(f"submissions/{DAY}/odd.json", b"{}")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert [found.submission_id for found in deployment.inbox.open()] == [submission_id("a")]
    told = sorted(record.getMessage() for record in caplog.records)
    assert [name in message for name, message in zip((f"{DAY}-b", "odd"), told, strict=True)] == [True, True]
    with pytest.raises(TrendFlowError) as caught:
        deployment.inbox.get(submission_id("b"))
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize(
    "change",
    [
        {"items": []},
        {"accepted_at": "now"},
        {"submission_id": "a"},
        {"more": 1},
        {"items": [{"decision": "new"}]},
        {"items": [{"decision": "cached", "run_path": "x", "finished_at": "2026-01-02T00:00:00.000Z"}]},
        {"items": [{"decision": "maybe"}]},
    ],
)
@pytest.mark.parametrize("digest", [True, False])
def test_what_is_no_submission(change: dict[str, Any], digest: bool) -> None:
    """Neither bytes that are not those that were stored, nor such as tell of no digest."""
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    stored = json.loads(deployment.store.get(f"submissions/{DAY}/{DAY}-a.json"))
    if not digest:
        del stored["content_digest"]
    assert decode_submission(SCHEMAS, json.dumps(stored).encode()).messages == [(0, draft("a", 0, 1))]
    with pytest.raises(TrendFlowError) as caught:
        decode_submission(SCHEMAS, json.dumps({**stored, **change}).encode())
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("name", ["NaN", '"\\ud800"'])
def test_what_no_program_of_ours_writes_is_no_submission(name: str) -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    whole = deployment.store.get(f"submissions/{DAY}/{DAY}-a.json")
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        decode_submission(SCHEMAS, whole.replace(b'"user_id":', f'"more":{name},"user_id":'.encode(), 1))


def test_messages_are_validated_when_they_are_stored_and_not_by_every_reader() -> None:
    """A long list is read by every process, and validating it takes seconds."""

    class Counting(SchemaRegistry):
        asked = 0

        def document_validator(self, name: str) -> Validator:
            self.asked += 1
            return super().document_validator(name)

    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1), draft("a", 1, 2))
    schemas = Counting.load()
    reader = Inbox(deployment.store, schemas, deployment.clock)
    (found,) = reader.open()
    assert [message for _, message in found.messages] == [draft("a", 0, 1), draft("a", 1, 2)]
    assert schemas.asked == 0
    wrong = replace(found, user_id="two words", submission_id=submission_id("b"))
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        reader.put(wrong)
    assert reader.get(submission_id("b")) is None
    key = f"submissions/{DAY}/{DAY}-a.json"
    earlier = {name: value for name, value in json.loads(deployment.store.get(key)).items() if name != "content_digest"}
    deployment.store.put(key, json.dumps(earlier).encode())
    validated = schemas.asked
    assert reader.open() == [found]
    assert schemas.asked > validated, "an earlier release wrote no digest"


def everything(deployment: Deployment) -> bytes:
    infos = list(deployment.store.list("submissions"))
    return b"".join(info.key.encode() + deployment.store.get(info.key) for info in infos)


def test_nothing_of_a_deleted_video_is_left() -> None:
    deployment = Deployment()
    deployment.succeed(draft("e", 0, 1))
    put(deployment, "a", 0, draft("a", 0, 1), draft("a", 1, 1), draft("a", 2, 2))
    put(deployment, "b", 1, draft("b", 0, 3, metadata={"force_recompute": True}), draft("b", 1, 1))
    put(deployment, "c", 2, draft("c", 0, 1, metadata={"force_recompute": True}))
    assert video_id(1).encode() in everything(deployment)
    assert deployment.inbox.forget("youtube", video_id(1)) == 4
    assert deployment.inbox.forget("youtube", video_id(1)) == 0
    left = everything(deployment)
    assert video_id(1).encode() not in left
    assert minted_run_id(submission_id("c"), 0).encode() not in left
    gone, stays = Refused("input_constraint_violated", "The video was deleted."), New(draft("a", 2, 2))
    assert [submission.items for submission in deployment.inbox.open()] == [
        (gone, gone, stays),
        (New(draft("b", 0, 3, metadata={"force_recompute": True})), gone),
        (gone,),
    ]


@pytest.mark.parametrize("before", [True, False])
def test_forgetting_can_be_repeated(before: bool) -> None:
    for at in range(2):
        deployment = Deployment()
        put(deployment, "a", 0, draft("a", 0, 1))
        breaking = BreakingStore(deployment.store, at, Crash(), before=before)
        with pytest.raises(Crash):
            Inbox(breaking, SCHEMAS, deployment.clock).forget("youtube", video_id(1))
        deployment.inbox.forget("youtube", video_id(1))
        assert video_id(1).encode() not in everything(deployment)


def test_old_days_are_removed_whole() -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    deployment.inbox.mark_taken(submission_id("a"))
    deployment.clock.seconds = DAY_SEC
    deployment.desk.submit("20260103-b", USER, [draft("b", 0, 2)])
    assert deployment.inbox.remove_before("20260103") == 1
    assert b"20260102" not in everything(deployment)
    assert [found.submission_id for found in deployment.inbox.open()] == ["20260103-b"]
    assert deployment.inbox.place_of(minted_run_id(submission_id("a"), 0)) is None
    assert deployment.inbox.place_of(minted_run_id(submission_id("b"), 0)) is not None


def test_run_ids_of_submissions_that_died_go_with_their_day() -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    dead = Place(submission_id("dead"), 0, draft("dead", 0, 2).run_path)
    young = Place("20990102-dead", 0, draft("young", 0, 3).run_path)
    for place in (dead, young):
        key = f"submissions/_run_ids/{place.run_path.rpartition('/')[2]}.json"
        deployment.store.put(key, json.dumps(asdict(place)).encode())
    assert deployment.inbox.remove_before("20990101") == 1
    assert deployment.inbox.place_of(draft("dead", 0, 2).identity.run_id) is None
    assert deployment.inbox.place_of(draft("young", 0, 3).identity.run_id) == young


def test_a_submission_is_decoded_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1), draft("a", 1, 2))
    decoded: list[bytes] = []

    def counted(schemas: Any, data: bytes) -> Any:
        decoded.append(data)
        return decode_submission(schemas, data)

    monkeypatch.setattr("trendflow.submission.inbox.decode_submission", counted)
    reader = Inbox(deployment.store, SCHEMAS, deployment.clock)
    for _ in range(3):
        assert reader.message_of(minted_run_id(submission_id("a"), 0)) == draft("a", 0, 1)
        assert reader.message_of(minted_run_id(submission_id("a"), 1)) == draft("a", 1, 2)
    assert len(decoded) == 1
    Inbox(deployment.store, SCHEMAS, deployment.clock).forget("youtube", video_id(1))
    run_id = minted_run_id(submission_id("a"), 0)
    deployment.store.put(
        f"submissions/_run_ids/{run_id}.json",
        json.dumps(asdict(Place(submission_id("a"), 0, draft("a", 0, 1).run_path))).encode(),
    )
    assert reader.message_of(run_id) is None, "the video was deleted"


def test_a_damaged_submission_is_read_again_when_it_was_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment()
    put(deployment, "a", 0, draft("a", 0, 1))
    key = f"submissions/{DAY}/{DAY}-a.json"
    whole = deployment.store.get(key)
    deployment.store.put(key, b"{")
    reader = Inbox(deployment.store, SCHEMAS, deployment.clock)
    assert reader.open() == []
    read: list[str] = []
    monkeypatch.setattr(reader, "readable", read.append)
    assert (reader.open(), read) == ([], []), "not again as it is"
    monkeypatch.undo()
    deployment.store.put(key, whole)
    assert [found.submission_id for found in reader.open()] == [submission_id("a")]


def test_a_run_is_seen_by_whose_submissions_name_it() -> None:
    deployment = Deployment()
    own, reserved = draft("b", 0, 1), draft("dead", 0, 2)
    put(deployment, "b", 0, own)
    deployment.store.put(
        f"submissions/_run_ids/{reserved.identity.run_id}.json",
        json.dumps({"submission_id": submission_id("dead"), "item": 0, "run_path": reserved.run_path}).encode(),
    )
    assert deployment.inbox.may_see(USER, own.run_path)
    assert not deployment.inbox.may_see("user-2", own.run_path)
    assert not deployment.inbox.may_see(USER, reserved.run_path)  # its submission died before it was stored
    deployment.inbox.know(Place(submission_id("c"), 0, own.run_path), "user-2")
    assert deployment.inbox.may_see("user-2", own.run_path)
    assert not deployment.inbox.may_see("user", own.run_path)  # the beginning of a name is another name
    assert not deployment.inbox.may_see("user-2", reserved.run_path)


def test_runs_made_elsewhere_are_found_until_their_submission_goes() -> None:
    deployment = Deployment()
    elsewhere, own = draft("elsewhere", 0, 1), draft("b", 0, 2)
    deployment.succeed(elsewhere)  # a run that no submission made
    put(deployment, "b", 0, own)
    deployment.succeed(own)
    put(deployment, "a", 0, draft("a", 0, 1), draft("a", 1, 2))  # both answer it
    assert deployment.inbox.place_of(elsewhere.identity.run_id) is None
    place = Place(submission_id("a"), 0, elsewhere.run_path)
    for _ in range(2):
        deployment.inbox.know(place, USER)
    deployment.inbox.know(Place(submission_id("a"), 1, own.run_path), USER)  # which another submission holds
    assert deployment.inbox.place_of(elsewhere.identity.run_id) == place
    assert deployment.inbox.place_of(own.identity.run_id) == Place(submission_id("b"), 0, own.run_path)
    assert deployment.inbox.message_of(elsewhere.identity.run_id) is None
    deployment.inbox.remove_before("20990101")
    assert list(deployment.store.list("submissions")) == []
