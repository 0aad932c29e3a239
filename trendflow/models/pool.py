"""Warm models: each entry is loaded once per process and device and serves every video after that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import with_ordinal
from trendflow.models.loaded import OwnedHandle
from trendflow.models.store import WeightsStore

if TYPE_CHECKING:
    from trendflow.models.triton.connection import TritonConnection

_Key = tuple[str, str, str, str, str]


class ModelPool:
    """Handles by (entry, version, weights, runtime, device). `triton` gives the server of entries that run on one."""

    def __init__(
        self, models_dir: Path, threads: int = 0, triton: Callable[[], TritonConnection] | None = None
    ) -> None:
        self._store = WeightsStore(models_dir)
        self._threads = threads
        self._triton = triton
        self._handles: dict[_Key, OwnedHandle] = {}
        self._lock = threading.Lock()

    def get(self, entry: CatalogueEntry, device: str | None = None) -> OwnedHandle:
        """The loaded model; digests are checked before the first load.

        `device` defaults to the entry's policy; another class than the policy is refused (`device_unavailable`),
        because results of different devices are not comparable. Raises what `WeightsStore.verify` and the `load` of
        the handle raise, and `dependency_missing` for an engine this release does not run or a server nobody named.
        """
        device = device or entry.device_policy
        if device.partition(":")[0] != entry.device_policy:
            raise TrendFlowError(
                "device_unavailable", f"{entry.name} is meant for {entry.device_policy}, not {device}.", device=device
            )
        key = (entry.name, entry.version, entry.weights_digest, entry.runtime, with_ordinal(device))
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
        if entry.runtime == "triton" and self._triton is not None:
            return self._served(entry, device, self._triton())
        if (entry.runtime, entry.engine) == ("inprocess", "torch"):
            from trendflow.models.torch_runtime import TorchHandle

            return TorchHandle.load(entry, self._store.verify(entry)[0], device, self._threads)
        if (entry.runtime, entry.engine) == ("inprocess", "tensorrt"):
            from trendflow.models.tensorrt_runtime import TensorRTHandle

            return TensorRTHandle.load(entry, self._store.verify(entry)[0], device)
        if (entry.runtime, entry.engine) != ("inprocess", "onnx"):
            raise TrendFlowError(
                "dependency_missing",
                f"{entry.name} needs the runtime {entry.runtime}/{entry.engine}, which is not installed.",
                kind="python_package",
            )
        from trendflow.models.onnx_runtime import OnnxHandle

        paths = self._store.verify(entry)
        return _with_text_front(
            OnnxHandle.load(entry, paths[0], device, self._threads),
            {file.path: path for file, path in zip(entry.files, paths, strict=True)},
        )

    def _served(self, entry: CatalogueEntry, device: str, connection: TritonConnection) -> OwnedHandle:
        from trendflow.models.triton.runtime import TritonHandle

        companions = self._store.verify_companions(entry)
        return _with_text_front(TritonHandle.load(entry, device, connection), {path.name: path for path in companions})


def _with_text_front(model: OwnedHandle, files: Mapping[str, Path]) -> OwnedHandle:
    """The model behind the tokenizer that lies beside its weights; the model itself when there is none."""
    from trendflow.models.prompt_encoder import VOCABULARY, PromptEncoderHandle
    from trendflow.models.text_encoder import TOKENIZER, TextEncoderHandle

    if TOKENIZER in files:
        return TextEncoderHandle.load(model, files[TOKENIZER])
    if VOCABULARY in files:
        return PromptEncoderHandle.load(model, files[VOCABULARY])
    return model
