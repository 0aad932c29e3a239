"""`trendflow process` and `resume`: put a video in and see what comes out."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trendflow.commands.console import err, out, print_run
from trendflow.commands.sources import read_document
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.video_document import VideoDocument
from trendflow.submission.sources import Source, parse_source

if TYPE_CHECKING:
    from trendflow.orchestration.runs import RunContext

DEMO_SAMPLE = "samples/hello_face_speech.mp4"
DEMO_DOCUMENT = "samples/hello_face_speech.document.json"


def prepare_dagster_home(settings: Settings) -> None:
    """Point Dagster at its home; the shipped instance settings and empty databases go there once."""
    ensure_home(settings)
    if "DAGSTER_HOME" in os.environ:
        if not Path(os.environ["DAGSTER_HOME"]).is_absolute() or not Path(os.environ["DAGSTER_HOME"]).is_dir():
            raise TrendFlowError("config_invalid", "DAGSTER_HOME must be the absolute path of an existing folder.")
        return
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        temporary = home / f".dagster.yaml-{os.getpid()}"
        temporary.write_bytes(data_path("dagster.yaml").read_bytes())
        temporary.replace(home / "dagster.yaml")
    from trendflow.orchestration.history import create_history

    create_history(home)
    os.environ["DAGSTER_HOME"] = str(home)


@contextmanager
def _progress(names: list[str]) -> Iterator[None]:
    from trendflow.orchestration.progress import ProgressEvent, listening

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[outcome]}"),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=None, start=False, outcome="") for name in names}

        def listen(event: ProgressEvent) -> None:
            task = tasks.get(event.component)
            if task is None:
                return
            if not progress.tasks[task].started:
                progress.start_task(task)
            if event.state == "done":
                total = progress.tasks[task].total or 1
                progress.update(task, total=total, completed=total, outcome=event.outcome)
                progress.stop_task(task)
            elif event.total:
                progress.update(task, total=event.total, completed=event.done)

        with listening(listen):
            yield


def process(
    source: str, video_id: str | None, run_id: str | None, profile: str | None, force: bool, document: str | None
) -> int:
    """Submit one video, process it in this process and print the result. Returns the exit code.

    `document` is the path of the JSON file with the text of the video. What it says stays in this process.
    """
    settings = load_settings()
    parsed = parse_source(source, video_id)
    text = None if document is None else read_document(document)
    deployment, job = _load(settings)
    run = _submit(deployment, parsed, run_id, profile or settings.profile, force, text)
    return _execute(deployment, job, run, text)


def resume(key: str, document: str | None) -> int:
    """Continue a stored run; what it finished before is kept. Returns the exit code.

    A run that was submitted with a document needs it again where a result that reads it is missing.
    """
    text = None if document is None else read_document(document)
    deployment, job = _load(load_settings())
    from trendflow.orchestration.runs import open_run

    return _execute(deployment, job, open_run(deployment, key), text)


def process_sample() -> RunContext:
    """Process the sample that ships with the project, print the result and return its run."""
    settings = load_settings()
    source = parse_source(str(data_path(DEMO_SAMPLE)), None)
    text = read_document(str(data_path(DEMO_DOCUMENT)))
    deployment, job = _load(settings)
    run: RunContext = _submit(deployment, source, None, settings.profile, False, text)
    _execute(deployment, job, run, text)
    return run


def _load(settings: Settings) -> tuple[Any, Any]:
    """The deployment and its job. Takes seconds, which are no part of any run's time."""
    from trendflow.media import worker

    prepare_dagster_home(settings)
    with _interrupted_afterwards():
        worker.warm_up()  # the media child imports its libraries while this process imports its own
        with err.status("loading the asset graph"):
            from trendflow.definitions import load_job
            from trendflow.orchestration.deployment import open_deployment

            loaded = open_deployment(settings), load_job()
    return loaded


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block, pressed again at once.

    Python drops an interrupt that arrives in a callback of its garbage collector, and importing runs many of them.
    """
    pressed: list[int] = []

    def note(number: int, _frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _submit(
    deployment: Any,
    source: Source,
    run_id: str | None,
    profile: str,
    force: bool,
    document: VideoDocument | None = None,
) -> Any:
    from trendflow.orchestration.runs import new_run_id, resolve_profile, submit_run
    from trendflow.orchestration.segmenter_step import refuse_wrong_duration

    # Weights that are not in order would fail every component; better before a run exists than after.
    resolve_profile(deployment, profile)
    if source.source_type == "local_path":
        refuse_wrong_duration(deployment, profile, Path(source.locator))
    return submit_run(
        deployment,
        locator=source.locator,
        source_type=source.source_type,
        platform_id=source.platform_id,
        video_id=source.video_id,
        run_id=run_id or new_run_id(),
        profile=profile,
        force_recompute=force,
        document=document,
    )


def _execute(deployment: Any, job: Any, run: Any, document: VideoDocument | None) -> int:
    from trendflow.orchestration.document_input import providing

    with providing(run, document):  # refuses another document before anything is computed
        return _process_and_print(job, run)


def _process_and_print(job: Any, run: Any) -> int:
    from trendflow.contracts.manifest import CANCELLED
    from trendflow.orchestration.launch import process_here
    from trendflow.orchestration.report_step import report_key, report_location
    from trendflow.orchestration.wrapper import finalise, run_error, run_status

    key = run.identity.partition_key
    out.print(f"run [bold]{key}[/]", highlight=False, soft_wrap=True)
    started = time.monotonic()
    failure: TrendFlowError | None = None
    with _progress([node.name for node in run.enabled]):
        try:
            outcome = process_here(job, key)
        except TrendFlowError as error:
            outcome, failure = "error", error
    seconds = time.monotonic() - started
    if outcome == "cancelled":
        finalise(run, CANCELLED)
        raise TrendFlowError("cancelled", f"The run was stopped; continue it with: {_resume_command(run)}")
    manifest = run.manifest()
    print_run(run, manifest)
    status = run_status(run, manifest)
    hits = sum(1 for row in manifest["components"] if row["cache_hit"])
    out.print(f"{status} in {seconds:.2f} s, {hits} of {len(run.enabled)} components from cache")
    if status == "success" and outcome == "success":
        out.print(
            f"report {report_location(run.deployment.store, report_key(run.run_path))}", highlight=False, soft_wrap=True
        )
        return 0
    failure = failure or run_error(run, manifest)
    if failure is None:
        raise TrendFlowError("internal_error", "The run failed outside its components; see the Dagster event log.")
    if failure.error_class == "transient":
        out.print(f"continue with: {_resume_command(run)}", highlight=False, soft_wrap=True)
    raise failure


def _resume_command(run: Any) -> str:
    document = "" if run.document_digest is None else " --document FILE"
    return f"trendflow resume {run.identity.partition_key}{document}"
