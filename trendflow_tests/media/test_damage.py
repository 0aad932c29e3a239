"""Damaged, hostile and interrupted work: the repair ladder, the limits of the media child, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.media import worker
from trendflow.media.frames_dir import FramesDir
from trendflow.media.limits import MIB, MediaLimits
from trendflow.media.segmenter import Segmented, segment
from trendflow_tests.media.clips import numbered_clip, read_number, request_for, stored_frames

Run = Callable[..., Segmented]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 numbered frames, every one a key frame, so that damage stays where it is done."""
    options = {"preset": "ultrafast", "crf": "12", "g": "1"}
    return numbered_clip(300, options=options).write(tmp_path_factory.mktemp("clip") / "clip.mkv")


def damage(source: Path, target: Path, numbers: set[int]) -> Path:
    """A copy in which the given packets hold noise instead of a picture."""
    noise = np.random.default_rng(0).integers(1, 255, 400, dtype=np.uint8).tobytes()
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in reader.demux(stream) if p.dts is not None):
            out = av.Packet(noise) if number in numbers else packet
            out.pts, out.dts, out.duration = packet.pts, packet.dts, packet.duration
            out.time_base, out.is_keyframe, out.stream = packet.time_base, True, copy
            writer.mux(out)
    return target


def test_a_few_damaged_packets_are_tolerated(clip: Path, tmp_path: Path, run_segmenter: Run) -> None:
    broken = set(range(20, 300, 25))
    found = run_segmenter(damage(clip, tmp_path / "broken.mkv", broken))
    assert "decode_errors" in found.artifact.warnings
    assert [step["step"] for step in found.preprocessing] == ["tolerant_decode"]
    times = found.artifact.arrays["union_timestamps_sec"]
    assert [read_number(p) for p in stored_frames(found)] == np.round(times * 25).astype(int).tolist()
    assert found.source.duration_sec == pytest.approx(12.0)
    assert not broken & set(np.round(times * 25).astype(int).tolist())


def test_more_damage_is_repaired_by_reencoding(clip: Path, tmp_path: Path, run_segmenter: Run) -> None:
    broken = set(range(20, 300, 8))
    found = run_segmenter(damage(clip, tmp_path / "broken.mkv", broken))
    assert "media_repaired" in found.artifact.warnings
    assert [(step["step"], step["outcome"]) for step in found.preprocessing] == [
        ("tolerant_decode", "refused"),
        ("reencode", "accepted"),
    ]
    times = found.artifact.arrays["union_timestamps_sec"]
    assert [read_number(p) for p in stored_frames(found)] == np.round(times * 25).astype(int).tolist()


def test_what_cannot_be_repaired_is_corrupted(clip: Path, tmp_path: Path, run_segmenter: Run) -> None:
    with pytest.raises(TrendFlowError) as caught:
        run_segmenter(damage(clip, tmp_path / "broken.mkv", set(range(300))))
    assert caught.value.error_code == "video_file_corrupted"


def test_a_file_cut_below_half_is_corrupted(clip: Path, tmp_path: Path, run_segmenter: Run) -> None:
    mp4 = tmp_path / "whole.mp4"
    with av.open(str(clip)) as reader, av.open(str(mp4), "w", options={"movflags": "faststart"}) as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                writer.mux(packet)
    data = mp4.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 70 // 100])
    found = run_segmenter(tmp_path / "cut.mp4")
    assert "truncated_stream" in found.artifact.warnings
    assert found.source.duration_sec < 10.0
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 45 // 100])
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        run_segmenter(tmp_path / "cut.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
    ids=["hls", "concat"],
)
def test_lists_that_point_to_other_files_are_not_media(text: str, tmp_path: Path, run_segmenter: Run) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(text)
    with pytest.raises(TrendFlowError, match="video_unreadable"):
        run_segmenter(path)


