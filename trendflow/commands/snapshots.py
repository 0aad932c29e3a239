"""`trendflow snapshots`: import files, and collect live snapshots from the YouTube Data API."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.dataset.collector.schedule import Due, SchedulePolicy
    from trendflow.dataset.collector.snapshot_store import SnapshotStore
    from trendflow.dataset.snapshots.report import ImportReport
    from trendflow.storage.object_store import ObjectStore

app = typer.Typer(help="Snapshots of videos: import files, collect them live.", no_args_is_help=True)

Cadence = Annotated[float, typer.Option(min=0.1, help="Hours between two runs of the collector.")]
_SHOWN = 20


@app.command("import")
def import_command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the tables.")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="JSON shards, Parquet or CSV tables.")
    ] = None,
    collected: Annotated[bool, typer.Option("--collected", help="Also what the collector took.")] = False,
) -> None:
    """Import snapshots into one folder: snapshots.parquet, videos.parquet and import_report.json."""
    from rich.progress import Progress

    from trendflow.commands.console import err, out
    from trendflow.commands.files import cannot_be_written, require_folder
    from trendflow.config import load_settings
    from trendflow.dataset.snapshots.importer import add_files
    from trendflow.dataset.snapshots.observations import Observations
    from trendflow.orchestration.dataset_step import require_snapshots
    from trendflow.orchestration.deleted import load_tombstones

    if not files and not collected:
        raise TrendFlowError("config_invalid", "Name at least one file to import, or --collected.")
    require_folder(output)
    store = _store()
    deleted = load_tombstones(store, load_settings())
    into = Observations()
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        add_files(files or [], into, lambda path: progress.open(path, "rb", description=path.name))
        if collected:
            progress.add_task("reading what was collected", total=None)
            _snapshot_store(store).read_into(into)
    with err.status("sorting"):
        found = into.finish().without(deleted)
    _print_report(found.report)
    require_snapshots(found)
    try:
        found.write(output)
    except OSError as exc:
        raise cannot_be_written(output, exc) from exc
    out.print(f"tables {output}", highlight=False, soft_wrap=True)


@app.command(context_settings={"ignore_unknown_options": True})  # ids may begin with '-'
def track(
    video_ids: Annotated[list[str], typer.Argument(metavar="VIDEO_ID", help="YouTube videos to follow.")],
) -> None:
    """Register videos: their first snapshot is due at once, the others 7, 14 and 21 days after it."""
    from trendflow.commands.console import out
    from trendflow.contracts.identity import validate_video_id

    for video_id in video_ids:  # all are good before the first is registered
        validate_video_id("youtube", video_id)
    store, now = _snapshot_store(_store()), datetime.now(UTC)
    new = sum(store.track(video_id, now) for video_id in video_ids)
    out.print(f"{new} registered, {len(video_ids) - new} known before", highlight=False)


@app.command()
def due(cadence_hours: Cadence = 24.0) -> None:
    """List the snapshots that are due, those that come next, and those that were missed."""
    from trendflow.commands.console import err, out, table
    from trendflow.config import load_settings
    from trendflow.dataset.collector.quota import QuotaBudget
    from trendflow.dataset.collector.schedule import counts, schedule

    units, store = load_settings().youtube_daily_units, _store()
    policy = _policy(cadence_hours)
    with err.status("reading the schedule"):
        plan = schedule(_snapshot_store(store).unfinished(policy.horizons_days), datetime.now(UTC), policy)
    found = counts(plan)
    out.print(f"{found['due']} due, {found['waiting']} waiting, {found['missed']} missed", highlight=False)
    if plan:
        rows = [_row(item) for item in plan[:_SHOWN]]
        out.print(table(None, ["video", "day", "state", "due (UTC)", "closes (UTC)"], rows, right=("day",)))
        if len(plan) > _SHOWN:
            out.print(f"… and {len(plan) - _SHOWN} more", highlight=False)
    left = QuotaBudget(store, units).remaining
    out.print(f"quota: {left} of {units} units left today", highlight=False)


@app.command()
def collect(cadence_hours: Cadence = 24.0) -> None:
    """Take every snapshot that is due now. Run it on a schedule; what is answered already is not asked for again."""
    from rich.progress import Progress

    from trendflow.commands.console import err, out
    from trendflow.config import load_settings
    from trendflow.dataset.collector.access import open_client
    from trendflow.dataset.collector.collect import collect as run

    store = _store()
    client = open_client(load_settings(), store)
    store.probe()  # without conditional writes the quota and the snapshots of two collectors would overwrite each other
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("snapshots", total=None)
        report = run(
            _snapshot_store(store),
            client,
            _policy(cadence_hours),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    hidden = ", ".join(f"{n} without {name}" for name, n in report.hidden.items())
    out.print(
        f"{report.observed} taken, {report.unavailable} of unavailable videos, {report.missed} missed, "
        f"{report.deferred} deferred" + (f"; {hidden}" if hidden else ""),
        highlight=False,
    )
    if report.stopped is not None:
        raise report.stopped


def _store() -> ObjectStore:
    from trendflow.config import load_settings
    from trendflow.storage.object_store import ObjectStore

    settings = load_settings()
    return ObjectStore.open(settings.resolved_store_url, settings.store_options)


def _snapshot_store(store: ObjectStore) -> SnapshotStore:
    from trendflow.config import load_settings
    from trendflow.dataset.collector.snapshot_store import SnapshotStore
    from trendflow.orchestration.deleted import load_tombstones

    return SnapshotStore(store, load_tombstones(store, load_settings()))


def _policy(cadence_hours: float) -> SchedulePolicy:
    from trendflow.dataset.collector.schedule import SchedulePolicy

    return SchedulePolicy(cadence_hours=cadence_hours)


def _row(item: Due) -> list[str]:
    times = (item.due_at, item.closes_at)
    return [item.video_id, str(item.days), item.state, *(f"{time:%Y-%m-%d %H:%M}" for time in times)]


def _print_report(report: ImportReport) -> None:
    from trendflow.commands.console import out, table
    from trendflow.dataset.snapshots.report import RULES
    from trendflow.presentation.formatting import plural

    snapshots, videos = plural(report.n_snapshots, "snapshot"), plural(report.n_videos, "video")
    out.print(f"{snapshots} of {videos}", highlight=False)
    for source in report.sources:
        if ignored := source.get("ignored_columns"):
            names = ", ".join(map(repr, ignored))  # as any file may spell them, control characters and all
            out.print(f"{source['name']}: ignored {names}", highlight=False, markup=False, soft_wrap=True)
    rows = []
    for name, text in RULES.items():
        if report.counts[name]:
            columns = ", ".join(f"{count} {column}" for column, count in sorted(report.details.get(name, {}).items()))
            rows.append([name, str(report.counts[name]), f"{text} ({columns})" if columns else text])
    if rows:
        out.print(table(None, ["rule", "cases", "what was done"], rows, right=("cases",)))
