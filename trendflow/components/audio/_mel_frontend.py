"""Waveform → log-mel patches, as the catalogue entry of an audio encoder describes them.

Every number comes from the entry; this module only knows the methods. Windows must already have the length the entry
states, see `fit`.

Method: a window is brought to `input_samples` as `padding` says: `repeat` continues it from its start,
`repeat_then_zero` repeats it as often as it fits completely and fills up with silence, `zero` only fills up. Its mel
power spectrogram S has periodic Hann frames of `n_fft` samples centred on multiples of `hop`, the ends continued by
reflection, and `mel_bands` triangles of equal area on Slaney's mel scale from `mel_low_hz` to `mel_high_hz`. The
model sees log10(1 + power_factor·S) or 10 log10(max(S, power_floor)), by `compression`; its input says of how many
frames, from the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from trendflow.components._entry import choice, number
from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry

PADDINGS = ("repeat", "repeat_then_zero", "zero")
COMPRESSIONS = ("log10_scaled", "decibel")
_MAX_RATE, _MAX_SAMPLES = 192_000, 1 << 24


@dataclass(frozen=True)
class MelFrontEnd:
    """Log-mel patches for one entry. `samples` is the length of the model's input at `rate`."""

    rate: int
    samples: int
    padding: str
    frames: int
    bands: int
    fft: int
    hop: int
    low_hz: float
    high_hz: float
    compress: Callable[[np.ndarray], np.ndarray]
    level_dbfs: float | None
    """RMS level the sound is brought to, for a model whose vectors follow the level; None leaves it as it is."""
    shape: tuple[int, ...]
    """Shape of one unit of the model's input; its last two axes are frames and bands."""

    @classmethod
    def of(cls, entry: CatalogueEntry) -> Self:
        """The facts of `entry`. Raises `model_spec_invalid` when one is missing or contradicts another."""

        def whole(name: str, low: int, high: int) -> int:
            return int(number(entry, "preprocessing", name, low, high))

        shape = entry.inputs[0].shape[1:] if len(entry.inputs) == 1 else ()
        sizes = tuple(size for size in shape if isinstance(size, int))
        fft = whole("n_fft", 16, 1 << 16)
        hop = whole("hop", 1, fft)
        samples = whole("input_samples", fft, _MAX_SAMPLES)
        bands = whole("mel_bands", 1, fft // 2)
        # One frame per hop, centred; the model may leave out the last.
        offered = 1 + samples // hop
        fits = len(sizes) == len(shape) >= 2 and sizes[-1] == bands and all(size == 1 for size in sizes[:-2])
        if not fits or sizes[-2] not in (offered, offered - 1):
            raise TrendFlowError(
                "model_spec_invalid", f"The input of {entry.name} does not hold the log-mel frames its facts describe."
            )
        rate = whole("sample_rate", 1000, _MAX_RATE)
        low_hz = number(entry, "preprocessing", "mel_low_hz", 0, rate / 2)
        return cls(
            rate=rate,
            samples=samples,
            padding=choice(entry, "preprocessing", "padding", PADDINGS),
            frames=sizes[-2],
            bands=bands,
            fft=fft,
            hop=hop,
            low_hz=low_hz,
            high_hz=number(entry, "preprocessing", "mel_high_hz", low_hz, rate / 2),
            compress=_compression(entry),
            level_dbfs=number(entry, "preprocessing", "level_dbfs", -60, 0)
            if "level_dbfs" in entry.preprocessing
            else None,
            shape=sizes,
        )

    def fit(self, window: np.ndarray) -> np.ndarray:
        """A window of 1…`samples` samples at the model's length, float32. A longer one is `model_spec_invalid`.

        `repeat` continues the window from its start, `repeat_then_zero` repeats it as often as it fits completely and
        fills up with silence, `zero` only fills up.
        """
        if not 0 < len(window) <= self.samples:
            raise TrendFlowError(
                "model_spec_invalid",
                f"A window of {len(window)} samples does not fit the model's input of {self.samples}.",
            )
        if self.padding == "repeat":
            return np.resize(window, self.samples)
        times = self.samples // len(window) if self.padding == "repeat_then_zero" else 1
        fitted = np.zeros(self.samples, np.float32)
        fitted[: times * len(window)] = np.tile(window, times)
        return fitted

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Waveforms `[n, samples]` → float32 `[n, *shape]`.

        Power spectra of Hann-windowed frames centred on multiples of the hop, the ends continued by reflection.
        """
        padded = np.pad(windows.astype(np.float64), ((0, 0), (self.fft // 2, self.fft // 2)), mode="reflect")
        patches = np.empty((len(windows), self.frames, self.bands), np.float32)
        for row, signal in enumerate(padded):  # one at a time: the frames overlap and would multiply the memory
            frames = np.lib.stride_tricks.sliding_window_view(signal, self.fft)[:: self.hop][: self.frames]
            spectrum = np.fft.rfft(frames * self._hann, axis=1)
            power = spectrum.real**2 + spectrum.imag**2
            patches[row] = self.compress(power @ self._filters.T)
        return patches.reshape(len(windows), *self.shape)

    @cached_property
    def _hann(self) -> np.ndarray:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.fft) / self.fft)

    @cached_property
    def _filters(self) -> np.ndarray:
        """Triangles of equal area on Slaney's mel scale, float64 `[bands, fft/2 + 1]`."""
        low, high = slaney_mel(np.array([self.low_hz, self.high_hz])).tolist()
        edges = slaney_hz(np.linspace(low, high, self.bands + 2))
        bins = np.arange(self.fft // 2 + 1) * self.rate / self.fft
        rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
        falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
        return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]


_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LOG_FROM_HZ, _LOG_STEP = 1000.0, np.log(6.4) / 27.0


def slaney_mel(hz: np.ndarray) -> np.ndarray:
    """Hz → mel of Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above."""
    knee = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
    return np.where(
        hz < _LOG_FROM_HZ,
        hz / _LINEAR_HZ_PER_MEL,
        knee + np.log(np.maximum(hz, _LOG_FROM_HZ) / _LOG_FROM_HZ) / _LOG_STEP,
    )


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of `slaney_mel`."""
    knee = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
    return np.where(mel < knee, mel * _LINEAR_HZ_PER_MEL, _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - knee)))


def _compression(entry: CatalogueEntry) -> Callable[[np.ndarray], np.ndarray]:
    if choice(entry, "preprocessing", "compression", COMPRESSIONS) == "decibel":
        floor = number(entry, "preprocessing", "power_floor", 1e-30, 1.0)
        return lambda power: 10.0 * np.log10(np.maximum(power, floor))
    factor = number(entry, "preprocessing", "power_factor", 1e-6, 1e12)
    return lambda power: np.log10(factor * power + 1.0)
