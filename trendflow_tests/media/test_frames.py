"""Reading a frames folder, and moving it between scratch and the store."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.media import documents, frames_store
from trendflow.media.frames_dir import FramesDir, read_document, validate_metadata
from trendflow.media.segmenter import Segmented, segment
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.media.clips import IDENTITY, numbered_clip, read_number, request_for

OTHER = RunIdentity("upload", "video-1", "run-2", "0" * 64, "sampling_v1", "0.2.0")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Segmented:
    folder = tmp_path_factory.mktemp("clip")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(6 * 48000) / 48000)
    clip = numbered_clip(150, audio=np.repeat(tone[:, None], 2, axis=1)).write(folder / "clip.mp4")
    return segment(request_for(clip, folder / "frames", chunk_size=40))


@pytest.fixture
def folder(segmented: Segmented, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(segmented.frames_dir, tmp_path / "frames")
    return tmp_path / "frames"


def change(folder: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
    document = read_document(folder, name)
    edit(document)
    (folder / name).write_text(json.dumps(document))


def test_frames_are_read_by_union_index_in_any_order(segmented: Segmented) -> None:
    frames = FramesDir.open(segmented.frames_dir)
    wanted = np.array([149, 0, 40, 39, 80, 40])
    found = frames.read(wanted)
    assert (found.shape, found.dtype) == ((6, 96, 160, 3), np.uint8)
    assert [read_number(picture) for picture in found] == wanted.tolist()
    assert len(frames.metadata["batches"]) == 4
    assert frames.read(np.array([], dtype=np.int32)).shape == (0, 96, 160, 3)


@pytest.mark.parametrize("outside", [-1, 150])
def test_frames_outside_the_union_are_refused(outside: int, segmented: Segmented) -> None:
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        FramesDir.open(segmented.frames_dir).read(np.array([0, outside]))


def test_samples_of_a_component(segmented: Segmented) -> None:
    frames = FramesDir.open(segmented.frames_dir)
    indices, times = frames.samples("core_clip")
    assert indices.dtype == np.int32
    assert times == pytest.approx(indices * 0.04)
    with pytest.raises(TrendFlowError) as caught:
        frames.samples("core_depth_midas")
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("dependency_missing", "frame_indices")


def test_audio_families(segmented: Segmented) -> None:
    frames = FramesDir.open(segmented.frames_dir)
    audio = frames.audio_input("tempo")
    assert audio.windows is not None
    assert audio.windows.family == "tempo"
    assert (audio.mono.dtype, audio.full.dtype) == (np.float32, np.float32)
    assert (audio.mono_rate, audio.full_rate, audio.channel_layout) == (22050, 48000, "stereo")
    assert np.abs(audio.mono).max() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(TrendFlowError) as caught:
        frames.audio_input("clap")
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("dependency_missing", "audio_family")


def test_a_folder_without_its_marker_is_incomplete(folder: Path) -> None:
    (folder / documents.VIDEO_METADATA).unlink()
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        FramesDir.open(folder)


def test_a_folder_of_mixed_runs_is_refused(folder: Path) -> None:
    change(folder, documents.AUDIO_METADATA, lambda d: d.update(run_id="run-9"))
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        FramesDir.open(folder)


def test_a_short_batch_is_refused(folder: Path) -> None:
    path = folder / "video" / "batch_00001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        FramesDir.open(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["union_timestamps_sec"].__setitem__(5, d["union_timestamps_sec"][4]),
        lambda d: d["union_frame_indices_source"].reverse(),
        lambda d: d["core_clip"]["frame_indices"].__setitem__(-1, 150),
        lambda d: d["core_clip"]["frame_indices"].__setitem__(1, 0),
        lambda d: d["core_clip"]["source_frame_indices"].__setitem__(0, 7),
        lambda d: d["batches"].pop(1),
        lambda d: d["batches"][0].update(path="../../batch_00000.npy"),
        lambda d: d["batches"][0].update(end_frame=41),
        lambda d: d.update(total_frames=149),
        lambda d: d.pop("batches"),
    ],
)
def test_contradictory_metadata_is_refused(edit: Callable[[dict[str, Any]], None], segmented: Segmented) -> None:
    metadata = read_document(segmented.frames_dir, documents.VIDEO_METADATA)
    validate_metadata(metadata)
    edit(metadata)
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        validate_metadata(metadata)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return ObjectStore.open("memory://" if request.param == "memory" else f"file://{tmp_path}/store")


def contents(folder: Path) -> dict[str, bytes]:
    names = [p for p in folder.rglob("*") if p.is_file() and ".work" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}


def test_upload_and_download_keep_every_byte(store: ObjectStore, segmented: Segmented, tmp_path: Path) -> None:
    run = IDENTITY.run_path
    assert not frames_store.is_complete(store, run)
    frames_store.upload(store, run, segmented.frames_dir)
    assert frames_store.is_complete(store, run)
    frames_store.download(store, run, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(segmented.frames_dir)
    assert len(FramesDir.open(tmp_path / "copy")) == 150


def test_a_copy_belongs_to_the_other_run_and_is_independent(
    store: ObjectStore, segmented: Segmented, tmp_path: Path
) -> None:
    frames_store.upload(store, IDENTITY.run_path, segmented.frames_dir)
    frames_store.copy(store, IDENTITY.run_path, OTHER.run_path, OTHER, created_at="2026-02-02T00:00:00.000Z")
    store.delete_prefix(frames_store.frames_key(IDENTITY.run_path))
    assert not frames_store.is_complete(store, IDENTITY.run_path)
    frames_store.download(store, OTHER.run_path, tmp_path / "copy")
    copy, original = FramesDir.open(tmp_path / "copy"), FramesDir.open(segmented.frames_dir)
    assert copy.identity == OTHER
    assert copy.metadata["created_at"] == "2026-02-02T00:00:00.000Z"
    everything = np.arange(150)
    assert np.array_equal(copy.read(everything), original.read(everything))
    assert np.array_equal(copy.audio_input("tempo").full, original.audio_input("tempo").full)


def test_missing_and_altered_objects_are_noticed(store: ObjectStore, segmented: Segmented, tmp_path: Path) -> None:
    run = IDENTITY.run_path
    frames_store.upload(store, run, segmented.frames_dir)
    key = f"{frames_store.frames_key(run)}/video/batch_00002.npy"
    data = store.get(key)
    store.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        frames_store.download(store, run, tmp_path / "copy")
    with pytest.raises(TrendFlowError):
        FramesDir.open(tmp_path / "copy")
    store.delete(key)
    assert not frames_store.is_complete(store, run)


# Reads how many writes an upload survives and says how the upload ended, again and again; each is a fork of its own.
KILLED_UPLOAD = """
import os, signal, sys
from pathlib import Path
from trendflow.media import frames_store
from trendflow.storage.object_store import ObjectStore

