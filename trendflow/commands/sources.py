"""What a person points at beside the video itself: a document."""

from __future__ import annotations

from trendflow.contracts.video_document import MAX_DOCUMENT_BYTES, VideoDocument, parse_document
from trendflow.submission.sources import existing_path


def read_document(text: str) -> VideoDocument:
    """The document in a JSON file. Its text lives in memory only, so a pipe (`/dev/stdin`) serves as well.

    Raises `source_unavailable` for a folder and for a file that is not there or may not be read,
    `input_constraint_violated` for what is not a document; the messages quote nothing of it.
    """
    with existing_path(text) as path, path.open("rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)  # one more than is allowed: enough to be refused
    return parse_document(data)
