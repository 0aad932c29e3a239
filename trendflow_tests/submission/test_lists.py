"""Lists of videos in their three forms, and drafts made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.submission.drafts import draft_entries
from trendflow.submission.lists import MAX_ENTRIES, Entry, ListForm, parse_list
from trendflow.submission.message import Message
from trendflow.submission.request import ProfileFacts
from trendflow.submission.sources import Source
from trendflow_tests.state.runs import SCHEMAS

URL = "https://youtu.be/abcdefghijk"
PLAIN = "https://www.youtube.com/watch?v=abcdefghijk"
OTHER = "https://www.youtube.com/shorts/lmnopqrstuv"


def told(entries: list[Entry]) -> list[str]:
    """Entries in short: video id, or the code of the error."""
    return [
        entry.outcome.video_id if isinstance(entry.outcome, Source) else entry.outcome.error_code for entry in entries
    ]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("lines", f"# mine\n{URL}\n\n  {OTHER}  \r\n/etc/passwd\nhttps://example.org/\n"),
        ("csv", f"source,priority\n{URL},\n{OTHER},\n/etc/passwd,\nhttps://example.org/,\n"),
        ("json", json.dumps([URL, {"source": OTHER}, "/etc/passwd", "https://example.org/"])),
    ],
)
def test_one_broken_entry_never_stops_the_others(form: ListForm, text: str) -> None:
    for data in (text.encode(), b"\xef\xbb\xbf" + text.encode()) if form != "json" else (text.encode(),):
        entries = parse_list(data, form, local_files=False)
        refused = "input_constraint_violated"
        assert told(entries) == ["abcdefghijk", "lmnopqrstuv", refused, refused]
        assert isinstance(entries[0].outcome, Source)
        assert entries[0].outcome.locator == PLAIN


def test_what_an_entry_may_state() -> None:
    table = f"run_id,source,priority,video_id\nmine,{URL},low,abcdefghijk\n,{OTHER},,\n"
    first, second = parse_list(table.encode(), "csv", local_files=False)
    assert (first.run_id, first.priority, first.place) == ("mine", "low", "line 2")
    assert (second.run_id, second.priority) == (None, "normal")
    rows = [
        {"source": URL, "video_id": "lmnopqrstuv"},
        {"source": URL, "run_id": "a/b"},
        {"source": URL, "priority": "urgent"},
        {"source": URL, "path": "/x"},
        {"source": 7},
        {"video_id": "abcdefghijk"},
        7,
        [URL],
        None,
    ]
    assert set(told(parse_list(json.dumps(rows).encode(), "json", local_files=False))) == {"input_constraint_violated"}
    ragged = f"source\n{URL},more\n{OTHER}\n"
    assert told(parse_list(ragged.encode(), "csv", local_files=False)) == ["input_constraint_violated", "lmnopqrstuv"]


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("lines", b""),
        ("lines", b"# nothing\n"),
        ("lines", b"\xff\xfe"),
        ("csv", b"video\nx\n"),
        ("csv", b"source,source\nx,y\n"),
        ("csv", b"source,path\nx,y\n"),
        ("csv", b'source\n"x'),
        ("json", b"{}"),
        ("json", b"[1"),
        ("json", b"[" * 100_000),
        ("json", b"[]"),
        ("lines", b"x\n" * (MAX_ENTRIES + 1)),
    ],
    ids=range(12),
)
def test_what_is_no_list_is_refused_as_a_whole(form: ListForm, data: bytes) -> None:
    with pytest.raises(TrendFlowError) as caught:
        parse_list(data, form, local_files=False)
    assert caught.value.error_code == "input_constraint_violated"


def test_the_refusal_of_a_list_says_what_is_wrong_and_where() -> None:
    with pytest.raises(TrendFlowError, match="this one holds 'url', 'priority'"):
        parse_list(b"url,priority\nx,high\n", "csv", local_files=True)
    with pytest.raises(TrendFlowError) as caught:
        parse_list(b"x" * 100_000, "csv", local_files=True)
    assert len(caught.value.message) < 250
    with pytest.raises(TrendFlowError, match="line 2, column 8 on"):
        parse_list(b'["a",\n {"b": c}]', "json", local_files=True)


def test_files_only_where_they_are_allowed(tmp_path: Path) -> None:
    clip = tmp_path / "my clip.mp4"
    clip.write_bytes(b"not really a video")
    text = f"{clip}\n{tmp_path / 'absent.mp4'}\n{tmp_path}\n".encode()
    assert set(told(parse_list(text, "lines", local_files=False))) == {"input_constraint_violated"}
    name = f"my-clip-{sha256_hex(b'not really a video')[:12]}"
    assert told(parse_list(text, "lines", local_files=True)) == [name, "source_unavailable", "source_unavailable"]


def test_drafts_follow_from_the_submission(tmp_path: Path) -> None:
    def facts(name: str, overrides: object) -> ProfileFacts:
        assert (name, overrides) == ("starter", {})
        return ProfileFacts("b" * 64, {"sampling_policy_version": "s1", "dataprocessor_version": "1.0"})

    entries = parse_list(f"{URL}\nhttps://example.org/\n{OTHER}\n".encode(), "lines", local_files=False)

    def drafts(name: str) -> list[Message | TrendFlowError]:
        return draft_entries(entries, "starter", facts, SCHEMAS, submission_id=name, user_id="u", force_recompute=True)

    first, broken, third = drafts("20260102-a")
    assert isinstance(first, Message)
    assert isinstance(third, Message)
    assert isinstance(broken, TrendFlowError)
    assert broken.message.startswith("line 2: ")
    assert first.force_recompute
    assert first.identity.config_hash == "b" * 64
    assert first.identity.run_id != third.identity.run_id
    again, other = drafts("20260102-a")[0], drafts("20260102-b")[0]
    assert again == first
    assert isinstance(other, Message)
    assert other.identity.run_id != first.identity.run_id
