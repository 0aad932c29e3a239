"""Production against a plain loop: videos per hour through two warm workers, waiting times, and the death of a worker.

The fleet is one that `trendflow up` starts: SeaweedFS, Valkey, PostgreSQL, web server, daemon, API and two workers, all
on this machine, so that their processor time is in the numbers. The plain loop computes the same components of as many
runs of the same clip in two warm processes, with the same settings and into the same object store; the fleet is idle
meanwhile. Neither side pays for starting. A video is timed from the moment at which a worker takes it, so what it
waited before is in the waiting times alone.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
from dagster import DagsterInstance, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from benchmarks.common import SAMPLE, Row
from benchmarks.production import PlainLoop, lengthened, running_fleet, submit_and_wait, trendflow
from trendflow.config import load_settings
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.processes import as_label
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.runs import new_run_id, run_path_of, submit_run, view_run
from trendflow.orchestration.submitting import open_desk
from trendflow.state.store import RunView
from trendflow.submission.drafts import draft_entries
from trendflow.submission.items import new_submission_id
from trendflow.submission.lists import Entry
from trendflow.submission.sources import parse_source

WORKERS = 2
CLIPS, SECONDS = 20, 10
GOAL = 0.85
RESUBMISSION_GOAL = 0.10
NOTICE_GOAL_S = 60.0
WAITS, WAIT_EVERY_S = 20, 3.0
DEATHS = 2
LIMIT_S, POLL_S = 900.0, 0.1

T = TypeVar("T")


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, running_fleet(WORKERS):
        folder = Path(name)
        clip = lengthened(SAMPLE, folder / "clip.mp4", SECONDS)
        fleet = _Fleet(folder, clip)
        fleet.process("warm", WORKERS)
        loop = PlainLoop(WORKERS)
        try:
            loop.compute(fleet.submitted("warm-loop", WORKERS))
            start = time.perf_counter()
            report = fleet.process("queue", CLIPS)
            whole_s = time.perf_counter() - start
            start = time.perf_counter()
            fleet.process("queue", CLIPS)
            again_s = time.perf_counter() - start
            keys = fleet.submitted("loop", CLIPS)
            start = time.perf_counter()
            loop.compute(keys)
            loop_s = time.perf_counter() - start
        finally:
            loop.close()
        return [
            *fleet.throughput([item["run_key"] for item in report["items"]], loop_s),
            Row(
                "the same list submitted again ÷ the first time",
                f"{CLIPS} clips",
                again_s / whole_s,
                "×",
                RESUBMISSION_GOAL,
                f"{again_s:.1f} s against {whole_s:.1f} s, both with the start of the command",
            ),
            *fleet.waits(),
            *fleet.death(),
        ]


class _Fleet:
    """What is asked of the fleet that this process belongs to."""

    def __init__(self, folder: Path, clip: Path) -> None:
        self._folder, self._clip = folder, clip
        self._deployment = Deployment(load_settings())
        broker = self._deployment.settings.broker_url
        if broker is None:
            raise RuntimeError("the fleet has no broker")
        self._board = Board(broker.get_secret_value())

    def process(self, name: str, count: int) -> dict[str, Any]:
        """Submit the clip as so many videos and wait for them. Returns the report."""
        return submit_and_wait(self._folder, {f"{name}-{place:02d}": self._clip for place in range(count)})

    def submitted(self, name: str, count: int) -> list[str]:
        """Partition keys of runs that are there and that no worker is told of."""
        return [
            submit_run(
                self._deployment,
                locator=str(self._clip),
                source_type="local_path",
                platform_id="upload",
                video_id=f"{name}-{place:02d}",
                run_id=new_run_id(),
                profile=self._deployment.settings.profile,
            ).identity.partition_key
            for place in range(count)
        ]

    def throughput(self, keys: list[str], loop_s: float) -> list[Row]:
        """The rate of the queue against that of the loop, and what the workers did besides computing."""
        with DagsterInstance.get() as instance:
            found = instance.get_run_records(RunsFilter(tags={PARTITION_NAME_TAG: keys}))
        times = [(record.start_time, record.end_time) for record in found]
        starts = [start for start, _ in times if start is not None]
        ends = [end for _, end in times if end is not None]
        if not len(starts) == len(ends) == len(keys):
            raise RuntimeError("Dagster does not know when every run began and ended")
        queue_s = max(ends) - min(starts)
        computing_s = sum(
            row["duration_ms"] / 1000
            for key in keys
            for row in view_run(self._deployment, key).manifest()["components"]
        )
        subject = f"{len(keys)} clips of {SECONDS} s, {WORKERS} workers"
        rates = f"{3600 * len(keys) / queue_s:.0f} videos/h against {3600 * len(keys) / loop_s:.0f}"
        return [
            Row(
                "plain loop in as many processes: its videos/h ÷ the queue's",
                subject,
                queue_s / loop_s,
                "×",
                1 / GOAL,
                f"{rates}: {loop_s / queue_s:.2f} of the loop's rate, goal {GOAL:g}",
            ),
            Row(
                "time of the workers ÷ time inside components",
                subject,
                WORKERS * queue_s / computing_s,
                "×",
                note="between the first start and the last end: the store, the state, Dagster, gaps between runs",
            ),
        ]

    def waits(self) -> list[Row]:
        """How long accepted videos wait while workers are idle. Their file is no video, so their runs end at once."""
        broken = self._folder / "broken.mp4"
        broken.write_bytes(b"no video")
        opened = open_desk(self._deployment)
        accepted: dict[str, str] = {}
        for place in range(WAITS):
            submission_id = new_submission_id(opened.states.clock.utc())
            entry = Entry("benchmark", parse_source(str(broken), f"wait-{place:02d}"))
            drafts = draft_entries(
                [entry],
                self._deployment.settings.profile,
                opened.profiles,
                self._deployment.schemas,
                submission_id=submission_id,
                user_id="benchmark",
            )
            submission = opened.desk.submit(submission_id, "benchmark", drafts)
            accepted |= {message.run_path: submission.accepted_at for _, message in submission.messages}
            time.sleep(WAIT_EVERY_S)  # the rhythm of the callers that is measured
        for path in accepted:
            self._wait_for(partial(self._end_of, path), "the end of a run")
        waited = sorted(_seconds(at, self._view(path).run["started_at"]) for path, at in accepted.items())
        window = opened.limits.window_sec
        note = f"{WAITS} submissions, one every {WAIT_EVERY_S:g} s; {window:g} s of it the window that forms batches"
        return [
            Row("accepted to running, median", "idle workers", statistics.median(waited), "s", note=note),
            Row(
                "accepted to running, 95th percentile",
                "idle workers",
                waited[math.ceil(0.95 * len(waited)) - 1],
                "s",
                note=note,
            ),
        ]

    def death(self) -> list[Row]:
        """SIGKILL to all processes of a worker in the middle of a run, while the other one is idle."""
        noticed, taken = [], []
        for place in range(DEATHS):
            (key,) = self._submit_only(f"death-{place}")
            path = run_path_of(key)
            worker = self._wait_for(partial(self._at_work, path), "a worker at work")
            start = time.monotonic()
            _kill(worker)
            self._wait_for(partial(self._is_given_up, worker), "the death to be noticed")
            noticed.append(time.monotonic() - start)
            self._wait_for(partial(self._at_work, path, but_not=worker), "another worker at work")
            taken.append(time.monotonic() - start)
            self._wait_for(partial(self._end_of, path), "the end of the run")
        note = f"{DEATHS} deaths, the slower one"
        return [
            Row("a killed worker is noticed after", "run of 10 s", max(noticed), "s", NOTICE_GOAL_S, note),
            Row("its run is continued by another one after", "run of 10 s", max(taken), "s", note=note),
        ]

    def _submit_only(self, video_id: str) -> list[str]:
        report = json.loads(trendflow("submit", "--json", str(self._named(video_id))))
        return [item["run_key"] for item in report["items"]]

    def _named(self, video_id: str) -> Path:
        """The clip under another name, which makes it another video."""
        path = self._folder / f"{video_id}.mp4"
        path.symlink_to(self._clip)
        return path

    def _view(self, run_path: str) -> RunView:
        view = self._deployment.states.read_run(run_path)
        if view is None:
            raise RuntimeError("a run has no state")
        return view

    def _end_of(self, run_path: str) -> str | None:
        """When the run ended; None before that, and before it was made."""
        view = self._deployment.states.read_run(run_path)
        return None if view is None else view.run["finished_at"]

    def _at_work(self, run_path: str, but_not: str | None = None) -> str | None:
        """The worker that computes a component of the run now; None while it is `but_not`."""
        view = self._deployment.states.read_run(run_path)
        rows = view.components.values() if view is not None else ()
        owners = (row["owner"] for row in rows if row["status"] == "running")
        return next((owner for owner in owners if owner not in (None, but_not)), None)

    def _is_given_up(self, worker: str) -> bool:
        return worker not in {as_label(seen.facts.worker) for seen in self._board.workers()}

    def _wait_for(self, look: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + LIMIT_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited in vain for {what}")
            time.sleep(POLL_S)  # the state lies in a store, which calls nobody
        return found


def _kill(worker: str) -> None:
    """The main process of a worker and everything that it started. Its name holds its process id."""
    main = psutil.Process(int(worker.split(":")[1]))
    for process in (main, *main.children(recursive=True)):
        process.kill()


def _seconds(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
