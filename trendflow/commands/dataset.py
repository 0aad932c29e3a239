"""`trendflow dataset`: build the table of many runs, look into one, look channels up, simulate a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.config import Settings
    from trendflow.dataset.snapshots.tables import SnapshotSet
    from trendflow.dataset.table.contents import Progress
    from trendflow.dataset.table.reader import Dataset
    from trendflow.storage.object_store import ObjectStore

app = typer.Typer(help="Datasets: one row per video, without leaks.", no_args_is_help=True)

Snapshots = Annotated[
    list[Path], typer.Argument(metavar="FOLDER|FILE", help="A folder of `snapshots import`, or files to import.")
]
Profile = Annotated[str | None, typer.Option(help="Profile of component_graph.yaml.")]
_READERS, _MOST_READERS = 8, 64


@app.command()
def build(
    snapshots: Snapshots,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where datasets go; default <home>/datasets."),
    ] = None,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="Use first snapshots alone, without any run.")
    ] = False,
    profile: Profile = None,
    config_hash: Annotated[
        str | None, typer.Option(help="Configuration of the runs; default is that of the profile as it stands.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(metavar="FILE", help="Feature spec; default is the shipped one.")] = None,
    channels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of channels that `dataset channels` wrote.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, max=_MOST_READERS, help="Files read at once.")] = _READERS,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Keep runs of several releases; training refuses the result.")
    ] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Accept SYNTHETIC inputs; everything made of them says so.")
    ] = False,
) -> None:
    """Build a dataset of the newest successful run of every video, its first snapshot and its targets."""
    from trendflow.commands.console import out
    from trendflow.commands.files import require_folder
    from trendflow.config import load_settings
    from trendflow.dataset.table.enrichment import Enrichment
    from trendflow.dataset.table.files import write_dataset
    from trendflow.dataset.table.reader import Dataset
    from trendflow.orchestration.dataset_step import BuildRequest
    from trendflow.orchestration.dataset_step import build as run
    from trendflow.orchestration.deployment import open_deployment

    settings = load_settings()
    deployment = open_deployment(settings)
    request = BuildRequest(profile, config_hash, metadata_only, spec, readers, allow_mixed, synthetic)
    request.require_consistent()
    parent = output or settings.home / "datasets"
    require_folder(parent)
    enrichment = None if channels is None else Enrichment.read(channels)
    found = _snapshots(snapshots)
    with _progress() as told:
        built = run(deployment, found, enrichment, request, told)
    folder = write_dataset(built, parent, deployment.schemas)
    _print(Dataset.read(folder, deployment.schemas))
    out.print(f"dataset {folder}", highlight=False, soft_wrap=True)


@app.command()
def show(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a dataset.")]) -> None:
    """Verify a dataset, hold it against the leakage guard again, and print what it is."""
    from trendflow.dataset.leakage import audit_dataset, require_clean
    from trendflow.dataset.table.reader import Dataset

    dataset = Dataset.read(folder)
    require_clean(audit_dataset(dataset))
    _print(dataset)


@app.command()
def channels(
    snapshots: Snapshots,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Parquet file to write.")],
) -> None:
    """Ask the YouTube Data API for the channels that snapshots lack."""
    from trendflow.commands.console import err, out
    from trendflow.commands.files import require_folder, write_output
    from trendflow.config import load_settings
    from trendflow.dataset.collector.access import open_client
    from trendflow.dataset.collector.channels import ChannelLookup
    from trendflow.dataset.table.enrichment import look_up_channels
    from trendflow.orchestration.deleted import load_tombstones

    settings = load_settings()
    store = _store(settings)
    client = open_client(settings, store)
    require_folder(output.parent)  # the answers cost quota
    found = _snapshots(snapshots).without(load_tombstones(store, settings))
    with err.status("asking for channels"):
        enrichment = look_up_channels(found, ChannelLookup(client, store))
    write_output(output, enrichment.to_parquet())
    known = enrichment.table.num_rows - enrichment.table["channel_id"].null_count
    out.print(f"{known} channels of {enrichment.table.num_rows} videos {output}", highlight=False, soft_wrap=True)


@app.command()
def simulate(
    count: Annotated[int, typer.Argument(min=1, help="Videos to invent.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the snapshots.")],
    profile: Profile = None,
    like: Annotated[
        str | None, typer.Option(metavar="VIDEO_ID/RUN_ID", help="Imitate the versions and values of this run.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed invents other videos.")] = 0,
) -> None:
    """Store SYNTHETIC runs and write SYNTHETIC snapshots of them, to try out what needs many videos."""
    from trendflow import __version__
    from trendflow.commands.console import err, out
    from trendflow.commands.files import require_folder, write_output
    from trendflow.config import load_settings
    from trendflow.dataset.parquet import parquet_bytes
    from trendflow.dataset.simulation.runs import store_runs, template_of_profile, template_of_run
    from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, synthetic_snapshots, synthetic_videos
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.runs import run_path_of

    require_folder(output)
    settings = load_settings()
    deployment = open_deployment(settings)
    if like is not None:
        template = template_of_run(deployment.results, run_path_of(like))
    else:
        chosen = profile or settings.profile
        template = template_of_profile(deployment.registry, chosen, deployment.schemas, __version__)
    with err.status("inventing videos"):
        videos = synthetic_videos(count, seed)
    with _progress() as told:
        store_runs(deployment.results, template, videos, seed=seed, progress=told)
    file = output / SNAPSHOT_FILE
    with err.status("inventing snapshots"):
        write_output(file, parquet_bytes(synthetic_snapshots(videos, seed)))
    out.print(f"{count} SYNTHETIC videos, snapshots {file}", highlight=False, soft_wrap=True)


def _snapshots(paths: list[Path]) -> SnapshotSet:
    from trendflow.commands.console import err
    from trendflow.dataset.snapshots.importer import import_snapshots
    from trendflow.dataset.snapshots.tables import SnapshotSet

    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise TrendFlowError("dependency_missing", f"There is no file or folder {missing[0]!r}.", kind="file")
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise TrendFlowError("config_invalid", "Name one folder of imported snapshots, or files to import.")
    with err.status("reading snapshots"):
        return SnapshotSet.read(folders[0]) if folders else import_snapshots(paths)


def _store(settings: Settings) -> ObjectStore:
    from trendflow.storage.object_store import ObjectStore

    return ObjectStore.open(settings.resolved_store_url, settings.store_options)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar per phase on the terminal, and the callback of a build that moves them."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from trendflow.commands.console import err

    tasks: dict[str, TaskID] = {}
    with Bars(console=err, transient=True, disable=not err.is_terminal) as bars:

        def told(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield told


def _print(dataset: Dataset) -> None:
    from trendflow.commands.console import out, table

    found = dataset.metadata
    marks = [name for name, holds in (("SYNTHETIC", dataset.synthetic), ("MIXED", dataset.mixed)) if holds]
    out.print(
        f"[bold]{found['dataset_version']}[/]  {found['n_rows']} videos of {found['n_channels']} channels, "
        f"{found['n_feature_columns']} features{''.join(f', [red]{mark}[/]' for mark in marks)}",
        highlight=False,
        soft_wrap=True,
    )
    heads = [
        [head, f"{share:.1%}", ", ".join(f"{count} {reason}" for reason, count in found["mask_reasons"][head].items())]
        for head, share in found["mask_coverage"].items()
    ]
    out.print(table(None, ["target", "coverage", "missing"], heads, right=("coverage",)))
    cases = [[f"without a row: {reason}", str(count)] for reason, count in found["excluded"].items()]
    cases += [[name.replace("_", " "), str(count)] for name, count in found["edge_cases"].items() if count]
    cases += [[f"channel {name.replace('_', ' ')}", str(n)] for name, n in found["channel_enrichment"].items() if n]
    if cases:
        out.print(table(None, ["case", "count"], cases, right=("count",)))
