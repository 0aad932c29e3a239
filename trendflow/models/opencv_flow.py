"""Dense optical flow with OpenCV's DIS: an algorithm behind the same interface as a learned model.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (2016). Its pyramid ends at about 40 columns, so it
loses shifts of more than a tenth of the picture, which fast pans reach. Where phase correlation (Kuglin and Hines,
1975) sees the whole picture shifted, it is therefore started from that shift as well, and the better of both fields is
kept. There is no file with weights; what pins the result is the version of the library and the entry's `parameters`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import LoadedModel
from trendflow.models.tensor_checks import check_inputs, check_outputs
from trendflow.models.tensors import smallest_inputs

LIBRARY = "opencv-python-headless"
ALGORITHM = "DISOpticalFlow"

_PRESETS = ("ultrafast", "fast", "medium")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as OpenCV's own conversion to grey
# The library chooses its pyramid by the width alone and then reads outside of pictures that are much wider than high
# (5.0.0 with `fast` crashes on 320x31). Such pictures are extended before, and the extension is cut off again.
_SHORTEST_SIDE = 32
_WIDEST_ASPECT = 4


@dataclass(frozen=True)
class DisParameters:
    """Settings of an entry. `preset` is the library's; the rest says when a pair is tried from a common shift too.

    `shift_response`: least height of the phase correlation peak, 0…1. `shift_px`: least shift; below it DIS needs no
    help. `shift_gain`: the second field must have a photometric error below this share of the first one's.
    """

    preset: str
    shift_response: float
    shift_px: float
    shift_gain: float

    @classmethod
    def of(cls, entry: CatalogueEntry) -> DisParameters:
        """Raises `model_spec_invalid`."""
        stated, names = entry.parameters, [field.name for field in fields(cls)]
        if set(stated) != set(names) or stated["preset"] not in _PRESETS:
            raise _spec_invalid(entry, f"must state {', '.join(names)} with a preset of {', '.join(_PRESETS)}")
        numbers = [stated[name] for name in names[1:]]
        if any(isinstance(number, bool) or not isinstance(number, int | float) or number < 0 for number in numbers):
            raise _spec_invalid(entry, "must state its limits as numbers of at least 0")
        return cls(stated["preset"], *map(float, numbers))


class DisFlowHandle(LoadedModel):
    """DIS flow of picture pairs; implements `ModelHandle`. Safe to use from several threads.

    Inputs: two float32 `[B, 3, H, W]` RGB pictures, 0…255. Output: float32 `[B, 2, H, W]`, the displacement (x, y) in
    pixels that takes each pixel of the first picture into the second. Each pair is computed on its own, so neither
    the batch nor the number of threads changes a value.
    """

    def __init__(self, entry: CatalogueEntry, device: str, parameters: DisParameters, threads: int) -> None:
        super().__init__(entry, device)
        self._parameters = parameters
        self._first, self._second = (spec.name for spec in entry.inputs)
        self._output = entry.outputs[0].name
        self._executor: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, thread_name_prefix="flow")

    @classmethod
    def load(cls, entry: CatalogueEntry, device: str = "cpu", threads: int = 0) -> DisFlowHandle:
        """The algorithm of `entry`; `threads` pairs are computed at once, 0 takes one per processor.

        Raises `dependency_missing` (library absent or of another version than the entry pins), `device_unavailable`
        (it runs on the CPU only) or `model_spec_invalid` (another algorithm, unknown parameters, other tensors).
        """
        if (entry.source.locator, entry.source.member) != (LIBRARY, ALGORITHM):
            raise _spec_invalid(entry, f"names the algorithm {entry.source.member!r}, which nothing here implements")
        if device != "cpu":
            raise TrendFlowError("device_unavailable", f"{entry.name} runs on the CPU only.", device=device)
        _require_version(entry)
        shapes = [spec.shape[:2] for spec in (*entry.inputs, *entry.outputs)]
        if shapes != [("B", 3), ("B", 3), ("B", 2)]:
            raise _spec_invalid(entry, "must map two RGB pictures to one flow field")
        handle = cls(entry, device, DisParameters.of(entry), threads or os.cpu_count() or 1)
        for _ in range(entry.warmup):
            handle.infer(smallest_inputs(entry.inputs))
        return handle

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Flow of one batch of pairs; see `ModelHandle.infer`."""
        if self._executor is None:
            raise TrendFlowError("model_load_failed", f"{self._entry.name} was closed.", entry=self._entry.name)
        symbols = check_inputs(self._entry, inputs)
        flows = self._executor.map(self._pair, inputs[self._first], inputs[self._second])
        outputs = {self._output: np.stack(list(flows))}
        check_outputs(self._entry, outputs, symbols)
        return outputs

    def describe(self) -> dict[str, Any]:
        """What is loaded and where, for logs and `doctor`."""
        import cv2

        return self._description(cv2.__version__)

    def close(self) -> None:
        """End the threads. A closed handle refuses to run."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()

    def _pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """RGB `[3, H, W]` twice → flow `[2, H, W]`."""
        height, width = first.shape[1:]
        before, after = _grey(first), _grey(second)
        flow = self._from_start(before, after, (0.0, 0.0))
        shift = self._common_shift(before, after)
        if shift is not None:
            shifted = self._from_start(before, after, shift)
            limit = self._parameters.shift_gain * _photometric_error(before, after, flow)
            if _photometric_error(before, after, shifted) < limit:
                flow = shifted
        return flow[:height, :width].transpose(2, 0, 1)

    def _from_start(self, before: np.ndarray, after: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
        """DIS `[H, W, 2]` that begins with one vector everywhere.

        The object and the first field are new for every pair: without a field to begin with, DIS 5.0.0 goes on from
        what the object computed before, and a result would depend on its predecessors.
        """
        import cv2

        presets = {
            "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
            "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
            "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        }
        start = np.empty((*before.shape, 2), dtype=np.float32)
        start[...] = shift
        return cv2.DISOpticalFlow.create(presets[self._parameters.preset]).calc(before, after, start)

    def _common_shift(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float] | None:
        """Shift (x, y) of the whole picture in pixels, None where there is none to speak of."""
        import cv2

        height, width = before.shape
        window = cv2.createHanningWindow((width, height), cv2.CV_32F)  # or the borders would correlate with themselves
        (x, y), response = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)
        # Uniform pictures have no peak: the response is then NaN, and the comparison false.
        found = response >= self._parameters.shift_response and math.hypot(x, y) >= self._parameters.shift_px
        return (x, y) if found else None


def _photometric_error(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> float:
    """Mean absolute grey difference between `before` and `after` fetched along the flow."""
    import cv2

    height, width = before.shape
    to_x = flow[..., 0] + np.arange(width, dtype=np.float32)
    to_y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    fetched = cv2.remap(after, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.mean(cv2.absdiff(before, fetched)))


def _grey(picture: np.ndarray) -> np.ndarray:
    """RGB `[3, H, W]` in 0…255 → uint8 luma, extended to the right and below where it is too flat."""
    luma = np.tensordot(_LUMA, picture, axes=1)
    grey = np.clip(np.rint(luma), 0, 255).astype(np.uint8)
    shortest = max(_SHORTEST_SIDE, math.ceil(max(grey.shape) / _WIDEST_ASPECT))
    below, right = (max(0, shortest - side) for side in grey.shape)
    return np.pad(grey, ((0, below), (0, right)), mode="edge") if below or right else grey


def _require_version(entry: CatalogueEntry) -> None:
    try:
        import cv2
    except ImportError as exc:
        raise TrendFlowError(
            "dependency_missing", f"{entry.name} needs the package {LIBRARY}.", kind="python_package", package=LIBRARY
        ) from exc
    if cv2.__version__ != entry.source.revision:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} is pinned to OpenCV {entry.source.revision}, but {cv2.__version__} is installed.",
            kind="python_package",
            package=LIBRARY,
        )


def _spec_invalid(entry: CatalogueEntry, problem: str) -> TrendFlowError:
    return TrendFlowError("model_spec_invalid", f"{entry.name} {problem}.", entry=entry.name)
