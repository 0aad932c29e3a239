"""A text encoder: its own tokenizer in front of a loaded model, its own pooling behind it.

Which tokenizer, how long a chunk is, by how much chunks overlap and how token vectors become one vector are facts of
the catalogue entry. Components hand over text and get vectors; tokens never leave this module's types.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import OwnedHandle, TextHandle, tokenizers_library
from trendflow.models.vectors import unit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"
"""The file of an entry that makes it a text encoder, in the format of the `tokenizers` library."""

_INPUTS = ("input_ids", "attention_mask")


class TextEncoderHandle(TextHandle):
    """A loaded text encoder; implements `TextEncoder`. Safe to use from several threads."""

    def __init__(self, model: OwnedHandle, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer.get_vocab_size())
        entry = model.entry
        self._tokenizer = tokenizer
        self._width = _width(entry)
        self._output = entry.outputs[0].name
        self._limit = _count(entry, "max_tokens", 3, 1 << 20)
        self._head, self._tail = self._frame(str(entry.preprocessing.get("prefix", "")))
        room = self._limit - len(self._head) - len(self._tail)
        self._chunk = min(_count(entry, "chunk_tokens", 1, self._limit), room)
        self._overlap = _count(entry, "chunk_overlap", 0, self._chunk - 1)

    @classmethod
    def load(cls, model: OwnedHandle, tokenizer: Path) -> TextEncoderHandle:
        """Put a verified tokenizer file in front of a loaded model, whichever runtime executes that.

        Raises `model_load_failed` for a tokenizer that cannot be read.
        """
        return cls(model, _read_tokenizer(model.entry, tokenizer))

    def split(self, text: str) -> list[np.ndarray]:
        """The text as chunks of token ids, int64 `[≤ max_tokens]` each, framed as the model expects them.

        Chunks hold `chunk_tokens` tokens of the text and share `chunk_overlap` with their neighbour. A text without
        any token (only signs the tokenizer drops) has no chunk.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        step = self._chunk - self._overlap
        # The last chunk is the first one that reaches the end: a further one would only repeat its overlap.
        starts = range(0, max(len(ids) - self._overlap, 1), step) if ids else ()
        return [np.array([*self._head, *ids[at : at + self._chunk], *self._tail], np.int64) for at in starts]

    def embed(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors of up to `max_batch_size` chunks, float32 `[len(chunks), D]`.

        Raises what `infer` raises, and `artifact_validation_failed` for a vector of length zero.
        """
        if not chunks:
            return np.zeros((0, self._width), np.float32)
        longest = max(len(chunk) for chunk in chunks)
        ids = np.zeros((len(chunks), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, chunk in enumerate(chunks):
            ids[row, : len(chunk)], mask[row, : len(chunk)] = chunk, 1
        hidden = self.infer(dict(zip(_INPUTS, (ids, mask), strict=True)))[self._output]
        mean = np.einsum("bld,bl->bd", hidden, mask.astype(np.float64)) / mask.sum(axis=1, keepdims=True)
        return unit_rows(mean, self.entry.name)

    def _frame(self, prefix: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the text of every chunk: special tokens and the entry's prefix."""
        framed = self._tokenizer.encode(prefix)
        tail = 0
        while tail < len(framed.ids) and framed.special_tokens_mask[-1 - tail]:
            tail += 1
        # Without a prefix every token is special; the first stands before the text.
        tail = min(tail, len(framed.ids) - 1) if framed.ids else 0
        return framed.ids[: len(framed.ids) - tail], framed.ids[len(framed.ids) - tail :]


def _read_tokenizer(entry: CatalogueEntry, path: Path) -> Tokenizer:
    library = tokenizers_library(entry)
    try:
        tokenizer: Tokenizer = library.Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises bare Exception
        log.exception("the tokenizer of %s cannot be read", entry.name)
        raise TrendFlowError("model_load_failed", f"The tokenizer of {entry.name} cannot be read.") from exc
    # Files may carry the truncation and padding of the script that saved them; chunking decides here.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _width(entry: CatalogueEntry) -> int:
    """Checks that the entry describes a text encoder whose vectors this module can pool."""
    problem = None
    if entry.embedding_dim is None:
        problem = "states no embedding_dim"
    elif tuple(spec.name for spec in entry.inputs) != _INPUTS or len(entry.outputs) != 1:
        problem = f"does not map {' and '.join(_INPUTS)} to one output"
    elif len(entry.outputs[0].shape) != 3 or entry.outputs[0].shape[-1] != entry.embedding_dim:
        problem = "gives no vectors of its width per token"
    elif entry.postprocessing.get("pooling") != "mean_over_mask":
        problem = "asks for a pooling other than mean_over_mask"
    if problem is not None:
        raise TrendFlowError("model_spec_invalid", f"The text encoder {entry.name} {problem}.", entry=entry.name)
    return int(entry.embedding_dim or 0)


def _count(entry: CatalogueEntry, name: str, low: int, high: int) -> int:
    value = entry.preprocessing.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise TrendFlowError(
            "model_spec_invalid",
            f"preprocessing.{name} of the text encoder {entry.name} is no count from {low} to {high}.",
            entry=entry.name,
        )
    return value
