"""How often what failed is tried again: the one place where the rule of all layers stands.

An operation has one number of retries, that of its error code (`ERROR_RULES`), and one layer that uses them:

request    to the store, a platform or a model server: by the layer that sends it. An error that is left then is marked
           (`exhausted`) and no component is repeated for it.
component  what failed otherwise, by `wrapper.run_component`, within the limit of the run. What it reports is final.
run        by the sensor of `relaunch_sensor`, for outages alone: nothing could be begun, recorded or stored. These are
           errors outside of components, and `storage_unavailable` of any. Retries of the component that ended the run
           count, and so do earlier launches, whatever their code. A run-scope timeout is always that of a component,
           hence final: another launch would have the whole time again.

So a run is executed `max_retries` + 1 times at most: four. Where every attempt fails of `storage_unavailable` a
component is executed four times; where outages used up all launches and the last attempt fails of something else, seven
times. A worker begins no run while the store does not answer, so one launch outlasts an outage of any length.
"""

from __future__ import annotations

from collections.abc import Mapping

from trendflow.contracts.errors import ERROR_RULES
from trendflow.orchestration.queue.names import ERROR_CODE_TAG

RETRY_TAG = "trendflow/retry"
"""Of a run that was launched again: for the how-manieth time."""
USED_TAG = "trendflow/retries_used"
"""Retries that a run and those before it have used up."""
LEFT_TAG = "trendflow/retries_left"
"""Of a run that ended in an error: how often it may be launched again."""

_OUTAGE = "storage_unavailable"


def may_be_launched_again(error_code: str, *, of_component: bool) -> bool:
    """Whether a run that ended of this code can be, before its launches are counted."""
    return ERROR_RULES[error_code].max_retries > 0 and (error_code == _OUTAGE or not of_component)


def failure_tags(run_tags: Mapping[str, str], error_code: str, component_retries: int | None = None) -> dict[str, str]:
    """Tags of a Dagster run with `run_tags` that ends of `error_code`.

    `component_retries`: those of the component that ended it, None where none did.
    """
    allowed = ERROR_RULES[error_code].max_retries
    used = int(run_tags.get(USED_TAG, 0))
    if component_retries is not None:
        # What a component reports is final, but for an outage: by now it has been repeated as often as it may be.
        used += component_retries if error_code == _OUTAGE else allowed
    return {ERROR_CODE_TAG: error_code, USED_TAG: str(used), LEFT_TAG: str(max(0, allowed - used))}
