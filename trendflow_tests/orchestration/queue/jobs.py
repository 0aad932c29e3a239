"""SYNTHETIC job for the workers of the tests: it notes who worked, and waits, fails or dies when it is told to."""

import json
import os
import signal
import time
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    Definitions,
    Failure,
    JobDefinition,
    asset,
    define_asset_job,
    in_process_executor,
)

from trendflow.config import load_settings
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.queue.child import leaving_to_successor

MODEL = "dis_flow_320"  # an algorithm: needs no weights
FOLDER, NAME, DEADLY = "test/folder", "test/name", "test/deadly"


@asset
def work(context: AssetExecutionContext) -> None:
    with leaving_to_successor(context.instance, context.run):
        _work(context)


def _work(context: AssetExecutionContext) -> None:
    tags = context.run.tags
    folder, name = Path(tags[FOLDER]), tags[NAME]
    deployment = open_deployment(load_settings())
    handle = deployment.pool.get(deployment.catalogue[MODEL])
    note = {"name": name, "pid": os.getpid(), "parent": os.getppid(), "handle": id(handle)}
    with (folder / "work.jsonl").open("a") as notes:
        notes.write(json.dumps(note) + "\n")
    if DEADLY in tags:
        os.kill(os.getpid(), signal.SIGKILL)
    while (folder / f"{name}.wait").exists():
        if (folder / f"{os.getpid()}.fail").exists():
            raise Failure("Told to fail.")
        time.sleep(0.02)  # a file is all that the test shares with this process


defs = Definitions(assets=[work], jobs=[define_asset_job("work_job", [work], executor_def=in_process_executor)])


def load() -> JobDefinition:
    return defs.resolve_job_def("work_job")
