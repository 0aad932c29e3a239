"""What every loaded model says of itself, whichever runtime executes it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.allocation import is_device_failure
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import with_ordinal
from trendflow.models.interface import ModelHandle
from trendflow.models.tensors import describe


class LoadedModel:
    """Base of the handles: the entry, the device and the row of `models_used`; see `ModelHandle`."""

    def __init__(self, entry: CatalogueEntry, device: str) -> None:
        self._entry = entry
        self._device = with_ordinal(device)
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

    def _out_of_memory(self, batch: int | None) -> TrendFlowError:
        name = self._entry.name
        return TrendFlowError("out_of_memory", f"{name} ran out of memory at batch {batch}.", entry=name, batch=batch)

    def _refusal(self, engine: str, said: str, **detail: str) -> TrendFlowError:
        """Why an inference failed that did not want for memory: the device fails, or else the inputs do not fit."""
        name = self._entry.name
        if self._device != "cpu" and is_device_failure(said):
            return TrendFlowError(
                "device_unavailable", f"{self._device} failed while {name} ran on it.", entry=name, device=self._device
            )
        return TrendFlowError("model_spec_invalid", f"{engine} refused the inputs of {name}.", entry=name, **detail)


class OwnedHandle(ModelHandle, Protocol):
    """A handle as its owner sees it: what to log of it, and the end of its life."""

    def describe(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class WrappedHandle:
    """Base of what stands around a loaded model: to the outside it is that model; see `ModelHandle`."""

    def __init__(self, model: ModelHandle) -> None:
        self._model = model

    @property
    def entry(self) -> CatalogueEntry:
        return self._model.entry

    @property
    def used(self) -> ModelUsed:
        return self._model.used

    @property
    def device_used(self) -> str:
        return self._model.device_used

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; see `ModelHandle.infer`."""
        return self._model.infer(inputs)


class TextHandle(WrappedHandle):
    """Base of the handles that put a tokenizer before a loaded model."""

    def __init__(self, model: OwnedHandle, vocabulary: int) -> None:
        super().__init__(model)
        self._owned = model
        self._vocabulary = vocabulary

    def describe(self) -> dict[str, Any]:
        return self._owned.describe() | {"vocabulary": self._vocabulary}

    def close(self) -> None:
        self._owned.close()


def tokenizers_library(entry: CatalogueEntry) -> ModuleType:
    """The package tokenizers. Raises `dependency_missing`."""
    try:
        import tokenizers
    except ImportError as exc:
        raise TrendFlowError(
            "dependency_missing", f"{entry.name} needs the package tokenizers.", kind="python_package"
        ) from exc
    return tokenizers
