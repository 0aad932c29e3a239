"""Attempts at a run in processes of their own, which can be killed at any object they are about to publish.

A template process pays for imports and first calls once; every attempt is a fork of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trendflow.config import Settings
from trendflow.media import segmenter
from trendflow.media.limits import MediaLimits
from trendflow.media.worker import run_job
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.report_step import write_report
from trendflow.orchestration.runs import RunContext, open_run
from trendflow.orchestration.wrapper import finalise, persist, run_component
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.orchestration.runs import submit_file

VIDEO_ID = "synthetic-clip"

# A run's folder wherever it stands in a key, and objects of which any number are equal but for their names.
_RUN_FOLDER = re.compile(r"upload/[^/]+/[^/]+/")
_ONE_OF_MANY = re.compile(r"(store/(?:index/artifacts|render_cache/thumbnails))/.*")
_VERBS = {"link": "create", "rename": "write", "replace": "write", "unlink": "remove"}

_opened: dict[Path | None, Deployment] = {}


def deployment_for(settings: Settings) -> Deployment:
    """A new deployment that costs next to nothing.

    What every one reads from the same graph file is shared with the first one of this process, and the start-up proof
    of the store, which writes objects of its own, is left out.
    """
    first = _opened.setdefault(settings.graph_file, Deployment(settings))
    deployment = Deployment(settings)
    for part in ("graph", "schemas", "catalogue", "registry"):
        vars(deployment)[part] = getattr(first, part)
    vars(deployment)["store"] = ObjectStore.open(settings.resolved_store_url)
    return deployment


@dataclass(frozen=True)
class Attempt:
    """One attempt at the run `run_id` of `source`: submit it unless that is done, then everything to the report."""

    settings: Settings
    source: Path
    run_id: str
    components: tuple[str, ...] | None = None
    """Only these, and the run stays open; None for all of the profile, the closed manifest and the report."""

    @property
    def run_path(self) -> str:
        return f"upload/{VIDEO_ID}/{self.run_id}"

    def __call__(self, deployment: Deployment) -> RunContext:
        run = self._open(deployment)
        for node in run.enabled:
            if self.components is None or node.name in self.components:
                persist(run, run_component(run, node.name))
        if self.components is None:
            finalise(run)
            write_report(run)
        return run

    def _open(self, deployment: Deployment) -> RunContext:
        if deployment.results.read_manifest(self.run_path) is not None:
            return open_run(deployment, f"{VIDEO_ID}/{self.run_id}")
        return submit_file(deployment, self.source, VIDEO_ID, run_id=self.run_id)


@dataclass(frozen=True)
class WritePoint:
    """The moment before the `count`-th publication of one object. `name` is free of ids and of the machine's paths."""

    name: str
    count: int


@dataclass
class _Trace:
    """Notes every write point of this process in a file and dies at one of them."""

    home: Path
    file: Path
    die_at: WritePoint | None
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def install(self) -> None:
        for name, verb in _VERBS.items():
            setattr(os, name, self._around(verb, getattr(os, name)))

    def _around(self, verb: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*arguments: Any, **options: Any) -> Any:
            target = Path(os.fsdecode(arguments[-1]))
            # Names with a dot are temporary and lock files, which no reader ever looks at.
            ours = target.is_relative_to(self.home) and not target.name.startswith(".")
            if ours and (verb != "remove" or target.exists()):
                self._visit(verb, Path(os.fsdecode(arguments[0])), target)
            return real(*arguments, **options)

        return traced

    def _visit(self, verb: str, source: Path, target: Path) -> None:
        if target.name == "manifest.json" and verb == "write" and json.loads(source.read_bytes())["run"]["finished_at"]:
            verb = "close"
        place = _RUN_FOLDER.sub("", target.relative_to(self.home).as_posix()).replace(f"/{os.getpid()}/", "/")
        place = _ONE_OF_MANY.sub(r"\1", place)
        name = f"{verb} {place}"
        with self.lock:
            point = WritePoint(name, self.counts.get(name, 0) + 1)
            self.counts[name] = point.count
            with self.file.open("a") as file:
                print(point.name, point.count, sep="\t", file=file)
            if point == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _attempt(attempt: Attempt, file: Path, die_at: WritePoint | None) -> None:
    deployment = deployment_for(attempt.settings)
    _Trace(attempt.settings.home, file, die_at).install()
    attempt(deployment)


class _RecordedDecoder:
    """Stands in for the media child, which takes a second to start: what it gave for a job, it gives again.

    It is another process than the one that is killed, writes to scratch only, and has tests of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results: dict[str, str] = {}

    def __call__(self, job: dict[str, Any], limits: MediaLimits, **options: Any) -> dict[str, Any]:
        written = {name: Path(job[name]) for name in ("work", "video_folder", "audio_folder") if name in job}
        key = json.dumps({name: value for name, value in job.items() if name not in written}, sort_keys=True)
        if key not in self._results:
            self._results[key] = json.dumps(run_job(job, limits, **options))
            for name, folder in written.items():
                shutil.copytree(folder, self._folder / name)
        else:
            for name, folder in written.items():
                shutil.copytree(self._folder / name, folder, dirs_exist_ok=True)
        return dict(json.loads(self._results[key]))


def _serve(connection: Connection, warm_up: Attempt, recordings: Path) -> None:
    """Body of the template process: fork the attempts that are asked for, wait for all of them, say how they ended."""
    import cv2

    cv2.setNumThreads(0)  # its threads would not survive a fork
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it handed to the system
    segmenter.run_job = _RecordedDecoder(recordings)
    warm_up(deployment_for(warm_up.settings))
    context = multiprocessing.get_context("fork")
    connection.send([])
    while (asked := connection.recv()) is not None:
        children = [context.Process(target=_attempt, args=arguments) for arguments in asked]
        for child in children:
            child.start()
        for child in children:
            child.join()
        connection.send([child.exitcode for child in children])


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: its exit code (negative: the signal) and the write points it came to, in order."""

    exit_code: int
    points: list[WritePoint]


class Template:
    """The warm process. `folder` is an empty one for its own use."""

    def __init__(self, folder: Path, warm_up: Attempt) -> None:
        self._traces = folder
        self._asked = 0
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, warm_up, folder))
        self._process.start()
        other.close()
        self._connection.recv()

    def run(self, *asked: tuple[Attempt, WritePoint | None]) -> list[Ended]:
        """Run attempts side by side; each one dies at its write point, or never at None."""
        files = []
        for _ in asked:
            self._asked += 1
            files.append(self._traces / f"{self._asked}.tsv")
            files[-1].touch()
        self._connection.send([(attempt, file, point) for (attempt, point), file in zip(asked, files, strict=True)])
        return [Ended(*found) for found in zip(self._connection.recv(), map(_points, files), strict=True)]

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


def _points(file: Path) -> list[WritePoint]:
    rows = (line.rsplit("\t", 1) for line in file.read_text().splitlines())
    return [WritePoint(name, int(count)) for name, count in rows]
