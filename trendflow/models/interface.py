"""What components see of a model: an entry that describes it and a way to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from trendflow.contracts.artifact import ModelUsed

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry


class ModelHandle(Protocol):
    """A loaded model. Loaded once per process and reused for every video."""

    @property
    def entry(self) -> CatalogueEntry: ...

    @property
    def used(self) -> ModelUsed: ...

    @property
    def device_used(self) -> str:
        """`cpu` or `cuda:<n>`."""
        ...

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch. Names, dtypes and shapes are checked against the entry on the way in and out.

        Raises `model_spec_invalid` (wrong input), `artifact_validation_failed` (missing, misshapen or non-finite
        output) or `out_of_memory`.
        """
        ...


@runtime_checkable
class TextEncoder(ModelHandle, Protocol):
    """A model that turns text into vectors: tokenizer, chunking and pooling are its own."""

    def split(self, text: str) -> list[np.ndarray]:
        """The text as chunks the model takes; none for a text without any token."""
        ...

    def embed(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors of up to `entry.max_batch_size` chunks, float32 `[len(chunks), D]`. Raises what `infer` does."""
        ...


@runtime_checkable
class PromptEncoder(ModelHandle, Protocol):
    """The text tower of an image–text model."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 `[len(texts), D]` in the space of the image tower.

        Each text is computed once per process; at most `entry.max_batch_size` may be new. Raises what `infer` does,
        and `config_invalid` for a text that is longer than the model's context.
        """
        ...
