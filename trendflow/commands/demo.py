"""`trendflow demo`: from the sample video to a forecast of it. All after the video is SYNTHETIC and says so.

Real snapshots of real videos cannot be shipped, so a corpus is invented around the run of the sample: it imitates its
versions and values, and its models and forecast carry the label. It lives in memory until its dataset is written: on
disk it would be a hundred megabytes that nobody reads again. The same inputs give the same corpus and dataset, so a
second demonstration trains nothing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trendflow.commands.console import err, out
from trendflow.commands.files import write_output
from trendflow.commands.predict import print_forecast
from trendflow.commands.process import process_sample
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import ERROR_RULES, TrendFlowError

if TYPE_CHECKING:
    from trendflow.orchestration.forecast_step import StoredForecast
    from trendflow.orchestration.runs import RunContext

VIDEOS, SEED = 400, 0
FAMILIES = ("catboost", "lightgbm")
FIRST_COUNTS, FIRST_AGE = "views=1240,likes=62", timedelta(hours=10)
"""SYNTHETIC: the sample was never published."""


def demo() -> int:
    """Process the sample, invent a corpus, train on it, forecast the sample and say what to open."""
    from trendflow.orchestration.report_step import report_key, report_location

    run = process_sample()
    opened = run.deployment
    started = time.monotonic()
    out.print()
    out.print(
        "[bold red]SYNTHETIC[/] from here on: an invented corpus and an invented first snapshot show how the program "
        "works; their numbers say nothing about real videos."
    )
    folder = opened.settings.home / "demo" / _corpus_key(run)
    with err.status(f"inventing {VIDEOS} videos and building their dataset"):
        dataset = _dataset(run, folder)
    out.print(f"dataset {dataset}", highlight=False, soft_wrap=True)
    runs = train_families(dataset, folder / "training")
    forecast = _forecast(run, runs[FAMILIES[0]])
    print_forecast(run.identity.partition_key, forecast.document)
    out.print(f"from video to forecast; the SYNTHETIC part took {time.monotonic() - started:.2f} s")
    rows = [["what was found in the video", report_location(opened.store, report_key(run.run_path))]]
    rows += [[f"SYNTHETIC training run, {family}", str(path / "report.html")] for family, path in runs.items()]
    rows += [["SYNTHETIC forecast of the video", report_location(opened.store, forecast.page_key)]]
    out.print()
    out.print("[bold]open in a browser[/]")
    for what, where in rows:
        out.print(f"  {what:<32} {where}", highlight=False, soft_wrap=True)
    return 0


def _corpus_key(run: RunContext) -> str:
    """Names the corpus by all that it is invented from; a release that computes otherwise gets another."""
    manifest = run.manifest()
    block = manifest["run"]
    versions = [
        [row["name"], row["producer_version"], row["schema_version"], row["model_signature"], row["status"]]
        for row in manifest["components"]
    ]
    values = [
        artifact["content_digest"]
        for row in manifest["components"]
        if row["name"] == "feature_vector"
        for artifact in row["artifacts"]
    ]
    return digest_of([block["config_hash"], block["dataprocessor_version"], versions, values, VIDEOS, SEED])[:16]


def _dataset(run: RunContext, folder: Path) -> Path:
    """Invent the corpus, build its dataset and return the folder of that; the snapshots lie beside, to be looked at."""
    from trendflow.dataset.parquet import parquet_bytes
    from trendflow.dataset.simulation.runs import store_runs, template_of_run
    from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, synthetic_snapshots, synthetic_videos
    from trendflow.dataset.snapshots.importer import import_snapshots
    from trendflow.dataset.table.files import write_dataset
    from trendflow.orchestration.dataset_step import BuildRequest, build
    from trendflow.orchestration.deployment import Deployment

    opened = run.deployment
    corpus = Deployment(opened.settings.model_copy(update={"store_url": "memory://", "store_options": {}}))
    videos = synthetic_videos(VIDEOS, SEED)
    store_runs(corpus.results, template_of_run(opened.results, run.run_path), videos, seed=SEED)
    snapshots = folder / SNAPSHOT_FILE
    write_output(snapshots, parquet_bytes(synthetic_snapshots(videos, SEED)))
    found = import_snapshots([snapshots])
    block = run.manifest()["run"]
    request = BuildRequest(profile=block["profile"], config_hash=block["config_hash"], synthetic=True)
    built = build(corpus, found, None, request)
    return write_dataset(built, folder / "datasets", opened.schemas)


def train_families(dataset: Path, artifacts: Path) -> Mapping[str, Path]:
    """Train the families side by side, each in a process of its own. Returns the folder of each run.

    Raises the error that a training process ended with.
    """
    from trendflow.inference.bundle import MANIFEST, read_manifest

    package = importlib.util.find_spec("training")
    if package is None or package.origin is None:
        raise TrendFlowError("dependency_missing", "This installation lacks the package training.", kind="package")
    configs = Path(package.origin).parent / "configs"
    columns = SpinnerColumn(), TextColumn("training {task.description}"), TimeElapsedColumn()
    children: dict[str, subprocess.Popen[str]] = {}
    try:
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            tasks = {family: progress.add_task(family, total=1) for family in FAMILIES}
            for family in FAMILIES:
                command = [sys.executable, "-m", "training", "train", str(dataset), "--reuse"]
                command += ["--config", str(configs / f"demo_{family}.yaml"), "--artifacts", str(artifacts)]
                children[family] = subprocess.Popen(
                    [*command, "--family", family],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            for family, child in children.items():
                complaint = child.communicate()[1]
                if child.returncode:
                    raise _failed(family, complaint)
                progress.update(tasks[family], completed=1)
    finally:
        for child in children.values():
            if child.poll() is None:
                child.terminate()
                child.wait()
    runs = [path.parent for path in artifacts.glob(f"*/{MANIFEST}")]
    newest = sorted(runs, key=lambda path: read_manifest(path)["created_at"])
    found = {str(read_manifest(path)["model_family"]): path for path in newest}
    return {family: found[family] for family in FAMILIES}


def _failed(family: str, complaint: str) -> TrendFlowError:
    """The error of a training process, which ends with `<code>: <sentence>` like every command."""
    code, _, sentence = complaint.strip().rpartition("\n")[2].partition(": ")
    if code in ERROR_RULES:
        return TrendFlowError(code, f"Training {family}: {sentence}")
    return TrendFlowError("internal_error", f"Training {family} ended without a reason.")


def _forecast(run: RunContext, model: Path) -> StoredForecast:
    from trendflow.orchestration.forecast_step import find_snapshot, forecast, store_forecast

    key = run.identity.partition_key
    # As if it was looked at when it was handed in: a text that comes with a later run is unknown to a forecast.
    at = datetime.fromisoformat(run.manifest()["run"]["created_at"])
    first = find_snapshot(f"{FIRST_COUNTS},published={(at - FIRST_AGE).isoformat()},at={at.isoformat()}", key)
    return store_forecast(run.deployment, forecast(run.deployment, key, [model], first, allow_synthetic=True))
