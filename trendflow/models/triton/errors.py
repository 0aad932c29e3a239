"""Triton's failures as typed errors. One table, whatever was asked of the server."""

from __future__ import annotations

import logging

from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.allocation import is_allocation_failure

log = logging.getLogger(__name__)

_STATUS = {
    "UNAVAILABLE": ("triton_unavailable", "The Triton server cannot be reached or is not ready"),
    "CANCELLED": ("triton_unavailable", "The Triton server gave up a request"),
    "DEADLINE_EXCEEDED": ("triton_timeout", "The Triton server did not answer in time"),
    "NOT_FOUND": ("model_not_found", "The Triton server does not know the model or its version"),
    "INVALID_ARGUMENT": ("model_spec_invalid", "The Triton server refuses the request"),
}
_OTHER = ("triton_bad_response", "The Triton server failed")
_LOST = ("triton_unavailable", "The Triton server has to be started again: it lost the process that executes a model")
_NO_SHARED_MEMORY = "increase the shared memory pool"
"""How the Python backend says that the host has no more memory for it to share with its processes."""
_BACKEND_IS_GONE = "is not healthy"
"""How the Python backend says that its process died. The server itself lives on and calls the model ready."""


def typed(exc: InferenceServerException, entry: str | None = None) -> TrendFlowError:
    """The typed error of a failed call; `entry` is the model that was asked for.

    What the server says goes to the log and not into the error: it quotes paths of the server's machine.
    """
    status = str(exc.status() or "").rpartition(".")[2]
    code, sentence = _STATUS.get(status, _OTHER)
    said = str(exc.message())
    if code == _OTHER[0] and (is_allocation_failure(said) or _NO_SHARED_MEMORY in said):
        code, sentence = "out_of_memory", "The Triton server ran out of memory"
    elif code == _OTHER[0] and _BACKEND_IS_GONE in said:
        code, sentence = _LOST
    log.warning("triton answered %s for %s: %s", status, entry, said)
    detail = {"status": status} | ({"entry": entry} if entry else {})
    return TrendFlowError(code, f"{sentence}{f' ({entry})' if entry else ''}.", **detail)
