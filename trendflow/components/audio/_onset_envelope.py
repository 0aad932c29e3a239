"""Onset strength of audio windows from one mel spectrogram of the whole signal.

Method: the onset envelope has one value per hop of 512 samples of `audio.wav`: the mean over 128 mel bands of the
rise in dB since the frame before, falls counting as 0. Frames are Hann windows of 2048 samples that start at
multiples of 512 and lie inside the audio window; levels more than 80 dB below the loudest band of the window are
raised to that. Bands and spectrum are librosa's (`melspectrogram` without centring, `power_to_db`, `onset_strength`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trendflow.components.audio._windows import SampleRanges

HOP = 512
FRAME = 2048
_BANDS = 128
_CHUNK_S = 60


def onset_envelopes(
    mono: np.ndarray, rate: int, ranges: SampleRanges, progress: Callable[[int, int], None]
) -> list[np.ndarray]:
    """Onset strength per hop of 512 samples of each window, float64; empty where masked or shorter than two frames.

    It is the mean over mel bands of the rise in level (librosa's `onset_strength`). Levels are relative to the
    loudest band of the window, so gain changes nothing. Overlapping windows share one spectrogram.
    """
    # The audio stack takes seconds to import; a worker that meets no music never pays for it.
    import librosa

    power = _mel_power(mono, rate, progress)
    envelopes: list[np.ndarray] = []
    for start, stop, measurable in zip(ranges.start, ranges.stop, ranges.mask, strict=True):
        first = -(-int(start) // HOP)
        last = (int(stop) - FRAME) // HOP  # last frame that lies inside the window
        window = power[:, first : last + 1]
        if not measurable or window.shape[1] < 2 or window.max() <= 0:
            envelopes.append(np.zeros(0))
            continue
        level = librosa.power_to_db(window / window.max(), ref=1.0, top_db=80.0)
        strength = librosa.onset.onset_strength(S=level, sr=rate, hop_length=HOP, center=False)
        envelopes.append(strength[1:].astype(np.float64))  # the first frame has no predecessor
    return envelopes


def _mel_power(mono: np.ndarray, rate: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """Mel power spectrogram float32 `[128, frames]`; frame i covers samples i·512 … i·512 + 2047."""
    import librosa

    frames = max(0, (len(mono) - FRAME) // HOP + 1)
    power = np.empty((_BANDS, frames), dtype=np.float32)
    chunk = _CHUNK_S * rate // HOP
    for first in range(0, frames, chunk):
        last = min(first + chunk, frames)
        samples = np.asarray(mono[first * HOP : (last - 1) * HOP + FRAME], dtype=np.float32)
        power[:, first:last] = librosa.feature.melspectrogram(
            y=samples, sr=rate, n_fft=FRAME, hop_length=HOP, n_mels=_BANDS, center=False
        )
        progress(last, frames)
    return power