frames_store._PARALLEL = 1  # one write after the other, so that every point can be hit

class Dying:
    def __init__(self, store, left):
        self._store, self._left = store, left
    def __getattr__(self, name):
        method = getattr(self._store, name)
        def call(*args):
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args)
        return call

for survived in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child == 0:
        store = ObjectStore.open(sys.argv[1])
        try:
            frames_store.upload(Dying(store, int(survived)), sys.argv[2], Path(sys.argv[3]))
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_kill_at_any_write_of_an_upload_leaves_nothing_readable(
    segmented: Segmented, tmp_path: Path, repo_root: Path
) -> None:
    url = f"file://{tmp_path}/store"
    store, run = ObjectStore.open(url), IDENTITY.run_path
    writes = 1 + 4 + 2 + 3  # marker removed, batches, audio files, documents
    command = [sys.executable, "-c", KILLED_UPLOAD, url, run, str(segmented.frames_dir)]
    with subprocess.Popen(
        command, cwd=repo_root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as uploads:
        assert uploads.stdin is not None
        assert uploads.stdout is not None
        for survived in range(writes + 1):
            print(survived, file=uploads.stdin)
            complete = survived == writes
            assert int(uploads.stdout.readline()) == (0 if complete else -signal.SIGKILL)
            assert frames_store.is_complete(store, run) is complete
            if not complete:
                with pytest.raises(TrendFlowError, match="dependency_missing"):
                    frames_store.download(store, run, tmp_path / "copy")
    frames_store.download(store, run, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(segmented.frames_dir)
