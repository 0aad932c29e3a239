"""The `trendflow` command. Parsing only: each command lives in `trendflow.commands` and is imported when it runs.

Groups of commands are parsed in `trendflow.commands.*_group`, `snapshots` and `dataset`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from trendflow.commands import dataset, snapshots
from trendflow.commands.entry_point import run_app
from trendflow.commands.models_group import models_app
from trendflow.commands.schemas_group import components_app, schemas_app
from trendflow.commands.triton_group import triton_app
from trendflow.logs import configure_logging

app = typer.Typer(
    name="trendflow",
    help="Videos in, trustworthy features out: segment, measure, check and report, with every result reproducible.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(components_app, name="components")
app.add_typer(schemas_app, name="schemas")
app.add_typer(models_app, name="models")
app.add_typer(triton_app, name="triton")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(dataset.app, name="dataset")

# YouTube ids may begin with '-': such a run key is an argument, not a row of options.
_RUN_KEYS = {"ignore_unknown_options": True}
RunKey = Annotated[str, typer.Argument(metavar="VIDEO_ID/RUN_ID", help="A run, as printed by process or show.")]
# Commands that need no store, and those that say themselves how the fleet is.
_WITHOUT_STORE = {"up", "down", "status", "doctor", "triton", "models", "components", "schemas", "graph", "warm-up"}

_Priority = Literal["high", "normal", "low"]
_DOCUMENT = "The video's text as a JSON file: title, description, tags, language, transcript. It is read, never stored."


@app.callback()
def _root(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")] = False,
    home: Annotated[Path | None, typer.Option(help="State folder; default .trendflow or $TRENDFLOW_HOME.")] = None,
) -> None:
    configure_logging("text", "INFO" if verbose else "ERROR")
    if home is not None:
        os.environ["TRENDFLOW_HOME"] = str(home.expanduser().absolute())
    os.environ.setdefault("NUMBA_CACHE_DIR", str(_compiled_code()))
    if (_home() / "fleet" / "state.json").exists():  # asked here, because most commands start faster than it imports
        from trendflow.fleet.environment import require_keys_of_fleet, use_fleet

        is_up, uses_store = use_fleet(_home()), context.invoked_subcommand not in _WITHOUT_STORE
        if is_up and uses_store:
            require_keys_of_fleet(_home())
        elif uses_store:
            _say_that_it_is_down()


def _say_that_it_is_down() -> None:
    """What a fleet holds is not to be looked for, or lost, in another store without a word."""
    if not os.environ.get("TRENDFLOW_STORE_URL"):
        from trendflow.commands.console import err

        err.print(
            "the fleet of this home is not up: its store is not used here, but one of the home's own", style="yellow"
        )


def _home() -> Path:
    return Path(os.environ.get("TRENDFLOW_HOME") or ".trendflow").expanduser().absolute()


def _compiled_code() -> Path:
    """Where numba keeps compiled code: with the environment it belongs to, else with the state.

    Left to itself numba takes the folders of its packages, and fails where it may not write there.
    """
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "cache" / "numba"
    return _home() / "cache" / "numba"


@app.command()
def process(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A local video file or a YouTube video URL.")],
    video_id: Annotated[str | None, typer.Option(help="Id of the video; default from the URL or file.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Id of the run; default a new UUID.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of component_graph.yaml.")] = None,
    document: Annotated[str | None, typer.Option(metavar="FILE", help=_DOCUMENT)] = None,
    force: Annotated[bool, typer.Option("--force", help="Recompute everything, reuse nothing.")] = False,
) -> None:
    """Process one video now and print the result.

    A document is one JSON object, every field optional:

    {"title": "…", "description": "…", "tags": ["…"], "language": "en", "transcript": {"source": "captions",
    "observed_at": "2026-01-31T12:00:00Z", "segments": [{"start": 0, "end": 2.5, "text": "…", "confidence": 0.9}]}}
    """
    from trendflow.commands.process import process as run

    raise typer.Exit(run(source, video_id, run_id, profile, force, document))


@app.command(context_settings=_RUN_KEYS)
def resume(
    run_key: RunKey,
    document: Annotated[
        str | None, typer.Option(metavar="FILE", help="The document the run was submitted with; it was not stored.")
    ] = None,
) -> None:
    """Continue a stopped or failed run; what it finished is kept."""
    from trendflow.commands.process import resume as run

    raise typer.Exit(run(run_key, document))


@app.command()
def submit(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="FILE|URL", help="Local video files or YouTube video URLs.")
    ] = None,
    listed: Annotated[
        str | None, typer.Option("--list", metavar="FILE", help="A list of them: lines, or .csv or .json.")
    ] = None,
    channel: Annotated[str | None, typer.Option(metavar="URL", help="All videos of a channel or playlist.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of component_graph.yaml.")] = None,
    priority: Annotated[_Priority, typer.Option(help="Whose turn it is first; a list may state its own.")] = "normal",
    force: Annotated[bool, typer.Option("--force", help="Recompute everything, reuse nothing.")] = False,
    run_id: Annotated[str | None, typer.Option(help="Id of the run of one video; default a UUID.")] = None,
    submission_id: Annotated[
        str | None,
        typer.Option(metavar="YYYYMMDD-NAME", help="Id of the submission: the same one again changes nothing."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch until all runs have ended; Ctrl-C ends the watching only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Put videos into the queue; workers process them. One that cannot be taken is explained and stops no other.

    A CSV list has a header with `source` and any of `video_id`, `run_id`, `priority`; a JSON list is an array of
    sources or of objects with these keys.
    """
    from trendflow.commands.submit import Order
    from trendflow.commands.submit import submit as run

    order = Order(tuple(sources or ()), listed, channel, profile, priority, force, run_id, submission_id, wait, as_json)
    raise typer.Exit(run(order))


