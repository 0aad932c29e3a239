"""A whole asset run through Dagster against the functions behind it: one process, warm models.

Measured twice. Calling the functions directly in a turn of their own is the plain comparison, but a turn takes tens of
seconds, and whatever else the machine does meanwhile falls on one side only. So the time that the same functions take
*inside* the asset run is measured as well: numerator and denominator then come from the same seconds.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.common import SAMPLE, Row, interleaved, median_ratio, spread
from benchmarks.pipeline import DOCUMENT, call_directly, same_results, submit, temporary_deployment, timed_functions
from trendflow.commands.process import prepare_dagster_home
from trendflow.contracts.artifact import Artifact
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.launch import process_here
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.scratch import drop_scratch

GOAL = 1.10
REPEATS = 3


def measure() -> list[Row]:
    runs: list[RunContext] = []
    results: list[dict[str, Artifact]] = []
    within: list[float] = []
    # The assets find their deployment through the environment, as they do in production.
    with temporary_deployment() as deployment, patch.dict(os.environ, TRENDFLOW_HOME=str(deployment.settings.home)):
        os.environ.pop("DAGSTER_HOME", None)
        prepare_dagster_home(deployment.settings)
        # Loading the definitions reads the environment, so it waits for the lines above.
        from trendflow.definitions import load_job

        job = load_job()

        def as_assets() -> None:
            start = time.perf_counter()
            run = submit(deployment, SAMPLE)
            with timed_functions(run) as calls, providing(run, DOCUMENT):
                outcome = process_here(job, run.identity.partition_key)
            drop_scratch(run)
            within.append((time.perf_counter() - start) / sum(calls))
            if outcome != "success":
                raise RuntimeError(f"the run that should be measured ended in {outcome}")
            runs.append(run)

        def directly() -> None:
            scratch = Path(tempfile.mkdtemp(dir=deployment.settings.home))
            results.append(call_directly(submit(deployment, SAMPLE), scratch))
            shutil.rmtree(scratch)

        times = interleaved({"assets": as_assets, "functions": directly}, REPEATS)
        if not same_results(runs[-1], results[-1]):
            raise RuntimeError("the asset run and the direct calls did not do the same work")
    seconds = {name: statistics.median(values) for name, values in times.items()}
    between = [a / b for a, b in zip(times["assets"], times["functions"], strict=True)]
    inside = within[1:]  # the first turn warms up here too
    return [
        Row(
            "whole asset run ÷ its functions, inside that run",
            SAMPLE.name,
            statistics.median(inside),
            "×",
            GOAL,
            f"turns {spread(inside)}",
        ),
        Row(
            "whole asset run ÷ direct calls in turns",
            SAMPLE.name,
            median_ratio(times["assets"], times["functions"]),
            "×",
            GOAL,
            f"{seconds['assets']:.2f} s against {seconds['functions']:.2f} s, turns {spread(between)}",
        ),
    ]
