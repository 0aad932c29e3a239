"""Runs that ended well, noted so that a later submission of the same video is answered by them."""

from __future__ import annotations

import logging

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import run_status
from trendflow.storage.run_index import RunIndex

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