@app.command()
def submissions(
    submission_id: Annotated[
        str | None, typer.Argument(metavar="SUBMISSION", help="A submission; default lists the latest.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until all runs have ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what was submitted, or report one submission: what is done, what failed and why, what to do next."""
    from trendflow.commands.submissions import submissions as run

    raise typer.Exit(run(submission_id, wait, as_json))


@app.command(context_settings=_RUN_KEYS)
def retry(
    wanted: Annotated[
        str, typer.Argument(metavar="SUBMISSION|VIDEO_ID/RUN_ID", help="A submission, or one run that failed.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Watch until all runs have ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Submit again what failed of something that passes; what these runs had finished is reused."""
    from trendflow.commands.submissions import retry as run

    raise typer.Exit(run(wanted, wait, as_json))


@app.command()
def demo() -> None:
    """Process the sample video, train on a SYNTHETIC corpus, and forecast the video."""
    from trendflow.commands.demo import demo as run

    raise typer.Exit(run())


@app.command()
def up(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="SERVICE", help="Services with what they need; default all.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Workers that process videos; default as many as the last time.")
    ] = None,
) -> None:
    """Start the production shape as processes of this machine; other commands in this home then use it."""
    from trendflow.commands.fleet import up as run

    raise typer.Exit(run(services or [], workers))


@app.command()
def down() -> None:
    """End what `up` started; its data stay."""
    from trendflow.commands.fleet import down as run

    raise typer.Exit(run())


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say how the fleet is that `up` started, and where to reach it."""
    from trendflow.commands.fleet import status as run

    raise typer.Exit(run(as_json))


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
) -> None:
    """Open the Dagster UI with the asset graph; runs until you press Ctrl-C."""
    from trendflow.commands.upkeep import ui as run

    raise typer.Exit(run(host, port))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what is older than it is kept, and finish deletions of videos; the schedule does the same every night."""
    from trendflow.commands.retention import gc as run

    raise typer.Exit(run(dry_run, as_json))


@app.command(context_settings=_RUN_KEYS)
def delete(
    video_id: Annotated[str, typer.Argument(help="Id of the video.")],
    reason: Annotated[str, typer.Option(help="One word that the tombstone keeps.")] = "user_request",
    lift: Annotated[
        bool, typer.Option("--lift", help="Delete nothing: let a deleted video be submitted again.")
    ] = False,
) -> None:
    """Delete a video with everything that came from it, refuse it from now on, and print the receipt."""
    from trendflow.commands.retention import delete as erase
    from trendflow.commands.retention import lift as allow

    raise typer.Exit(allow(video_id) if lift else erase(video_id, reason))


@app.command(context_settings=_RUN_KEYS)
def show(
    run_key: Annotated[str | None, typer.Argument(metavar="VIDEO_ID/RUN_ID", help="A run; default lists all.")] = None,
    component: Annotated[str | None, typer.Argument(help="A component of that run.")] = None,
) -> None:
    """Show the stored runs, one run, or the arrays and features of one artifact."""
    from trendflow.commands.inspect_run import show as run

    raise typer.Exit(run(run_key, component))


@app.command(context_settings=_RUN_KEYS)
def validate(
    run_key: Annotated[str | None, typer.Argument(metavar="VIDEO_ID/RUN_ID", help="A run; default checks all.")] = None,
) -> None:
    """Check stored runs against digests, schemas and identities."""
    from trendflow.commands.inspect_run import validate as run

    raise typer.Exit(run(run_key))


@app.command(context_settings=_RUN_KEYS)
def report(
    run_key: RunKey,
    output: Annotated[Path | None, typer.Option(help="Also write the page to this file.")] = None,
) -> None:
    """Render the HTML report of a run."""
    from trendflow.commands.inspect_run import report as run

    raise typer.Exit(run(run_key, output))


@app.command(context_settings=_RUN_KEYS)
def health(
    run_keys: Annotated[
        list[str] | None, typer.Argument(metavar="VIDEO_ID/RUN_ID", help="Runs; default all of the profile.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile whose runs are judged.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of an earlier report, to find drift.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as one HTML page.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write it as JSON, the reference of later ones.")] = None,
    fail_on: Annotated[
        str | None, typer.Option(metavar="error|warning", help="Exit with an error when a rule of that weight fails.")
    ] = None,
) -> None:
    """Judge the features of all runs together: coverage, constants, ranges, duplicates, drift, provenance."""
    from trendflow.commands.health import health as run

    raise typer.Exit(run(run_keys or [], profile, reference, output, json, fail_on))


@app.command(context_settings=_RUN_KEYS)
def predict(
    run_key: RunKey,
    model: Annotated[
        list[str],
        typer.Option(
            "--model", metavar="FOLDER|NAME", help="A training run, or baseline_catboost for the asset's current one."
        ),
    ],
    snapshot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|VALUES",
            help="The first snapshot: a file that holds it, or its values; default is that of the stored snapshots.",
        ),
    ] = None,
    request: Annotated[
        str | None, typer.Option(metavar="v2|v1|baseline", help="The model wanted; default the highest tier given.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the page to this file.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the prediction report to this file.")] = None,
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Use a SYNTHETIC model, for tests; the report is stamped.")
    ] = False,
) -> None:
    """Forecast views and likes of a processed video after 7, 14 and 21 days.

    The first snapshot is a JSON, Parquet or CSV file, a folder of imported snapshots, or values:

    views=1200,likes=40,published=2026-03-01T12:00Z,at=2026-03-01T22:00Z
    """
    from trendflow.commands.predict import predict as run

    raise typer.Exit(run(run_key, model, snapshot, request, output, json, allow_synthetic))


@app.command(context_settings=_RUN_KEYS)
def explain(run_key: RunKey, component: Annotated[str, typer.Argument(help="A component of that run.")]) -> None:
    """Say, key part by key part, why an artifact was reused or recomputed."""
    from trendflow.commands.inspect_run import explain as run

    raise typer.Exit(run(run_key, component))


@app.command()
def costs(
    component: Annotated[str | None, typer.Argument(help="One component; default all.")] = None,
    parts: Annotated[bool, typer.Option("--parts", help="Show the phases of each component.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What the components cost on this kind of machine, as measured by the runs of this store."""
    from trendflow.commands.costs import costs as run

    raise typer.Exit(run(component, parts, as_json))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Examine everything that processing videos needs, and say what to do where something is wrong."""
    from trendflow.commands.doctor import doctor as run

    raise typer.Exit(run(as_json))


@app.command("warm-up")
def warm_up() -> None:
    """Compile numerical code now, so that the first video does not wait for it. `make setup` does this."""
    from trendflow.commands.upkeep import warm_up as run

    raise typer.Exit(run())


@app.command()
def graph(
    output: Annotated[Path, typer.Option("--output", "-o", help="SVG file to write.")] = Path("docs/graph.svg"),
) -> None:
    """Draw the component graph as an SVG picture."""
    from trendflow.commands.upkeep import graph as run

    raise typer.Exit(run(output))


def main() -> None:
    """Entry point: typed errors become one sentence and their exit code."""
    run_app(app)


if __name__ == "__main__":
    main()
