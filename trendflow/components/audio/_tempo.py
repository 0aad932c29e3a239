"""Beat rate of one onset envelope, with the evidence for it.

Method: the unbiased autocorrelation of the n envelope values less their mean, e, is r(τ) = Σ e(i)·e(i+τ) / (n − τ). A
comb takes r/r(0), smoothed by (¼, ½, ¼), at 1 to 4 times a lag, as far as those are at most ¾ n, and averages it; the
average counts as 0 where the first of these values is below half of it. Its product with exp(−½ log₂²(BPM / 120)) is
the evidence, over a geometric grid from `bpm_min`, or the rate of which `min_periods` periods fill the envelope, to
`bpm_max`, reaching 1 % beyond both, in equal steps of at most 0.5 %. The highest three local maxima are the
candidates.

Method: the lag of a candidate and the height of r/r(0) there, the pulse clarity, are the vertex of the parabola
through the highest of the three lags around it and its two neighbours; where that has no peak, they stay as they are.
Then the same at 2, 3 and 4 times the lag found so far, while that lag plus 2 is at most ¾ n and the height at least
half of the clarity: position / multiple becomes the lag. Candidates that move out of the range, or to within 2 % of a
better one, are left out for the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CANDIDATES = 3

# Comb of the first four multiples of a period (Scheirer 1998): a beat repeats, a chance resemblance does not.
_TEETH = 4
_OWN_PULSE_SHARE = 0.5
_LAG_SMOOTHING = (0.25, 0.5, 0.25)
# Multiples beyond this share of the envelope overlap with too little of it to be trusted.
_LONGEST_LAG_SHARE = 0.75
_GRID_RATIO = 1.005
# Listeners' preference for moderate tempi as a log-normal weight, centre and width as in librosa's tempo estimator.
_PREFERRED_BPM = 120.0
_PREFERENCE_OCTAVES = 1.0
# Peaks of the comb that refine to rates this close are one candidate.
_SAME_RATE = 1.02
# A peak at the very end of the range is found only if the search sees both of its sides.
_RANGE_SLACK = 1.01


@dataclass(frozen=True)
class TempoEstimate:
    """Best candidates first; missing ones are NaN.

    `clarity` is r(τ)/r(0) at the best one, in [-1, 1]; `chance` is the standard deviation of that number for an
    envelope without any pulse, 1/sqrt(products averaged).
    """

    bpm: np.ndarray  # float64 [3]
    strength: np.ndarray  # float64 [3]
    clarity: float
    chance: float


def estimate_tempo(
    envelope: np.ndarray, frame_rate: float, bpm_min: float, bpm_max: float, min_periods: float
) -> TempoEstimate:
    """Candidates between `bpm_min` and `bpm_max` from a comb over the unbiased autocorrelation of the envelope.

    `frame_rate` is in envelope values per second. Periods that fit into the envelope fewer than `min_periods` times
    are not considered. A constant or too short envelope has no candidate and NaN clarity.
    """
    bpm, strength = np.full(CANDIDATES, np.nan), np.full(CANDIDATES, np.nan)
    correlation = unbiased_autocorrelation(envelope)
    slowest = max(bpm_min, 60.0 * frame_rate * min_periods / max(len(envelope), 1))
    if len(correlation) == 0 or slowest >= bpm_max:
        return TempoEstimate(bpm, strength, float("nan"), float("nan"))
    longest = int(len(envelope) * _LONGEST_LAG_SHARE)
    low, high = slowest / _RANGE_SLACK, bpm_max * _RANGE_SLACK
    grid = np.geomspace(low, high, int(np.ceil(np.log(high / low) / np.log(_GRID_RATIO))) + 1)
    score = _comb(correlation, 60.0 * frame_rate / grid, longest) * _preference(grid)
    found = 0
    clarity = chance = float("nan")
    for peak in _peaks(score):
        lag, height = _refine(correlation, 60.0 * frame_rate / grid[peak], longest)
        rate = 60.0 * frame_rate / lag
        in_range = low <= rate <= high
        distinct = all(max(rate / other, other / rate) > _SAME_RATE for other in bpm[:found])
        if not (in_range and distinct):
            continue
        bpm[found], strength[found] = rate, score[peak]
        if found == 0:
            clarity, chance = float(np.clip(height, -1.0, 1.0)), float(1.0 / np.sqrt(len(envelope) - lag))
        found += 1
        if found == CANDIDATES:
            break
    return TempoEstimate(bpm, strength, clarity, chance)


def _preference(bpm: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (np.log2(bpm / _PREFERRED_BPM) / _PREFERENCE_OCTAVES) ** 2)


def unbiased_autocorrelation(envelope: np.ndarray) -> np.ndarray:
    """r(τ)/r(0) of the mean-free envelope for τ = 0 … n-1, each lag averaged over its own n-τ products.

    Empty for a constant envelope.
    """
    n = len(envelope)
    if n < 2:
        return np.zeros(0)
    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * n)
    products = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    # Below float resolution of the envelope there is nothing but rounding.
    if products[0] <= n * (1e-9 * np.abs(envelope).max()) ** 2:
        return np.zeros(0)
    return (products / (n - np.arange(n))) / (products[0] / n)


def _comb(correlation: np.ndarray, lags: np.ndarray, longest: int) -> np.ndarray:
    """Mean autocorrelation at the first multiples of each lag, as far as they fit; 0 where the lag has no pulse of
    its own: half the true period meets it at every second multiple and would win by that.

    Onsets are about one frame wide, so a multiple between two frames would read half of its peak and lose to one
    that happens to meet a frame; smoothing over three lags makes them equal.
    """
    teeth = np.arange(1, _TEETH + 1)[:, None] * lags
    fits = teeth <= longest
    smooth = np.convolve(correlation, _LAG_SMOOTHING, mode="same")
    values = np.interp(teeth, np.arange(len(smooth)), smooth)
    count = fits.sum(axis=0)
    mean = (values * fits).sum(axis=0) / np.maximum(count, 1)
    return np.where(values[0] >= _OWN_PULSE_SHARE * mean, mean, 0.0)


def _peaks(score: np.ndarray) -> np.ndarray:
    """Positions of the positive local maxima inside the range, highest first."""
    inner = score[1:-1]
    tops = np.flatnonzero((inner > score[:-2]) & (inner >= score[2:]) & (inner > 0)) + 1
    return tops[np.argsort(-score[tops], kind="stable")]


def _refine(correlation: np.ndarray, lag: float, longest: int) -> tuple[float, float]:
    """Exact lag, and the autocorrelation there, by parabolic interpolation.

    The lag is read off the farthest multiple that still correlates, which divides the error of a whole-frame grid.
    """
    refined, clarity = _parabolic_peak(correlation, lag)
    result = refined
    for tooth in range(2, _TEETH + 1):
        if tooth * result + 2 > longest:
            break
        position, value = _parabolic_peak(correlation, tooth * result)
        if value < 0.5 * clarity:
            break
        result = position / tooth
    return result, clarity


def _parabolic_peak(values: np.ndarray, near: float) -> tuple[float, float]:
    """Vertex of the parabola through the highest of the three samples around `near` and its neighbours."""
    centre = round(near)
    first = max(1, centre - 1)
    top = first + int(np.argmax(values[first : centre + 2]))
    if top + 1 >= len(values):
        return float(top), float(values[top])
    left, middle, right = values[top - 1 : top + 2]
    curvature = left - 2 * middle + right
    if curvature >= 0 or not left <= middle >= right:
        return float(near), float(np.interp(near, np.arange(len(values)), values))
    shift = 0.5 * (left - right) / curvature
    return top + float(shift), float(middle - 0.25 * (left - right) * shift)
