"""The `python -m training` command, also `trendflow-train`: train a family, compare runs, write their card."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from trendflow.commands.entry_point import run_app
from trendflow.logs import configure_logging

app = typer.Typer(
    name="training",
    help="Baselines on a dataset folder: split, train, evaluate beside comparators, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Artifacts = Annotated[Path, typer.Option(help="Folder of the training runs.")]
_DEFAULT = Path("training/artifacts")
_CONFIG = "Settings: a YAML file, or one of training/configs by its name, such as few_rows_time; options go on top."


@app.callback()
def _root(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")] = False) -> None:
    configure_logging("text", "INFO" if verbose else "ERROR")


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(metavar="FOLDER", help="A dataset, as `dataset build` writes it.")],
    family: Annotated[
        list[str] | None, typer.Option(help="catboost, lightgbm or hist_gradient_boosting; may be repeated.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help=_CONFIG)] = None,
    split: Annotated[str | None, typer.Option(help="time, rolling_origin or group_kfold (not_time_ordered).")] = None,
    time_key: Annotated[str | None, typer.Option(help="publish_time or snapshot1_at.")] = None,
    t_val: Annotated[datetime | None, typer.Option(help="Start of val, UTC; default 80 % of the rows.")] = None,
    t_test: Annotated[datetime | None, typer.Option(help="Start of test, UTC; default 90 % of the rows.")] = None,
    channel_rule: Annotated[str | None, typer.Option(help="majority or latest.")] = None,
    embargo: Annotated[
        bool | None, typer.Option("--embargo/--no-embargo", help="Drop targets observed after the start of test.")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Of rolling_origin and group_kfold.")] = None,
    min_rows: Annotated[int | None, typer.Option(min=1, help="Smallest part that is accepted.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random state of everything.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of one fit.")] = None,
    previous: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Run of the model to be replaced, for the quality gate.")
    ] = None,
    artifacts: Artifacts = _DEFAULT,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take the run that did the same before, if there is one.")
    ] = False,
    store: Annotated[bool, typer.Option("--store", help="Put the run into the object store too.")] = False,
) -> None:
    """Train the six heads and write one run folder per family."""
    from training.commands import train as run

    chosen: dict[str, Any] = {"seed": seed, "threads": threads}
    division: dict[str, Any] = {
        "method": split,
        "time_key": time_key,
        "t_val": _utc(t_val),
        "t_test": _utc(t_test),
        "channel_rule": channel_rule,
        "embargo": embargo,
        "folds": folds,
        "min_rows": min_rows,
    }
    overrides = {**_given(chosen), "split": _given(division)}
    raise typer.Exit(run(dataset, family or [], config, overrides, artifacts, previous, reuse, store))


@app.command()
def card(
    runs: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Training runs on the same split.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Markdown file; default prints.")] = None,
) -> None:
    """Write the model card of runs: use, data, split, evaluation, limits."""
    from training.commands import card as run

    raise typer.Exit(run(runs, output))


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Training runs on the same split.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the comparison as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
) -> None:
    """Compare runs of one dataset and split: every model beside all comparators, with paired differences."""
    from training.commands import evaluate as run

    raise typer.Exit(run(runs, output, markdown))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _utc(moment: datetime | None) -> str | None:
    """A moment without a zone, as the command line gives it, is meant in UTC."""
    return None if moment is None else f"{moment.isoformat()}+00:00"


def main() -> None:
    """Entry point: typed errors become one sentence and their exit code."""
    run_app(app)
