"""The managers of one run (levels 2 and 3) in the process that executes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.state.documents import Document, Documents
from trendflow.state.errors import IllegalTransition
from trendflow.state.events import Draft
from trendflow.state.file_manager import FileManager
from trendflow.state.layout import RUN
from trendflow.state.log_view import LogView
from trendflow.state.store import RunView, StateStore, view_of
from trendflow.state.transitions import COMPONENT_END, DONE, RUN_END, component_may, run_may, run_outcome

PROGRESS_SEC = 2.0
"""Progress of a component is recorded at most this often."""


@dataclass(frozen=True)
class Planned:
    """An enabled component of the run. `depends_on`: its enabled dependencies, hard and soft."""

    name: str
    processor: str
    required: bool
    depends_on: tuple[str, ...] = ()


class RunManager:
    """Records what happens to one run. Safe for any number of threads.

    Every method raises `Fenced` once another process has opened the run, and `IllegalTransition` for what may not
    follow the present state; in both cases nothing was written. After `storage_unavailable` an event may or may not
    have been recorded; the call may be repeated, for what is so already is not recorded again.
    """

    def __init__(self, states: StateStore, run_path: str) -> None:
        self._run_path = run_path
        self._clock = states.clock
        self._log = states.run_log(run_path)
        self._export = states.run_export(run_path)
        self._view = LogView(self._log, self._clock)
        self._files: dict[str, FileManager] = {}
        self._progress_at: dict[str, float] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._beginning = False

    @classmethod
    def create(
        cls, states: StateStore, identity: RunIdentity, profile: str, plan: Iterable[Planned], *, holder: str
    ) -> RunManager:
        """Accept a new run: it is `pending`. Raises `IllegalTransition` when the run exists.

        `plan` holds the enabled components in the order of the graph, `holder` names the process.
        """
        made = cls(states, identity.run_path)
        data = {"run": identity.as_dict(), "profile": profile, "plan": [_as_json(planned) for planned in plan]}
        if not made._start(RUN, holder, lambda documents: documents[RUN]["status"] is None):
            made._refuse("pending")
        made._run_status("pending", data)
        made._start_processors(holder)
        made.checkpoint()
        return made

    @classmethod
    def open(
        cls, states: StateStore, run_path: str, *, holder: str, only_if: Collection[str] | None = None
    ) -> RunManager | None:
        """Take over an accepted run. Whoever had it before is fenced off.

        With `only_if` this happens only while the status of the run is one of these; None tells that it is not. Raises
        `dependency_missing` when the run was never accepted.
        """
        made = cls(states, run_path)
        if made._view.documents[RUN]["status"] is None:
            raise TrendFlowError("dependency_missing", "The run has no state.", kind="state")
        if not made._start(RUN, holder, lambda documents: only_if is None or documents[RUN]["status"] in only_if):
            return None
        made._start_processors(holder)
        for name in made.view.processors:
            made._tell_processor(name)  # whoever had the run before may not have come to it
        return made

    @property
    def view(self) -> RunView:
        """The run as this process knows it; `follow` brings in what others wrote."""
        view = view_of(self._view.documents)
        if view is None:
            raise TrendFlowError("dependency_missing", "The run has no state.", kind="state")
        return view

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for a cancellation, as far as this process knows."""
        return self.view.run["cancel_requested_at"] is not None

    def follow(self) -> None:
        """Read what others wrote since: a request to cancel, or the start of a manager that replaced this one."""
        self._view.follow()
        self._files[RUN].is_in_force(self._view.documents)

    def queued(self) -> None:
        """The message of the run is in the queue."""
        self._run_status("queued", {})
        self.checkpoint_if_due()

    def begin(
        self,
        *,
        worker: str,
        device: str | None,
        resolved_models: Mapping[str, Mapping[str, str]],
        knobs: Mapping[str, Any] | None = None,
    ) -> None:
        """A worker begins the run, or takes it up again after another worker, a retry or its own restart.

        In the second case the run recovers first: what was running, failed or was skipped waits again, in a new
        attempt; what succeeded stays.
        """
        status = self.view.run["status"]
        if status == "pending":
            self._run_status("queued", {})
        elif status != "queued" and not (status == "running" and self._beginning):
            self._recover()
        self._beginning = True  # until it is through: a repeated call is no other attempt
        models = {role: dict(model) for role, model in resolved_models.items()}
        with_knobs = {} if knobs is None else {"knobs": dict(knobs)}
        who = {"id": worker, "device": device}
        self._run_status("running", {"worker": who, "resolved_models": models, **with_knobs})
        self.checkpoint()
        self._beginning = False

    def component_started(self, name: str, *, owner: str | None = None) -> None:
        """A component is being computed. One that ended in an earlier attempt starts anew."""
        self._leave_earlier_attempt(name)
        self._component_status(name, "running", {"owner": owner} if owner else {})
        self.checkpoint_if_due()

    def component_progress(self, name: str, done: int, total: int) -> None:
        """`done` of `total` units. More than one report in 2 s is held back; the last one comes with the end."""
        with self._view.lock:
            now, last = self._clock.monotonic(), self._progress_at.get(name)
            self._held[name] = {"done": done, "total": total}
            if last is not None and now - last < PROGRESS_SEC:
                return
            recorded = self._file_of(name).append(lambda documents: self._progress_draft(name, documents))
            if recorded is not None:
                self._progress_at[name] = now
                del self._held[name]
        self.checkpoint_if_due()

    def component_finished(
        self, name: str, status: Literal["success", "empty"], artifact_paths: Iterable[str], *, cache_hit: bool = False
    ) -> None:
        """A result is stored and named by the manifest. A cached one needs no start before."""
        row = self._row(name)
        if cache_hit and row["status"] == status and row["attempt"] < self.view.run["attempt"]:
            # It was done already when this attempt began, and nothing about it changes.
            self._component_note("resume_from_checkpoint", name, {})
            return
        self._leave_earlier_attempt(name)
        self._component_status(name, status, {"artifact_paths": list(artifact_paths), "cache_hit": cache_hit})
        self._file_of(name).checkpoint()

    def component_failed(self, name: str, error: TrendFlowError, artifact_paths: Iterable[str] = ()) -> None:
        """The component ended in an error, maybe before it was reported as started.

        Without `artifact_paths` the store took not even the error.
        """
        row = self._row(name)
        if row["status"] != "running" and (row["status"], row["attempt"]) != ("error", self.view.run["attempt"]):
            self.component_started(name)
        data = {"error": error.message, "error_code": error.error_code, "artifact_paths": list(artifact_paths)}
        self._component_status(name, "error", data)
        self._file_of(name).checkpoint()

    def component_skipped(self, name: str, because: str) -> None:
        """The component cannot run or will not."""
        self._leave_earlier_attempt(name)
        self._component_status(name, "skipped", {"because": because})
        self._file_of(name).checkpoint()

    def retry_scheduled(self, name: str, error_code: str, wait_sec: float) -> None:
        """The component failed, waits and will be started again."""

        def draft(documents: Documents) -> Draft | None:
            row = self._row(name, documents)
            if row["status"] == "waiting":
                return None
            if row["status"] != "running":
                raise IllegalTransition.of(name, row["status"], "waiting")
            data = {"error_code": error_code, "attempt": row["retry_count"] + 1, "wait_sec": wait_sec}
            return Draft("retry_scheduled", name, "running", "waiting", data)

        self._file_of(name).append(draft)
        self._held.pop(name, None)
        self._tell_processor(self._processor_of(name))
        self.checkpoint_if_due()

    def relaunch_scheduled(self, error_code: str, attempt: int, wait_sec: float) -> None:
        """The run ended of `error_code`, has waited, and will be launched again for the `attempt`-th time."""

        def draft(documents: Documents) -> Draft | None:
            run = documents[RUN]
            if run["status"] != "error":
                raise IllegalTransition.of(self._run_path, run["status"], "queued")
            data = {"error_code": error_code, "attempt": attempt, "wait_sec": wait_sec}
            return Draft("retry_scheduled", self._run_path, data=data)

        self._files[RUN].append(draft)
        self.checkpoint()

    def cancel_retry(self) -> None:
        """End a run as `cancelled` that ended in an error, was to be launched again, and is not wanted any more."""
        self._recover()
        self.cancel()

    def oom_reduced(self, name: str, batch_size: int, reduced_to: int) -> None:
        """The component ran out of memory and goes on with smaller batches."""
        self._component_note("oom_reduced", name, {"batch_size": batch_size, "reduced_to": reduced_to})

    def cache_check_failed(self, name: str, error_code: str) -> None:
        """A stored result could not be reused because it did not pass its checks."""
        self._component_note("cache_check_failed", name, {"error_code": error_code})

    def component_warning(self, name: str, code: str) -> None:
        self._component_note("warning", name, {"code": code})

    def flag(self, flag: str, by: str) -> None:
        """The component `by` has made `frames_ready`, `audio_ready` or `ocr_ready` true."""

        def draft(documents: Documents) -> Draft | None:
            return None if documents[RUN]["checkpoints"].get(flag) else Draft("checkpoint_flag", flag)

        self._file_of(by).append(draft)
        self.checkpoint_if_due()

    def warning(self, code: str) -> None:
        self._run_note("warning", {"code": code})

    def costs_recorded(self, rows: int, components: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """The cost registry has taken rows of this execution; `components`: what they say, as events have it."""
        found = {name: dict(row) for name, row in (components or {}).items()}
        self._run_note("cost_recorded", {"rows": rows, **({"components": found} if found else {})})

    def resumed(self) -> None:
        """Part of the run was done before its message came."""
        self._run_note("resume_from_checkpoint", {})

    def completed_from_cache(self) -> None:
        """Nothing had to be computed."""
        self._run_note("processing_completed_from_cache", {})

    def succeed(self) -> None:
        """End the run in `success`. Raises `IllegalTransition` unless every component ended as that demands."""
        rows = self.view.components.values()
        if self.view.run["status"] not in ("running", "success") or run_outcome(rows) != "success":
            self._refuse("success")
        self._warn_of_failures()
        self._end("success", {})

    def fail(self, error: TrendFlowError) -> None:
        """End the run in `error`. What still runs gets the same error, what waits is skipped."""
        self._warn_of_failures()
        self._settle(error)
        self._end("error", {"error": error.message, "error_code": error.error_code})

    def cancel(self) -> None:
        """End the run in `cancelled`, once its components have stopped."""
        error = TrendFlowError("cancelled", "The run was cancelled.")
        self._warn_of_failures()
        self._settle(error)
        self._end("cancelled", {"error": error.message, "error_code": error.error_code})

    def checkpoint_if_due(self) -> None:
        """Write files that are 50 events or 10 s behind. Called with every record; call it with a heartbeat too."""
        for file in self._files.values():
            file.checkpoint_if_due()

    def checkpoint(self) -> None:
        """Write all files."""
        for file in self._files.values():
            file.checkpoint()

    def close(self) -> None:
        """Shut down: what was held back is dropped, the files are written."""
        self.checkpoint()

    def _start(self, name: str, holder: str, allowed: Callable[[Documents], bool] = lambda documents: True) -> bool:
        file = FileManager(self._view, self._log.checkpoints, self._clock, name, 2 if name == RUN else 3)
        self._files[name] = file
        return file.start({"holder": holder}, allowed)

    def _start_processors(self, holder: str) -> None:
        # Of two processes that open a run at the same time one gets all its files: the one that has the run.
        for name in self.view.processors:
            self._start(name, holder, self._files[RUN].is_in_force)

    def _recover(self) -> None:
        run = self.view.run
        if run["status"] != "recovering":
            self._run_status("recovering", {"attempt": run["attempt"] + 1})
        self._held.clear()
        for name, row in self.view.components.items():
            if row["status"] != "waiting" and row["status"] not in DONE:
                self._component_status(name, "waiting", {})

    def _warn_of_failures(self) -> None:
        """Say once that optional components failed, however the run ends."""
        failed = any(row["status"] == "error" and not row["required"] for row in self.view.components.values())
        if failed and "partial_failure" not in self.view.run["warnings"]:
            self.warning("partial_failure")

    def _settle(self, error: TrendFlowError) -> None:
        for name, row in self.view.components.items():
            if row["status"] == "running":
                self._component_status(name, "error", {"error": error.message, "error_code": error.error_code})
            elif row["status"] == "waiting":
                self._component_status(name, "skipped", {"because": error.message})

    def _end(self, status: str, data: Mapping[str, Any]) -> None:
        self._run_status(status, data)
        self.checkpoint()
        self._export.write()

    def _run_status(self, to: str, data: Mapping[str, Any]) -> None:
        def draft(documents: Documents) -> Draft | None:
            run = documents[RUN]
            if run["status"] == to:
                return None
            newer = data.get("attempt", 0) > run.get("attempt", 0)
            if not run_may(run["status"], to, new_attempt=newer):
                raise IllegalTransition.of(self._run_path, run["status"], to)
            return Draft("run_status", self._run_path, run["status"], to, data)

        self._files[RUN].append(draft)

    def _leave_earlier_attempt(self, name: str) -> None:
        row = self._row(name)
        if row["status"] in COMPONENT_END and row["attempt"] < self.view.run["attempt"]:
            self._component_status(name, "waiting", {})

    def _component_status(self, name: str, to: str, data: Mapping[str, Any]) -> None:
        def draft(documents: Documents) -> Draft | None:
            run, row = documents[RUN], self._row(name, documents)
            newer = run["attempt"] > row["attempt"]
            if row["status"] == to and not newer:
                return None
            closed = run["status"] in RUN_END or (run["status"] != "running" and to in ("running", *DONE))
            cached = data.get("cache_hit", False)
            if closed or not component_may(row["status"], to, new_attempt=newer, cached=cached):
                raise IllegalTransition.of(name, row["status"], to)
            units = self._held.get(name, {}) if to in COMPONENT_END else {}
            return Draft("component_status", name, row["status"], to, {"attempt": run["attempt"], **units, **data})

        self._file_of(name).append(draft)
        self._held.pop(name, None)
        self._tell_processor(self._processor_of(name))

    def _tell_processor(self, name: str) -> None:
        """Let level 2 know when a processor's state, which follows from its components, has changed."""

        def draft(documents: Documents) -> Draft | None:
            known = documents[RUN]["processors"][name]
            processor = documents[name]["processor"]
            if all(known[key] == processor[key] for key in ("status", "started_at", "finished_at")):
                return None
            data = {"started_at": processor["started_at"], "finished_at": processor["finished_at"]}
            return Draft("processor_status", name, known["status"], processor["status"], data)

        if self._files[name].append(draft) is not None and self._view.documents[name]["processor"]["finished_at"]:
            self._files[RUN].checkpoint()

    def _progress_draft(self, name: str, documents: Documents) -> Draft | None:
        row = self._row(name, documents)
        return Draft("component_progress", name, data=self._held[name]) if row["status"] == "running" else None

    def _component_note(self, kind: str, name: str, data: Mapping[str, Any]) -> None:
        self._file_of(name).append(lambda documents: Draft(kind, name, data=data))
        self.checkpoint_if_due()

    def _run_note(self, kind: str, data: Mapping[str, Any]) -> None:
        self._files[RUN].append(lambda documents: Draft(kind, self._run_path, data=data))
        self.checkpoint_if_due()

    def _row(self, name: str, documents: Documents | None = None) -> Document:
        row = (documents or self._view.documents)[self._processor_of(name)]["components"][name]
        return dict(row)

    def _file_of(self, name: str) -> FileManager:
        return self._files[self._processor_of(name)]

    def _processor_of(self, name: str) -> str:
        """Raises `config_invalid` for a component that the plan of the run lacks."""
        for processor, document in self.view.processors.items():
            if name in document["components"]:
                return processor
        raise TrendFlowError("config_invalid", f"{name} is not a component of this run.", component=name)

    def _refuse(self, to: str) -> NoReturn:
        raise IllegalTransition.of(self._run_path, self._view.documents[RUN]["status"], to)


def _as_json(planned: Planned) -> dict[str, Any]:
    return {**asdict(planned), "depends_on": list(planned.depends_on)}
