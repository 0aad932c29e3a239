"""What a component gets to see: frames while they last, the rest for longer, and text that is never stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import find_row, update_run
from trendflow.contracts.video_document import VideoDocument, parse_document
from trendflow.orchestration import cache
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import open_document, providing
from trendflow.orchestration.inputs import build_inputs, frames_available, open_frames
from trendflow.orchestration.runs import RunContext
from trendflow_tests.orchestration.conftest import FPS, SECONDS
from trendflow_tests.orchestration.probe import FEATURE, NAME, add_probe, value
from trendflow_tests.orchestration.runs import AUDIO, Execute, Submit, only, problems, submit_file, with_profile

CANARY = "canary-7b1f-слово"
TEXT = {
    "title": f"{CANARY} title",
    "description": f"{CANARY} description",
    "tags": [f"{CANARY}tag"],
    "language": "ru",
    "transcript": {
        "source": "platform_captions",
        "observed_at": "2026-01-02T03:04:05Z",
        "segments": [{"start": 0.0, "end": 1.5, "text": f"{CANARY} said", "confidence": 0.5}],
    },
}


def document(**changes: Any) -> VideoDocument:
    return parse_document(json.dumps({**TEXT, **changes}).encode())


def frames_folder(run: RunContext) -> str:
    return f"frames_store/{run.run_path}"


def expire(run: RunContext, after: timedelta) -> str:
    """Let the run's frames expire `after` from now; returns the time as stored."""
    when = (datetime.now(UTC) + after).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        return update_run(manifest, frames_dir={**manifest["run"]["frames_dir"], "expires_at": when})

    run.deployment.results.update_manifest(run.run_path, change)
    return when


def delete(run: RunContext) -> None:
    run.deployment.store.delete_prefix(frames_folder(run))


@pytest.fixture
def audio_only(deployment: Deployment) -> Deployment:
    """A deployment whose profile needs no model."""
    with_profile(deployment, only(*AUDIO))
    return deployment


# --- frames are opened only for those who read them ---------------------------------------------------------------


@pytest.mark.parametrize("lose", [delete, lambda run: expire(run, -timedelta(seconds=1))], ids=["deleted", "expired"])
@pytest.mark.parametrize("reads", [("dense",), ()], ids=["dense", "upstream"])
def test_a_component_that_reads_no_media_runs_without_frames(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    lose: Callable[[RunContext], object],
    reads: tuple[str, ...],
) -> None:
    seen: list[ComponentInputs] = []

    def count(inputs: ComponentInputs) -> Artifact:
        seen.append(inputs)
        return value(float(len(inputs.need_dense()["pts_sec"]) if reads else len(inputs.upstream)))

    add_probe(deployment, count, reads)
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    lose(run)
    found = execute(run, {NAME})[NAME]
    assert found.status == "ok", found.meta["error"]
    assert found.arrays["feature_values"].tolist() == [FPS * SECONDS if reads else 1.0]
    assert found.arrays["feature_names"].tolist() == [FEATURE]
    video = seen[0].video
    assert (video.analysis_width, video.analysis_height) == (160, 120)
    assert (video.duration_sec, video.analysis_fps, video.source_fps) == (SECONDS, FPS, FPS)
    assert (seen[0].samples, seen[0].audio, seen[0].document) == (None, None, None)
    assert problems(deployment, run.run_path) == []


@pytest.mark.parametrize("lose", [delete, lambda run: expire(run, -timedelta(seconds=1))], ids=["deleted", "expired"])
def test_a_component_that_reads_frames_cannot_run_without_them(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, lose: Callable[[RunContext], object]
) -> None:
    called: list[int] = []

    def count(inputs: ComponentInputs) -> Artifact:
        called.append(len(inputs.need_samples()))
        return value(1.0)

    add_probe(deployment, count, ("frames",))
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    lose(run)
    with pytest.raises(TrendFlowError) as caught:
        build_inputs(run, NAME, run.manifest())
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("dependency_missing", "frames_dir")
    assert execute(run, {NAME})[NAME].meta["error_code"] == "dependency_missing"
    assert called == []


