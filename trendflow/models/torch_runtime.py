"""In-process execution with torch: the architecture is code of this project, the weights are a safetensors file.

Nothing that could execute code is read. torch is optional (extra `build`); without it an entry of this engine is
`dependency_missing`.
"""

from __future__ import annotations

import importlib.util
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import device as devices
from trendflow.models.allocation import is_allocation_failure
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import LoadedModel
from trendflow.models.tensor_checks import check_inputs, check_outputs
from trendflow.models.tensors import BATCH, smallest_inputs

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Network = Callable[[Mapping[str, "torch.Tensor"]], Mapping[str, "torch.Tensor"]]


class TorchHandle(LoadedModel):
    """A network with its weights; implements `ModelHandle`. Safe to use from several threads."""

    def __init__(self, entry: CatalogueEntry, network: Network, device: str) -> None:
        super().__init__(entry, device)
        self._network: Network | None = network

    @classmethod
    def load(cls, entry: CatalogueEntry, path: Path, device: str = "cpu", threads: int = 0) -> TorchHandle:
        """Load verified weights on `cpu` or `cuda[:<n>]`; `threads` of the process per operator, 0 leaves them.

        Raises `dependency_missing`, `device_unavailable`, `model_load_failed`, `model_spec_invalid` (an architecture
        nobody knows, or whose tensors are not the entry's) or `out_of_memory`. The first run is part of loading.
        """
        require_device(device)
        import torch

        # The same numbers every time, in the precision the entry states; torch has these switches per process only.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        if threads:
            torch.set_num_threads(threads)
        handle = cls(entry, _network(entry, path, device), device)
        for _ in range(max(1, entry.warmup)):  # the first run proves the weights
            handle.infer(smallest_inputs(entry.inputs))
        return handle

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; see `ModelHandle.infer`."""
        import torch

        network = self._network
        if network is None:
            raise TrendFlowError("model_load_failed", f"{self._entry.name} was closed.", entry=self._entry.name)
        symbols = check_inputs(self._entry, inputs)
        given: dict[str, torch.Tensor] = {}
        try:
            with torch.inference_mode():
                given.update({name: tensor_of(array).to(self._device) for name, array in inputs.items()})
                outputs = {name: tensor.cpu().numpy() for name, tensor in network(given).items()}
        except KeyError as exc:
            raise TrendFlowError(
                "model_load_failed", f"The weights of {self._entry.name} lack {exc}.", entry=self._entry.name
            ) from exc
        except (RuntimeError, MemoryError) as exc:  # torch.OutOfMemoryError is a RuntimeError
            given.clear()
            raise self._failure(exc, symbols.get(BATCH)) from exc
        check_outputs(self._entry, outputs, symbols)
        return outputs

    def describe(self) -> dict[str, Any]:
        """What is loaded and where, for logs and `doctor`."""
        import torch

        return self._description(torch.__version__)

    def close(self) -> None:
        """Release the weights. A closed handle refuses to run."""
        self._network = None

    def _failure(self, exc: Exception, batch: int | None) -> TrendFlowError:
        import torch

        if _is_allocation_failure(exc):
            # The layers' results hang on the frames that failed; only what nobody holds can be given back, and that
            # may be what a smaller batch needs now.
            traceback.clear_frames(exc.__traceback__)
            if self._device != "cpu":
                torch.cuda.empty_cache()
            return self._out_of_memory(batch)
        log.error("inference with %s failed", self._entry.name, exc_info=exc)
        return self._refusal("torch", str(exc), type=type(exc).__name__)


def require_device(device: str) -> None:
    """Prove that torch is here and can run on `cpu` or `cuda[:<n>]`; a CUDA device is probed once per process.

    Raises `dependency_missing` and `device_unavailable`.
    """
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise TrendFlowError(
                "dependency_missing",
                f"This model runs with {package}; install the extra with 'pip install trendflow[build]'.",
                kind="python_package",
                package=package,
            )
    if device == "cpu":
        return  # importing torch takes seconds, so that waits until a model is loaded
    import torch

    if not torch.cuda.is_available():
        raise TrendFlowError("device_unavailable", f"This installation of torch cannot run on {device}.", device=device)
    devices.probe(device, devices.Engine("torch", torch.version.cuda, run_probe))


def run_probe(device: str) -> dict[str, np.ndarray]:
    """The probe's convolution and matrix product on a device."""
    import torch

    with torch.inference_mode():
        given = {name: torch.from_numpy(array).to(device) for name, array in devices.probe_inputs().items()}
        found = {
            "convolution": torch.nn.functional.conv2d(given["image"], given["kernel"]),
            "product": given["left"] @ given["right"],
        }
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def _is_allocation_failure(exc: Exception) -> bool:
    import torch

    return isinstance(exc, (MemoryError, torch.OutOfMemoryError)) or is_allocation_failure(str(exc))


def tensor_of(array: np.ndarray) -> torch.Tensor:
    import torch

    # torch shares the memory; it has no read-only tensors, so a read-only array is copied.
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def _network(entry: CatalogueEntry, path: Path, device: str) -> Network:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path, device=device)
    except (RuntimeError, MemoryError) as exc:  # torch.OutOfMemoryError is a RuntimeError
        if _is_allocation_failure(exc):
            raise TrendFlowError("out_of_memory", f"Loading {entry.name} ran out of memory.", entry=entry.name) from exc
        raise TrendFlowError(
            "model_load_failed", f"torch cannot place the weights of {entry.name} on {device}.", entry=entry.name
        ) from exc
    except SafetensorError as exc:
        raise TrendFlowError(
            "model_load_failed", f"The weights of {entry.name} are no safetensors file.", entry=entry.name
        ) from exc
    if entry.architecture == "efficientnet_lite0":
        from trendflow.models.efficientnet_lite_torch import FeatureExtractor

        return FeatureExtractor(weights)
    raise TrendFlowError(
        "model_spec_invalid",
        f"{entry.name} has the architecture {entry.architecture!r}, which this release does not know.",
        entry=entry.name,
    )
