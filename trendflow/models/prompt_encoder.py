"""The text tower of an image–text model: short texts in, unit vectors in the space of its images out.

What is in the ONNX file and what is done here are facts of the catalogue entry: the graph gives the hidden states of
all positions, already projected; here the position of the end mark is picked and scaled to length 1. Texts are few and
constant (a prompt bank), so every vector is computed once per process.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.clip_tokenizer import clip_tokenizer
from trendflow.models.loaded import OwnedHandle, TextHandle, tokenizers_library
from trendflow.models.vectors import unit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

VOCABULARY = "bpe_vocab.txt.gz"
"""The file of an entry that makes it a prompt encoder; its format is that of `clip_tokenizer`."""

_FACTS = (
    ("preprocessing", "tokenizer", "clip_bpe"),
    ("postprocessing", "pooling", "end_of_text"),
    ("postprocessing", "projection", "in_graph"),
)


class PromptEncoderHandle(TextHandle):
    """A loaded text tower; implements `PromptEncoder`. Safe to use from several threads."""

    def __init__(self, model: OwnedHandle, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer.get_vocab_size())
        self._context = _context(model.entry)
        self._input, self._output = model.entry.inputs[0].name, model.entry.outputs[0].name
        self._tokenizer = tokenizer
        self._start, self._end = self._vocabulary - 2, self._vocabulary - 1
        self._vectors: dict[str, np.ndarray] = {}

    @classmethod
    def load(cls, model: OwnedHandle, vocabulary: Path) -> PromptEncoderHandle:
        """Put a verified vocabulary in front of a loaded model, whichever runtime executes that.

        Raises `model_load_failed` for a vocabulary that cannot be read.
        """
        return cls(model, _read_vocabulary(model.entry, vocabulary))

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 `[len(texts), context]`: start mark, text, end mark, zeros.

        Raises `config_invalid` for a text that does not fit; cut off it would mean something else.
        """
        ids = np.zeros((len(texts), self._context), np.int64)
        for row, text in enumerate(texts):
            tokens = [self._start, *self._tokenizer.encode(text, add_special_tokens=False).ids, self._end]
            if len(tokens) > self._context:
                raise TrendFlowError(
                    "config_invalid",
                    f"A prompt has {len(tokens)} tokens, more than the {self._context} of {self.entry.name}.",
                )
            ids[row, : len(tokens)] = tokens
        return ids

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 `[len(texts), D]` of up to `max_batch_size` texts that are new to this process.

        Raises what `infer` and `tokenize` raise, and `artifact_validation_failed` for a vector of length zero.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            ids = self.tokenize(new)
            hidden = self.infer({self._input: ids})[self._output]
            at_end = hidden[np.arange(len(new)), (ids == self._end).argmax(axis=1)]
            self._vectors.update(zip(new, unit_rows(at_end, self.entry.name), strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _read_vocabulary(entry: CatalogueEntry, path: Path) -> Tokenizer:
    tokenizers_library(entry)
    size = entry.preprocessing.get("vocabulary_size")
    if isinstance(size, bool) or not isinstance(size, int):
        raise _invalid(entry, "states no preprocessing.vocabulary_size")
    try:
        return clip_tokenizer(path.read_bytes(), size)
    except (OSError, ValueError) as exc:
        log.exception("the vocabulary of %s cannot be read", entry.name)
        raise TrendFlowError("model_load_failed", f"The vocabulary of {entry.name} cannot be read.") from exc


def _context(entry: CatalogueEntry) -> int:
    """The number of token positions, after checking that the entry describes a tower this module can use."""
    for group, name, value in _FACTS:
        facts: dict[str, Any] = getattr(entry, group)
        if facts.get(name) != value:
            raise _invalid(entry, f"does not state {group}.{name} as {value}")
    if len(entry.inputs) != 1 or len(entry.outputs) != 1:
        raise _invalid(entry, "does not map one input to one output")
    ids, hidden = entry.inputs[0], entry.outputs[0]
    if ids.dtype != "int64" or len(ids.shape) != 2 or not isinstance(ids.shape[1], int):
        raise _invalid(entry, "takes no fixed number of token ids")
    if hidden.shape != (ids.shape[0], ids.shape[1], entry.embedding_dim):
        raise _invalid(entry, "gives no vector of its width per token")
    return ids.shape[1]


def _invalid(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("model_spec_invalid", f"The prompt encoder {entry.name} {problem}.", entry=entry.name)
