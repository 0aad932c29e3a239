"""Building a dataset of 1 000 and of 10 000 SYNTHETIC runs in one command: speed, peak memory, and how both grow.

Runs have the form and size of real ones: a manifest of 31 kB and a feature vector of 290 kB. They lie in a local folder
of some 3 GB, which is deleted afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.bench_memory import peak_of
from benchmarks.common import Row
from trendflow.components.registry import load_registry
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.simulation.runs import Template, store_runs, template_of_profile
from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, SyntheticVideo, synthetic_snapshots, synthetic_videos
from trendflow.models.catalogue import Catalogue
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore

FEW, MANY = 1_000, 10_000
PROFILE = "starter"
GOAL_RUNS_PER_S = 300
GOAL_GB = 2.0
LINEAR = 1.1 * MANY / FEW
"""Ten times the runs may take ten times as long; a tenth is what the disk cache and the machine vary by."""


def template() -> Template:
    schemas = SchemaRegistry.load()
    registry = load_registry(load_graph(data_path("component_graph.yaml")), schemas, Catalogue.load())
    return template_of_profile(registry, PROFILE, schemas, "benchmark")


def build(home: Path, videos: list[SyntheticVideo]) -> tuple[int, float]:
    """Peak bytes and seconds of `trendflow dataset build`, with start-up and the import of the snapshots."""
    folder = home / f"of-{len(videos)}"
    folder.mkdir()
    pq.write_table(synthetic_snapshots(videos), folder / SNAPSHOT_FILE)
    command = [sys.executable, "-m", "trendflow", "dataset", "build", str(folder / SNAPSHOT_FILE)]
    environment = {**os.environ, "TRENDFLOW_HOME": str(home), "TRENDFLOW_STORE_URL": "", "TRENDFLOW_PROFILE": PROFILE}
    return peak_of([*command, "--synthetic", "--output", str(folder)], environment)


def measure() -> list[Row]:
    videos = synthetic_videos(MANY)
    with tempfile.TemporaryDirectory(prefix="trendflow-bench-") as folder:
        home = Path(folder)
        results, made = ResultStore(ObjectStore.open((home / "store").as_uri())), template()
        store_runs(results, made, videos[:FEW], threads=8)
        few_bytes, few_s = build(home, videos[:FEW])
        store_runs(results, made, videos[FEW:], threads=8)
        many_bytes, many_s = build(home, videos)
    each = (many_s - few_s) / (MANY - FEW)  # without start-up
    subject = f"{MANY} SYNTHETIC runs"
    return [
        Row(
            "dataset build, whole command, per 1000 runs",
            subject,
            many_s / MANY * 1000,
            "s",
            1000 / GOAL_RUNS_PER_S,
            f"{MANY / many_s:.0f} runs/s (goal {GOAL_RUNS_PER_S}); {1 / each:.0f} runs/s without start-up",
        ),
        Row(
            f"dataset build, time of {MANY} ÷ {FEW} runs",
            subject,
            many_s / few_s,
            "×",
            LINEAR,
            f"{few_s:.1f} s for {FEW}, {many_s:.1f} s for {MANY}, start-up in both",
        ),
        Row(
            "dataset build, peak memory",
            subject,
            many_bytes / 1e9,
            "GB",
            GOAL_GB,
            f"{few_bytes / 1e9:.2f} GB for {FEW}: {(many_bytes - few_bytes) / (MANY - FEW) / 1e3:.0f} kB a run more",
        ),
    ]
