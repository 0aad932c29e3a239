"""A fleet for measurements, and the same work without it: a plain loop over the components in two processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av

from benchmarks.common import MODELS
from trendflow.fleet import keeper
from trendflow.fleet.environment import fleet_environment, fleet_folder
from trendflow.fleet.launch import stop_process
from trendflow.fleet.state import read_state
from trendflow.fleet.supervisor import read_site


@contextmanager
def running_fleet(workers: int, **settings: str) -> Iterator[Path]:
    """The home of a fleet that `trendflow up` has started, to which this process and its children belong meanwhile."""
    # PostgreSQL is started as another user when this one is root, so everybody may enter the folder.
    home = Path(tempfile.mkdtemp(prefix="trendflow-fleet-"))
    home.chmod(0o755)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    variables = {
        "TRENDFLOW_HOME": str(home),
        "TRENDFLOW_MODELS": str(MODELS),
        "TRENDFLOW_ONNX_THREADS": threads,
        "TRENDFLOW_MIN_FREE_GB": "0",
        "OMP_NUM_THREADS": threads,
        **settings,
    }
    try:
        with patch.dict(os.environ, variables):
            trendflow("up", "--workers", str(workers))
            with patch.dict(os.environ, fleet_environment(read_site(fleet_folder(home)))):
                yield home
    finally:
        end_at_once(fleet_folder(home))
        shutil.rmtree(home)


def end_at_once(folder: Path) -> None:
    """Kill a fleet whose data are thrown away; a polite end takes SeaweedFS alone 15 s.

    The keeper goes first, and only then is asked what there is: it starts again what has ended.
    """
    for service in (keeper.NAME, None):
        for process in read_state(folder).processes:
            if service in (None, process.service):
                stop_process(replace(process, stop_signal=signal.SIGKILL))


def trendflow(*arguments: str) -> str:
    """What a command of the user prints. Raises `RuntimeError` with its complaint when it fails."""
    command = [sys.executable, "-m", "trendflow", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"trendflow {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def submit_and_wait(folder: Path, videos: Mapping[str, Path]) -> dict[str, Any]:
    """Submit videos by id and wait for the end of their runs. Returns the report."""
    listed = folder / "videos.csv"
    rows = [f"{source},{video_id}" for video_id, source in videos.items()]
    listed.write_text("\n".join(["source,video_id", *rows]) + "\n", encoding="utf-8")
    report: dict[str, Any] = json.loads(trendflow("submit", "--list", str(listed), "--wait", "--json"))
    failed = [item for item in report["items"] if item["verdict"] != "done"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(videos)} videos failed, the first with {failed[0]['error_code']}")
    return report


def lengthened(source: Path, target: Path, seconds: int) -> Path:
    """A video of `seconds`: `source` encoded again (H.264, AAC), from its beginning again where it ends."""
    with av.open(str(target), "w") as out:
        given = av.open(str(source))
        picture, sound = given.streams.video[0], given.streams.audio[0]
        rate = Fraction(picture.average_rate or 30).limit_denominator(1000)
        video = out.add_stream("libx264", rate=rate, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = picture.width, picture.height, "yuv420p"
        audio = out.add_stream("aac", rate=sound.rate, layout=sound.layout.name)
        given.close()
        frames = samples = 0
        while frames < seconds * rate:
            with av.open(str(source)) as container:
                for frame in container.decode(video=0, audio=0):
                    if isinstance(frame, av.VideoFrame) and frames < seconds * rate:
                        frame.pts, frame.time_base = frames, 1 / rate
                        frame.pict_type = av.video.frame.PictureType.NONE
                        frames += 1
                        out.mux(video.encode(frame))
                    elif isinstance(frame, av.AudioFrame) and samples < seconds * sound.rate:
                        frame.pts, frame.time_base = samples, Fraction(1, sound.rate)
                        samples += frame.samples
                        out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return target


class PlainLoop:
    """Warm processes that compute and store the components of runs, one run after the other, and nothing else.

    They call what the worker's assets call: the wrapper around every component, with the same store. There is no queue,
    no Dagster, no state and no report.
    """

    def __init__(self, processes: int) -> None:
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_warm_up)

    def compute(self, keys: Sequence[str]) -> None:
        """Compute these runs; returns when all are stored. Raises `RuntimeError` for one that fails."""
        for key, status in zip(keys, self._pool.map(_compute_run, keys), strict=True):
            if status != "success":
                raise RuntimeError(f"the run {key} of the plain loop ended in {status}")

    def close(self) -> None:
        self._pool.shutdown()


def _warm_up() -> None:
    from trendflow.media import worker

    worker.warm_up()


def _compute_run(key: str) -> str:
    from trendflow.config import load_settings
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.runs import open_run
    from trendflow.orchestration.scratch import drop_scratch
    from trendflow.orchestration.wrapper import finalise, run_component, run_status, store

    run = open_run(open_deployment(load_settings()), key)
    for node in run.enabled:
        store(run, run_component(run, node.name))
    drop_scratch(run)
    return run_status(run, finalise(run))
