"""Takes the text that waits for a run to where the run is executed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.video_document import VideoDocument
from trendflow.orchestration.document_input import is_provided, providing
from trendflow.orchestration.recorder import Halted
from trendflow.orchestration.run_state import RunFailed
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.waiting_text import discard_text, waiting_texts
from trendflow.state.errors import Fenced

log = logging.getLogger(__name__)


@contextmanager
def handed_over(run: RunContext) -> Iterator[None]:
    """Inside the block components of `run` can read the document that was handed over, if there is one.

    One that is gone is not provided, so that reading it fails as it does for every document that is missing; one that
    this process was given on another way stays. To be left after the end of the run was recorded. Raises
    `storage_unavailable` when the broker does not answer, `config_invalid` when the key is not that of the service.
    """
    if run.document_digest is None or is_provided(run):
        yield
        return
    try:
        with providing(run, _fetched(run)):
            yield
    except GeneratorExit:  # whoever drives this process let go of the run, and may take it up again
        raise
    except BaseException as cause:
        error = _error_of(cause)
        if not isinstance(error, Fenced):  # the process that has the run now needs the text
            discard_text(run.deployment, run.run_path, error)
        raise
    discard_text(run.deployment, run.run_path, None)


def _fetched(run: RunContext) -> VideoDocument | None:
    texts, digest = waiting_texts(run.deployment.settings), run.document_digest
    if texts is None or digest is None:
        return None
    with closing(texts):
        found = texts.get(digest, run.run_path)
    if found is None:
        log.warning("the document of the run is gone")
    return found


def _error_of(cause: BaseException) -> TrendFlowError:
    return cause.error if isinstance(cause, RunFailed | Halted) else as_typed(cause)