def test_the_video_is_described_as_the_frames_folder_describes_it(
    audio_only: Deployment, sample_video: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_only, sample_video)
    execute(run, {"segmenter"})
    stored = json.loads(audio_only.store.get(f"{frames_folder(run)}/video/metadata.json"))
    video = build_inputs(run, "loudness_extractor", run.manifest()).video
    for name in ("duration_sec", "analysis_width", "analysis_height", "analysis_fps"):
        assert getattr(video, name) == stored[name], name
    assert stored["duration_sec"] != float(np.float32(stored["duration_sec"])), "a feature would be exact as well"
    assert video.source_fps == pytest.approx(stored["source_fps"], rel=2**-23)


# --- expiry ---------------------------------------------------------------------------------------------------------


def test_expired_frames_are_refused_although_they_are_still_there(
    audio_only: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_only, clip)
    execute(run, {"segmenter"})
    assert open_frames(run, run.manifest()).audio_input("tempo").present
    assert frames_available(run, run.manifest())
    expire(run, -timedelta(seconds=1))
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        open_frames(run, run.manifest())
    assert not frames_available(run, run.manifest())
    assert audio_only.store.exists(f"{frames_folder(run)}/video/metadata.json")


@pytest.mark.parametrize("left", [-timedelta(seconds=1), timedelta(minutes=110)], ids=["expired", "too soon"])
def test_frames_that_do_not_last_as_long_as_a_run_may_are_decoded_again(
    audio_only: Deployment, clip: Path, submit: Submit, execute: Execute, left: timedelta
) -> None:
    first, second = submit(audio_only, clip), submit(audio_only, clip)
    before = execute(first, {"segmenter"})["segmenter"]
    expire(first, left)
    after = execute(second, {"segmenter"})["segmenter"]
    assert (after.origin, after.digests) == ("computed", before.digests)
    fresh = datetime.fromisoformat(second.manifest()["run"]["frames_dir"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6.9) < fresh <= timedelta(days=7)


def test_a_resumed_run_decodes_its_own_expired_frames_again(
    audio_only: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_only, clip)
    execute(run, {"segmenter"})
    stale = expire(run, -timedelta(days=1))
    found = execute(run, AUDIO)
    assert {name: result.status for name, result in found.items()} == dict.fromkeys(AUDIO, "ok")
    assert found["segmenter"].origin == "computed"
    assert run.manifest()["run"]["frames_dir"]["expires_at"] > stale


def test_a_copy_expires_with_its_original(audio_only: Deployment, clip: Path, submit: Submit, execute: Execute) -> None:
    first, second = submit(audio_only, clip), submit(audio_only, clip)
    execute(first, {"segmenter"})
    when = expire(first, timedelta(days=2))
    assert execute(second, AUDIO)["segmenter"].origin == "cache"
    block = second.manifest()["run"]["frames_dir"]
    assert block == {"store_key": frames_folder(second), "expires_at": when}
    assert frames_available(second, second.manifest())


@pytest.mark.parametrize(
    "lose",
    [
        delete,
        lambda run: expire(run, -timedelta(seconds=1)),
        lambda run: run.deployment.store.put(f"{frames_folder(run)}/video/metadata.json", b"{torn"),
    ],
    ids=["deleted", "expired", "damaged"],
)
def test_frames_come_from_a_further_run_when_those_of_the_first_cannot_be_used(
    audio_only: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    lose: Callable[[RunContext], object],
) -> None:
    first, second, third = (submit(audio_only, clip) for _ in range(3))
    execute(first, {"segmenter"})
    execute(second, {"segmenter", "loudness_extractor"})
    lose(first)
    found = execute(third, AUDIO)
    assert {name: result.origin for name, result in found.items()} == {
        "segmenter": "cache",
        "loudness_extractor": "cache",
        "tempo_extractor": "computed",
    }
    # The result is that of the first run, as the index says; only the frames are the second one's.
    assert found["segmenter"].meta["reused_from"]["run_id"] == first.identity.run_id
    assert third.manifest()["run"]["frames_dir"]["expires_at"] == second.manifest()["run"]["frames_dir"]["expires_at"]


# --- the document ----------------------------------------------------------------------------------------------------


def letters(inputs: ComponentInputs) -> Artifact:
    text = inputs.need_document()
    assert text.transcript is not None
    return value(float(len(text.title or "") + sum(len(part.text) for part in text.transcript.segments)))


def test_a_component_reads_the_document_and_nothing_of_it_is_stored_or_logged(
    deployment: Deployment, clip: Path, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    add_probe(deployment, letters, ("document",))
    caplog.set_level(logging.DEBUG)
    text = document()
    run = submit_file(deployment, clip, document=text)
    with providing(run, text):
        found = execute(run)[NAME]
    assert found.arrays["feature_values"].tolist() == [len(f"{CANARY} title") + len(f"{CANARY} said")]
    assert run.manifest()["run"]["document_digest"] == text.digest

    def quoting(inputs: ComponentInputs) -> Artifact:
        raise ValueError(inputs.need_document().title)

    vars(deployment.registry[NAME].module)["run"] = quoting
    other = document(title=f"{CANARY} other")
    failing = submit_file(deployment, clip, document=other)
    with providing(failing, other):
        assert execute(failing)[NAME].meta["error_code"] == "internal_error"
    stored = [path for path in deployment.settings.home.rglob("*") if path.is_file()]
    assert len(stored) > 10
    spellings = [
        CANARY.encode(),
        CANARY.encode("utf-16-le"),
        CANARY.encode("utf-32-le"),
        json.dumps(CANARY)[1:-1].encode(),
    ]
    assert [path.name for path in stored for canary in spellings if canary in path.read_bytes()] == []
    assert CANARY not in caplog.text
    assert CANARY not in repr(text)


def test_the_digest_is_part_of_the_key_of_those_who_read_the_document_only(deployment: Deployment, clip: Path) -> None:
    add_probe(deployment, letters, ("document",), beside=("tempo_extractor",))
    digest = "0" * 64
    upstream = {"segmenter": {"segmenter": "1" * 64}}

    def keys(text: VideoDocument | None) -> dict[str, str]:
        run = submit_file(deployment, clip, document=text)
        return {name: cache.key_parts(run, name, digest, upstream).key for name in (NAME, "tempo_extractor")}

    plain, same, changed, none = keys(document()), keys(document()), keys(document(language="en")), keys(None)
    assert plain == same
    assert len({found[NAME] for found in (plain, changed, none)}) == 3
    assert len({found["tempo_extractor"] for found in (plain, changed, none)}) == 1


def test_without_the_text_a_run_can_reuse_but_not_compute(deployment: Deployment, clip: Path, execute: Execute) -> None:
    add_probe(deployment, letters, ("document",))
    text = document()
    stopped = submit_file(deployment, clip, document=text)
    with providing(stopped, None):
        failed = execute(stopped)[NAME]
    assert failed.meta["error_code"] == "dependency_missing"
    with providing(stopped, text):
        assert execute(stopped)[NAME].status == "ok"
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        open_document(stopped)
    # The block is over and the text gone from memory; the result can be had all the same.
    assert execute(submit_file(deployment, clip, document=text))[NAME].origin == "cache"
    other = document(language="en")
    assert execute(submit_file(deployment, clip, document=other))[NAME].meta["error_code"] == "dependency_missing"


def test_a_run_without_a_document_fails_the_component_that_needs_one(
    deployment: Deployment, clip: Path, execute: Execute
) -> None:
    add_probe(deployment, letters, ("document",))
    run = submit_file(deployment, clip)
    found = execute(run)
    assert found["segmenter"].status == "ok"
    assert found[NAME].meta["error_code"] == "dependency_missing"
    row = find_row(run.manifest(), NAME)
    assert row is not None
    assert "document" in row["error"]


@pytest.mark.parametrize("submitted", [None, document(language="en")], ids=["none", "another"])
def test_another_document_than_the_submitted_one_is_refused(
    deployment: Deployment, clip: Path, submitted: VideoDocument | None
) -> None:
    run = submit_file(deployment, clip, document=submitted)
    with pytest.raises(TrendFlowError, match="input_constraint_violated"), providing(run, document()):
        pytest.fail("the block must not be entered")
