"""How far a sample moved away from a reference sample: Kolmogorov–Smirnov and population stability index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BINS = 10
_TERMS = np.arange(1, 101)


@dataclass(frozen=True)
class Reference:
    """A column as an earlier report saw it. `sketch`: sorted values that stand for `n` of them in equal shares."""

    n: int
    nan_rate: float
    sketch: np.ndarray


@dataclass(frozen=True)
class Drift:
    """`ks` is the largest difference of the two distribution functions, `ks_p` its asymptotic two-sided p."""

    n: int
    n_reference: int
    ks: float
    ks_p: float
    psi: float


def drift(values: np.ndarray, reference: Reference) -> Drift | None:
    """Distances of finite `values` [n] from the reference; None when either side is empty."""
    if len(values) == 0 or len(reference.sketch) == 0:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    distance = ks_statistic(ordered, reference.sketch)
    n, m = len(ordered), reference.n
    return Drift(n, m, distance, kolmogorov_p(distance, n, m), stability_index(ordered, reference.sketch, m))


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """sup |F₁ − F₂| of two sorted samples; ties are counted on both sides."""
    at = np.concatenate([first, second])
    one = np.searchsorted(first, at, side="right") / len(first)
    other = np.searchsorted(second, at, side="right") / len(second)
    return float(np.abs(one - other).max())


def kolmogorov_p(distance: float, n: int, m: int) -> float:
    """P(D ≥ distance) of two samples of one continuous distribution, from Kolmogorov's limiting law.

    2 Σ (−1)^(k−1) exp(−2 k² λ²) with λ = distance · sqrt(nm / (n + m)). Tied values make it conservative.
    """
    scaled = distance * np.sqrt(n * m / (n + m))
    if scaled < 0.2:  # the series alternates too long, and the sum is 1 to twelve digits
        return 1.0
    series = 2 * np.sum((-1.0) ** (_TERMS - 1) * np.exp(-2 * (_TERMS * scaled) ** 2))
    return float(np.clip(series, 0.0, 1.0))


def stability_index(first: np.ndarray, second: np.ndarray, n_second: int) -> float:
    """Population stability index Σ (p − q) ln(p / q) over the deciles of the second sample.

    Deciles that coincide are one bin. Half a row is added to every bin, so that an empty one gives a finite value
    that shrinks with the number of rows.
    """
    edges = np.unique(np.percentile(second, np.arange(1, _BINS) * 100 / _BINS))
    bins = len(edges) + 1
    shares = []
    for sample, n in ((first, len(first)), (second, n_second)):
        counts = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=bins) / len(sample) * n
        shares.append((counts + 0.5) / (n + 0.5 * bins))
    p, q = shares
    return float(np.sum((p - q) * np.log(p / q)))
