"""What the commands do: progress, tables, and the library underneath."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from training.compare import Comparison, compare, interval, markdown
from training.config import FamilyName, load_config
from training.documents import json_bytes
from training.model_card import model_card
from training.reuse import find_run
from training.run import REPORT, TrainingRun
from training.run import train as train_run
from trendflow.commands.files import require_folder, write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.reader import Dataset
from trendflow.storage.object_store import ObjectStore

_PIPE_WIDTH = 140


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


def _teller(progress: Progress, task: TaskID) -> Callable[[str], None]:
    """Shows the step that a training run is at, on its own line."""
    return lambda step: progress.update(task, step=step)


def train(
    dataset: Path,
    families: Sequence[str],
    config: Path | None,
    overrides: Mapping[str, Any],
    artifacts: Path,
    previous: Path | None,
    reuse: bool,
    use_store: bool,
) -> int:
    """Train one run per family, print its folder and, at the end, the table of all."""
    unknown = sorted(set(families) - set(get_args(FamilyName)))
    if unknown:
        known = ", ".join(get_args(FamilyName))
        raise TrendFlowError("config_invalid", f"Unknown families: {', '.join(unknown)}; known ones: {known}.")
    require_folder(artifacts)
    settings = [load_config(config, {**overrides, "family": family}) for family in families] or [
        load_config(config, overrides)
    ]
    store = _store() if use_store else None
    runs: list[TrainingRun] = []
    err = _console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[step]}"), TimeElapsedColumn()
    progress = Progress(*columns, console=err, disable=not err.is_terminal)
    with progress:
        for setting in settings:
            task = progress.add_task(setting.family, total=None, step="")
            found = find_run(artifacts, Dataset.read(dataset).fingerprint, setting) if reuse and not previous else None
            run = found or train_run(
                dataset,
                setting,
                artifacts,
                previous=previous,
                store=store,
                progress=_teller(progress, task),
            )
            progress.update(task, total=1, completed=1, step="done" if found is None else "reused")
            runs.append(run)
    out = _console()
    for run in runs:
        out.print(str(run.folder), highlight=False, soft_wrap=True)
        out.print(f"page {run.folder / REPORT}", highlight=False, soft_wrap=True)
    _print(compare([run.folder for run in runs]), out)
    return 0


def card(folders: Sequence[Path], output: Path | None) -> int:
    """The card of finished runs."""
    text = model_card(folders)
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(output, text.encode())
    return 0


def evaluate(folders: Sequence[Path], output: Path | None, page: Path | None) -> int:
    """Compare finished runs."""
    found = compare(folders)
    if output is not None:
        write_output(output, json_bytes(found.document))
    if page is not None:
        write_output(page, markdown(found).encode())
    _print(found, _console())
    return 0


def _store() -> ObjectStore:
    settings = load_settings()
    return ObjectStore.open(settings.resolved_store_url, settings.store_options)


def _print(found: Comparison, out: Console) -> None:
    if found.document["synthetic"]:
        out.print("[bold red]SYNTHETIC data: these numbers say nothing about real videos.[/]")
    if found.document["not_time_ordered"]:
        out.print("[yellow]not_time_ordered: folds are by channel only.[/]")
    for head in found.heads:
        rows = list(found.rows(head))
        table = Table(
            title=f"{head}  n = {rows[0][1]['n']}, {rows[0][1]['n_channels']} channels",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for column in ("", "Spearman", "RMSE", "MAE", "coverage"):
            table.add_column(column)
        for name, cell in rows:
            coverage = found.heads[head]["coverage"].get(name)
            style = "bold" if coverage is not None else ""
            table.add_row(
                name,
                *(interval(cell[metric]) for metric in ("spearman", "rmse", "mae")),
                "" if coverage is None else f"{coverage['value']:.2f}",
                style=style,
            )
        out.print(table)
        for model, names in found.unbeaten(head).items():
            out.print(f"[yellow]{model} is not shown to beat {', '.join(names)}.[/]")
        out.print()
