"""Warm models: each entry is loaded once per process and device and serves every video after that."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import OwnedHandle
from trendflow.models.store import WeightsStore

_Key = tuple[str, str, str, str]


class ModelPool:
    """Handles by (entry, version, weights, device)."""

    def __init__(self, models_dir: Path, threads: int = 0) -> None:
        self._store = WeightsStore(models_dir)
        self._threads = threads
        self._handles: dict[_Key, OwnedHandle] = {}
        self._lock = threading.Lock()

    def get(self, entry: CatalogueEntry, device: str | None = None) -> OwnedHandle:
        """The loaded model; digests are checked before the first load.

        `device` defaults to the entry's policy; another class than the policy is refused (`device_unavailable`),
        because results of different devices are not comparable. Raises what `WeightsStore.verify` and the `load` of
        the handle raise, and `dependency_missing` for an engine this release does not run.
        """
        device = device or entry.device_policy
        if device.partition(":")[0] != entry.device_policy:
            raise TrendFlowError(
                "device_unavailable", f"{entry.name} is meant for {entry.device_policy}, not {device}.", device=device
            )
        key = (entry.name, entry.version, entry.weights_digest, device)
        with self._lock:  # one load at a time: two threads must not both pay the memory of one model
            if key not in self._handles:
                self._handles[key] = self._load(entry, device)
            return self._handles[key]

    def close(self) -> None:
        """Release every model."""
        with self._lock:
            for handle in self._handles.values():
                handle.close()
            self._handles.clear()

    def _load(self, entry: CatalogueEntry, device: str) -> OwnedHandle:
        if (entry.runtime, entry.engine) == ("inprocess", "algorithm"):
            from trendflow.models.opencv_flow import DisFlowHandle

            return DisFlowHandle.load(entry, device, self._threads)
        if (entry.runtime, entry.engine) != ("inprocess", "onnx"):
            raise TrendFlowError(
                "dependency_missing",
                f"{entry.name} needs the runtime {entry.runtime}/{entry.engine}, which is not installed.",
                kind="python_package",
            )
        from trendflow.models.onnx_runtime import OnnxHandle
        from trendflow.models.prompt_encoder import VOCABULARY, PromptEncoderHandle
        from trendflow.models.text_encoder import TOKENIZER, TextEncoderHandle

        paths = self._store.verify(entry)
        files = {file.path: path for file, path in zip(entry.files, paths, strict=True)}
        if TOKENIZER in files:
            return TextEncoderHandle.load(entry, files, device, self._threads)
        if VOCABULARY in files:
            return PromptEncoderHandle.load(entry, files, device, self._threads)
        return OnnxHandle.load(entry, paths[0], device, self._threads)


@functools.cache
def process_pool(models_dir: Path, threads: int = 0) -> ModelPool:
    """The pool of this process for one models directory."""
    return ModelPool(models_dir, threads)
