"""One pass over the full-quality signal, in blocks, for everything loudness_extractor measures on it.

The signal of a long video is hundreds of megabytes; only a few seconds of it are ever copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trendflow.components.audio import _bs1770 as bs1770
from trendflow.contracts.errors import TrendFlowError

_BLOCK_S = 5
_OVERSAMPLING = 4


@dataclass(frozen=True)
class SignalMeasures:
    """Sums over the cells between successive `bounds` (sample positions, ascending, first 0, last total)."""

    bounds: np.ndarray  # int64 [C+1]
    weighted: np.ndarray  # float64 [C], K-weighted squares, summed over channels with their weights
    squares: np.ndarray  # float64 [C], unweighted squares summed over channels
    peaks: np.ndarray  # float64 [C], largest |x| of any channel
    clipped: int  # samples of any channel at or above the clipping level
    true_peak: float  # amplitude
    channels: int

    def totals(self, values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Sum of cell values over sample ranges whose ends are bounds."""
        running = np.concatenate([[0.0], np.cumsum(values)])
        ends = np.searchsorted(self.bounds, np.stack([start, stop]))
        return np.maximum(running[ends[1]] - running[ends[0]], 0.0)

    def maxima(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Sample peak over non-empty sample ranges whose ends are bounds."""
        first, last = np.searchsorted(self.bounds, np.stack([start, stop]))
        return np.array([self.peaks[a:b].max() for a, b in zip(first, last, strict=True)])


def grid_bounds(total: int, rate: int) -> np.ndarray:
    """Sample positions of the complete 10 ms cells of a signal, int64."""
    cells = total * bs1770.GRID_PER_SECOND // rate
    return np.rint(np.arange(cells + 1) * (rate / bs1770.GRID_PER_SECOND)).astype(np.int64)


def measure(
    signal: np.ndarray,
    rate: int,
    weights: np.ndarray,
    bounds: np.ndarray,
    clipping_level: float,
    progress: Callable[[int, int], None],
) -> SignalMeasures:
    """Measure `signal`, float32 `[m, channels]`, m > 0, with channel weights `[channels]`.

    `bounds` are extra cell borders; 0 and m are added. True peak is the largest sample after fourfold band-limited
    oversampling (BS.1770-4 annex 2). Raises `artifact_validation_failed` for non-finite samples and
    `dependency_missing` without soxr or pyloudnorm.
    """
    # Slow to import; reading a declaration must not cost it.
    from scipy.signal import sosfilt

    total, channels = signal.shape
    bounds = np.unique(np.concatenate([[0, total], bounds])).astype(np.int64)
    sections = bs1770.k_weighting(rate)
    state = np.zeros((len(sections), 2, channels))
    upsample = _upsampler(rate, channels)
    weighted, squares, peaks = (np.zeros(len(bounds) - 1) for _ in range(3))
    clipped = 0
    true_peak = 0.0
    for start in range(0, total, _BLOCK_S * rate):
        stop = min(total, start + _BLOCK_S * rate)
        block = np.asarray(signal[start:stop])
        magnitude = np.abs(block)
        if not np.isfinite(magnitude.max()):
            raise TrendFlowError("artifact_validation_failed", "The audio holds samples that are not finite.")
        first, cuts = _cells(bounds, start, stop)
        cells = slice(first, first + len(cuts))
        peaks[cells] = np.maximum(peaks[cells], np.maximum.reduceat(magnitude.max(axis=1), cuts))
        clipped += int(np.count_nonzero(magnitude >= clipping_level))
        exact = block.astype(np.float64)
        squares[cells] += np.add.reduceat(np.einsum("sc,sc->s", exact, exact), cuts)
        filtered, state = sosfilt(sections, exact, axis=0, zi=state)
        weighted[cells] += np.add.reduceat(np.square(filtered, out=filtered) @ weights, cuts)
        true_peak = max(true_peak, float(magnitude.max()), upsample(block, stop == total))
        progress(stop, total)
    return SignalMeasures(bounds, weighted, squares, peaks, clipped, true_peak, channels)


def _cells(bounds: np.ndarray, start: int, stop: int) -> tuple[int, np.ndarray]:
    """First cell that samples start…stop touch, and where in them each touched cell begins."""
    first = int(np.searchsorted(bounds, start, side="right")) - 1
    last = int(np.searchsorted(bounds, stop))
    return first, np.maximum(bounds[first:last] - start, 0)


def _upsampler(rate: int, channels: int) -> Callable[[np.ndarray, bool], float]:
    """A function that feeds a block to a streaming resampler and returns the peak amplitude that comes out."""
    try:
        import soxr
    except ImportError as exc:
        raise TrendFlowError("dependency_missing", "The package soxr is missing.", kind="package") from exc
    stream = soxr.ResampleStream(rate, rate * _OVERSAMPLING, channels, dtype="float32", quality="HQ")

    def peak(block: np.ndarray, last: bool) -> float:
        output = stream.resample_chunk(np.ascontiguousarray(block), last=last)
        return float(np.abs(output).max(initial=0.0))

    return peak
