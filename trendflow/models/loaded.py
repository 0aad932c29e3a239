"""What every loaded model says of itself, whichever runtime executes it."""

from __future__ import annotations

from typing import Any

from trendflow.contracts.artifact import ModelUsed
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensors import describe


class LoadedModel:
    """Base of the handles: the entry, the device and the row of `models_used`; see `ModelHandle`."""

    def __init__(self, entry: CatalogueEntry, device: str) -> None:
        self._entry = entry
        self._device = device
        self._used = entry.model_used(device)

    @property
    def entry(self) -> CatalogueEntry:
        return self._entry

    @property
    def used(self) -> ModelUsed:
        return self._used

    @property
    def device_used(self) -> str:
        return self._device

    def _description(self, engine_version: str) -> dict[str, Any]:
        """What is loaded and where, for logs and `doctor`."""
        return {
            "name": self._entry.name,
            "version": self._entry.version,
            "weights_digest": self._entry.weights_digest,
            "device": self._device,
            "engine_version": engine_version,
            "inputs": [describe(spec) for spec in self._entry.inputs],
            "outputs": [describe(spec) for spec in self._entry.outputs],
            "max_batch_size": self._entry.max_batch_size,
        }
