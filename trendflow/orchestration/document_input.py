"""Hands the text of a video to the components of its run.

The store keeps the digest of a document only. Whoever starts the processing provides the text, and this process holds
it in memory for that long; a run resumed without it can still reuse every result whose key holds its digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import VideoDocument
from trendflow.orchestration.runs import RunContext

_provided: dict[str, VideoDocument] = {}


@contextmanager
def providing(run: RunContext, document: VideoDocument | None) -> Iterator[None]:
    """Components of `run` that execute in this process inside the block can read `document`. None provides nothing.

    Raises `input_constraint_violated` when the run was submitted without a document or with another one.
    """
    if document is None:
        yield
        return
    if document.digest != run.document_digest:
        raise TrendFlowError(
            "input_constraint_violated",
            "The document is not the one this run was submitted with; submit the video again with the new one.",
        )
    _provided[run.run_path] = document
    try:
        yield
    finally:
        _provided.pop(run.run_path, None)


def is_provided(run: RunContext) -> bool:
    """Whether this process was given a document of `run`."""
    return run.run_path in _provided


def open_document(run: RunContext) -> VideoDocument:
    """The document of `run`. Raises `dependency_missing` when it has none or when this process was not given it."""
    if run.document_digest is None:
        raise TrendFlowError("dependency_missing", "The run was submitted without a document.", kind="document")
    document = _provided.get(run.run_path)
    if document is None or document.digest != run.document_digest:
        raise TrendFlowError(
            "dependency_missing", "The document of the run is not stored; provide it again to resume.", kind="document"
        )
    return document
