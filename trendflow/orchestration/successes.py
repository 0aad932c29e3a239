"""Runs that ended well, noted so that a later submission of the same video is answered by them."""

from __future__ import annotations

import logging

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext, view_run
from trendflow.orchestration.wrapper import run_status
from trendflow.storage.run_index import ROOT, RunIndex

log = logging.getLogger(__name__)


def note_success(run: RunContext) -> bool:
    """Note the run if its manifest says that all of it ended well; True when that had to be done.

    Errors as `RunIndex.record`.
    """
    manifest, index = run.manifest(), RunIndex(run.deployment.store)
    finished_at = manifest["run"]["finished_at"]
    if finished_at is None or run_status(run, manifest) != "success":
        return False
    noted = index.latest(run.identity)
    if noted is not None and noted.finished_at >= finished_at:
        return False
    return index.record(run.identity, finished_at)


def note_success_if_possible(run: RunContext) -> None:
    """`note_success` at the end of a run, which does not fail of it: the reconciliation notes what is missing."""
    try:
        note_success(run)
    except TrendFlowError as error:
        log.warning("the success of the run is not noted yet: %s", error.error_code)


def note_all_if_lost(deployment: Deployment) -> int:
    """Note all successes again where the index is gone, as in a store that was restored; returns their number."""
    if deployment.store.folders(ROOT):
        return 0
    return RunIndex(deployment.store).rebuild(lambda manifest: _succeeded(deployment, manifest))


def _succeeded(deployment: Deployment, manifest: Manifest) -> bool:
    run = manifest["run"]
    try:
        return run_status(view_run(deployment, f"{run['video_id']}/{run['run_id']}"), manifest) == "success"
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        log.info("a run is not noted: %s", error.error_code)  # its profile is gone, so nobody can ask for it either
        return False