def address_space_of_an_idle_child() -> int:
    """Bytes mapped by a media child before it has seen any video."""
    child = worker.MediaWorker()
    try:
        job = {"kind": "probe", "source": os.devnull, "limits": MediaLimits().as_dict()}
        with pytest.raises(TrendFlowError, match="video_unreadable"):  # it has answered, so it has loaded everything
            child.run(job, time.monotonic() + 60, None)
        status = Path(f"/proc/{child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize")) * 1024
    finally:
        child.close()


def test_a_child_that_runs_out_of_memory_is_the_files_fault(data_dir: Path, run_segmenter: Run) -> None:
    """Enough memory to start all threads, not enough for the decoded pictures of a 4K stream."""
    memory = address_space_of_an_idle_child() + 200 * MIB
    limits = MediaLimits(child_memory_bytes=memory, min_duration_sec=1.0)
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        run_segmenter(data_dir / "video" / "bbb_4k_4s.mp4", limits=limits)


def test_a_child_that_writes_too_much_is_the_files_fault(sample_video: Path, run_segmenter: Run) -> None:
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        run_segmenter(sample_video, limits=MediaLimits(child_file_bytes=MIB))


def test_a_child_without_cpu_time_left_dies_of_the_file(tmp_path: Path, run_segmenter: Run) -> None:
    clip = numbered_clip(400, options={"preset": "ultrafast"}).write(tmp_path / "clip.mkv")
    big = tmp_path / "big.mkv"
    with (
        av.open(str(clip)) as reader,
        av.open(str(big), "w") as writer,
    ):  # sixty copies: CPU seconds of work on any machine
        copy = writer.add_stream_from_template(reader.streams.video[0])
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in reader.demux(video=0) if p.dts is not None]
        for round_number in range(60):
            for data, pts, dts, key in packets:
                out = av.Packet(data)
                out.pts, out.dts = pts + 16000 * round_number, dts + 16000 * round_number
                out.is_keyframe, out.stream = key, copy
                out.time_base = reader.streams.video[0].time_base
                writer.mux(out)
    with pytest.raises(TrendFlowError) as caught:
        run_segmenter(big, limits=MediaLimits(child_cpu_sec=1))
    assert caught.value.error_code == "video_file_corrupted"
    assert caught.value.detail["exit_status"] in (-signal.SIGXCPU, -signal.SIGKILL)


def test_time_runs_out_and_the_next_file_is_unaffected(clip: Path, run_segmenter: Run) -> None:
    with pytest.raises(TrendFlowError, match="timeout"):
        run_segmenter(clip, limits=MediaLimits(segmenter_timeout_sec=0.05))
    assert run_segmenter(clip).source.frames == 300


def test_an_error_of_the_progress_callback_stops_the_work(clip: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise TrendFlowError("cancelled", "Stopped.")

    with pytest.raises(TrendFlowError, match="cancelled"):
        segment(request_for(clip, tmp_path / "frames"), stop)
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        FramesDir.open(tmp_path / "frames")
    assert segment(request_for(clip, tmp_path / "frames")).source.frames == 300


def test_progress_counts_decoded_frames(clip: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    segment(request_for(clip, tmp_path / "frames"), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300, 300)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_child_sees_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    child = worker.MediaWorker()
    try:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        child.close()
    assert b"canary" not in environment


KILLED_PARENT = """
import os, signal, sys
from pathlib import Path
import psutil
from trendflow.media.segmenter import segment
from trendflow_tests.media.clips import request_for

def die(done, total):
    print(*[process.pid for process in psutil.Process().children(recursive=True)], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

segment(request_for(Path(sys.argv[1]), Path(sys.argv[2])), die)
"""


def test_killing_the_parent_ends_its_media_child(clip: Path, tmp_path: Path, repo_root: Path) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", KILLED_PARENT, str(clip), str(tmp_path / "frames")],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    children = [int(pid) for pid in parent.stdout.split()]
    assert len(children) >= 2  # the server and the process that decodes
    alive = [psutil.Process(pid) for pid in children if psutil.pid_exists(pid)]
    assert psutil.wait_procs(alive, timeout=600)[1] == []
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        FramesDir.open(tmp_path / "frames")
    assert segment(request_for(clip, tmp_path / "frames")).source.frames == 300
