"""Loudness after ITU-R BS.1770-4, EBU Tech 3341 (momentary, short-term) and EBU Tech 3342 (loudness range).

The K-weighting filters come from pyloudnorm, with the parameters that reproduce the coefficients printed in the
recommendation. Its meter is not used: it takes the fourth channel of 5.1 for a surround although it is the LFE,
and it copies the whole signal.

Method: the loudness of a window is −0.691 + 10 log10(Σ G·mean z²) LUFS over the channels; z is the channel after the
two K-weighting filters of BS.1770-4, run once over the whole signal, and G is 1.41 for left and right surrounds, 0
for LFE, else 1. All windows but the audio windows lie on a grid of 10 ms.
"""

from __future__ import annotations

import numpy as np

from trendflow.contracts.errors import TrendFlowError

OFFSET_LU = -0.691  # cancels the gain of the K-weighting at 997 Hz
ABSOLUTE_GATE = -70.0
RELATIVE_GATE = -10.0
RANGE_GATE = -20.0
RANGE_PERCENTILES = (10.0, 95.0)

# Everything is measured on a grid of 10 ms: gating blocks advance by 100 ms, the maxima are looked for every 10 ms
# so that a burst of just one window length is found wherever it starts.
GRID_PER_SECOND = 100
GATING_STEP = 10
MOMENTARY = 40
SHORT_TERM = 300

_SURROUND = 1.41
# Speakers of the layouts in their order of channels, named as FFmpeg names them.
_SPEAKERS: dict[str, str] = {
    "mono": "FC",
    "stereo": "FL FR",
    "downmix": "DL DR",
    "binaural": "BIL BIR",
    "2.1": "FL FR LFE",
    "3.0": "FL FR FC",
    "3.0(back)": "FL FR BC",
    "3.1": "FL FR FC LFE",
    "4.0": "FL FR FC BC",
    "quad": "FL FR BL BR",
    "quad(side)": "FL FR SL SR",
    "4.1": "FL FR FC LFE BC",
    "5.0": "FL FR FC BL BR",
    "5.0(side)": "FL FR FC SL SR",
    "5.1": "FL FR FC LFE BL BR",
    "5.1(side)": "FL FR FC LFE SL SR",
    "6.0": "FL FR FC BC SL SR",
    "6.0(front)": "FL FR FLC FRC SL SR",
    "hexagonal": "FL FR FC BL BR BC",
    "3.1.2": "FL FR FC LFE TFL TFR",
}
# Plain PCM often names no speakers ("2 channels"); FFmpeg and WAVE then agree on these.
_UNNAMED = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1"}


def channel_weights(layout: str, channels: int) -> np.ndarray:
    """Weight `[channels]` of each channel: left and right surrounds 1.41, LFE 0, all others 1.

    A back centre stands outside the azimuths of 60 to 120 degrees that BS.1770-4 annex 3 raises. A layout that
    counts channels without naming speakers is read as the customary one. Raises `artifact_validation_failed` for a
    layout that is unknown or has another number of channels.
    """
    if layout == f"{channels} channels":
        layout = _UNNAMED.get(channels, layout)
    speakers = _SPEAKERS.get(layout, "").split()
    if len(speakers) != channels:
        raise TrendFlowError(
            "artifact_validation_failed",
            f"Channel layout {layout!r} does not describe {channels} channels.",
            layout=layout,
            channels=channels,
        )
    weight = {"LFE": 0.0, "BL": _SURROUND, "BR": _SURROUND, "SL": _SURROUND, "SR": _SURROUND}
    return np.array([weight.get(speaker, 1.0) for speaker in speakers])


def k_weighting(rate: int) -> np.ndarray:
    """The two K-weighting stages (high shelf, high pass) as second-order sections `[2, 6]` for a sampling rate.

    Raises `dependency_missing` without pyloudnorm.
    """
    try:
        from pyloudnorm.iirfilter import IIRfilter
    except ImportError as exc:
        raise TrendFlowError("dependency_missing", "The package pyloudnorm is missing.", kind="package") from exc
    # De Man's parametrisation: at 48 kHz it gives the coefficients of BS.1770-4 tables 1 and 2 to 9 digits.
    stages = (
        IIRfilter(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, "high_shelf_DeMan"),
        IIRfilter(0.0, 0.5003270373253953, 38.13547087613982, rate, "high_pass_DeMan"),
    )
    return np.array([np.concatenate([stage.b, stage.a]) for stage in stages])


def loudness(power: np.ndarray | float) -> np.ndarray:
    """Weighted mean square → LUFS; zero power gives -inf."""
    with np.errstate(divide="ignore"):
        return OFFSET_LU + 10.0 * np.log10(power)


def window_power(energy: np.ndarray, samples: np.ndarray, length: int, step: int) -> np.ndarray:
    """Weighted mean square of complete windows.

    `energy` and `samples` `[G]` are weighted sum of squares and number of samples per grid cell; `length` and
    `step` count cells. Returns `[windows]`, empty when the signal is shorter than a window.
    """
    count = len(energy) - length + 1
    if count <= 0:
        return np.zeros(0)
    first = np.arange(0, count, step)
    total = np.concatenate([[0.0], np.cumsum(energy)])
    number = np.concatenate([[0], np.cumsum(samples)])
    power = (total[first + length] - total[first]) / (number[first + length] - number[first])
    return np.maximum(power, 0.0)  # the difference of running sums may fall below 0 by rounding


def integrated_loudness(block_power: np.ndarray) -> float:
    """Gated loudness of 400 ms blocks with 75 % overlap (BS.1770-4 eq. 5 to 7); NaN when no block passes."""
    level = loudness(block_power)
    audible = level > ABSOLUTE_GATE
    if not audible.any():
        return float("nan")
    threshold = float(loudness(block_power[audible].mean())) + RELATIVE_GATE
    return float(loudness(block_power[audible & (level > threshold)].mean()))


def loudness_range(short_term_power: np.ndarray) -> float:
    """Spread of gated short-term loudness (3 s windows every 100 ms) after EBU Tech 3342; NaN when none passes."""
    level = loudness(short_term_power)
    audible = level >= ABSOLUTE_GATE
    if not audible.any():
        return float("nan")
    threshold = float(loudness(short_term_power[audible].mean())) + RANGE_GATE
    low, high = np.percentile(level[audible & (level >= threshold)], RANGE_PERCENTILES)
    return float(high - low)
