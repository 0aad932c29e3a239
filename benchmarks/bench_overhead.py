"""A whole asset run through Dagster against the same functions called directly: one process, warm models."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

from benchmarks.common import SAMPLE, Row, interleaved, median_ratio
from benchmarks.pipeline import call_directly, submit, temporary_deployment
from trendflow.commands.process import prepare_dagster_home
from trendflow.orchestration.inputs import drop_scratch
from trendflow.orchestration.launch import process_here

GOAL = 1.10
REPEATS = 3


def measure() -> list[Row]:
    # The assets find their deployment through the environment, as they do in production.
    with temporary_deployment() as deployment, patch.dict(os.environ, TRENDFLOW_HOME=str(deployment.settings.home)):
        os.environ.pop("DAGSTER_HOME", None)
        prepare_dagster_home(deployment.settings)
        # Loading the definitions reads the environment, so it waits for the lines above.
        from trendflow.definitions import load_job

        job = load_job()

        def as_assets() -> None:
            run = submit(deployment, SAMPLE)
            succeeded = process_here(job, run.identity.partition_key)
            drop_scratch(run)
            if not succeeded:
                raise RuntimeError("the run that should be measured failed")

        def directly() -> None:
            scratch = Path(tempfile.mkdtemp(dir=deployment.settings.home))
            call_directly(submit(deployment, SAMPLE), scratch)
            shutil.rmtree(scratch)

        times = interleaved({"assets": as_assets, "functions": directly}, REPEATS)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        Row(
            "whole asset run ÷ direct calls",
            SAMPLE.name,
            median_ratio(times["assets"], times["functions"]),
            "×",
            GOAL,
            f"{seconds['assets']:.2f} s against {seconds['functions']:.2f} s",
        )
    ]
