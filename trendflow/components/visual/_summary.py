"""Statistics over finite values: none ⇒ NaN, and the deviation of fewer than two values is NaN."""

from __future__ import annotations

import numpy as np


def _finite(values: np.ndarray) -> np.ndarray:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def mean(values: np.ndarray) -> float:
    finite = _finite(values)
    return float(finite.mean()) if len(finite) else float("nan")


def std(values: np.ndarray) -> float:
    """Population standard deviation."""
    finite = _finite(values)
    return float(finite.std()) if len(finite) >= 2 else float("nan")


def maximum(values: np.ndarray) -> float:
    finite = _finite(values)
    return float(finite.max()) if len(finite) else float("nan")


def median(values: np.ndarray) -> float:
    finite = _finite(values)
    return float(np.median(finite)) if len(finite) else float("nan")


def percentile(values: np.ndarray, q: float) -> float:
    """Percentile q in [0, 100], linearly interpolated."""
    finite = _finite(values)
    return float(np.percentile(finite, q)) if len(finite) else float("nan")
