"""Audio windows: the families of `segments.json`. Pure functions of durations and frame times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError

_MIN_PARTIAL = 0.5
_MAX_PRIMARY_WITHOUT_GROUP = 120


@dataclass(frozen=True)
class AudioAxis:
    """What windows are laid over; seconds on the video's time axis.

    Audio is present in `[audio_start_sec, audio_end_sec]`; `audio_end_sec` is also the length of the audio files,
    because their sample 0 is video time 0.
    """

    video_duration_sec: float
    audio_start_sec: float
    audio_end_sec: float
    sample_rate: int
    total_samples: int
    primary_times: np.ndarray | None
    union_times: np.ndarray


@dataclass(frozen=True)
class CountCurve:
    """Number of windows over duration: one per second up to `linear_until`, then bending towards `max`."""

    k: float
    min: int
    max: int
    linear_until: float
    cap: float

    def count(self, duration_sec: float) -> int:
        if duration_sec <= self.linear_until:
            n = _round(duration_sec)
        else:
            x = min(max((duration_sec - self.linear_until) / (self.cap - self.linear_until), 0.0), 1.0)
            base = _round(self.linear_until)
            n = _round(base + (self.max - base) * (1.0 - (1.0 - x) ** self.k))
        return min(max(n, self.min), self.max)


_DENSE_CURVE = CountCurve(0.75, 5, 250, 60.0, 1200.0)
_TEMPO_CURVE = CountCurve(0.95, 5, 500, 60.0, 1200.0)
_ASR_WINDOWS = {"semantic": (30.0, 25.0), "proxy": (10.0, 5.0)}


@dataclass(frozen=True)
class Windows:
    """Windows of one family, in seconds (float64 `[M]`) and samples of `audio.wav` (int64 `[M]`).

    A window is masked (`mask` False) unless it lies inside the audio; its sample range is then clipped to the file.
    """

    family: str
    window_sec: float
    stride_sec: float | None
    placement: str
    start_sec: np.ndarray
    end_sec: np.ndarray
    center_sec: np.ndarray
    start_sample: np.ndarray
    end_sample: np.ndarray
    mask: np.ndarray

    def __len__(self) -> int:
        return len(self.start_sec)

    def as_dict(self) -> dict[str, object]:
        """The family as it stands in `segments.json`."""
        columns = ("start_sec", "end_sec", "center_sec", "start_sample", "end_sample", "mask")
        rows = zip(*(getattr(self, name).tolist() for name in columns), strict=True)
        return {
            "window_sec": self.window_sec,
            "stride_sec": self.stride_sec,
            "placement": self.placement,
            "segments": [{"index": k, **dict(zip(columns, row, strict=True))} for k, row in enumerate(rows)],
        }


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def uniform_centres(duration_sec: float, window_sec: float, n: int) -> np.ndarray:
    """`c_k = w/2 + k·(D − w)/(N − 1)`; one centre at D/2 for N = 1."""
    if n == 1:
        return np.array([duration_sec / 2])
    return window_sec / 2 + np.arange(n) * (duration_sec - window_sec) / (n - 1)


def sliding_windows(duration_sec: float, window_sec: float, stride_sec: float) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of windows from 0 on.

    The first window that does not fit is cut at the end and kept if it covers at least half a window length, or if it
    is the only one.
    """
    full = math.floor((duration_sec - window_sec) / stride_sec + 1e-9) + 1 if duration_sec >= window_sec else 0
    starts = np.arange(full) * stride_sec
    ends = starts + window_sec
    rest = full * stride_sec
    covered = duration_sec - rest
    if (full == 0 or covered >= _MIN_PARTIAL * window_sec) and covered > 0:
        starts, ends = np.append(starts, rest), np.append(ends, duration_sec)
    return starts.astype(np.float64), np.minimum(ends, duration_sec).astype(np.float64)


def _spans(axis: AudioAxis, centres: np.ndarray, window_sec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return centres - window_sec / 2, centres + window_sec / 2, centres


def _short_audio(axis: AudioAxis, window_sec: float) -> bool:
    return axis.audio_end_sec < window_sec


def _whole(axis: AudioAxis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(1), np.array([axis.audio_end_sec]), np.array([axis.audio_end_sec / 2])


def _primary(family: str, axis: AudioAxis) -> Windows:
    window = 2.0
    anchors = axis.primary_times
    if anchors is None:
        union = axis.union_times
        n = min(_MAX_PRIMARY_WITHOUT_GROUP, len(union))
        anchors = union[np.round(np.linspace(0, len(union) - 1, n)).astype(np.int64)] if n else union
    return _finish(family, axis, window, None, "anchors", _spans(axis, anchors, window))


def _uniform(snap: bool = False) -> Callable[[str, AudioAxis], Windows]:
    def build(family: str, axis: AudioAxis) -> Windows:
        window = 2.0
        placement = "uniform_snapped" if snap else "uniform"
        if _short_audio(axis, window):
            return _finish(family, axis, window, None, placement, _whole(axis))
        centres = uniform_centres(axis.audio_end_sec, window, _DENSE_CURVE.count(axis.video_duration_sec))
        if snap and len(axis.union_times):
            union = axis.union_times
            right = np.clip(np.searchsorted(union, centres), 0, len(union) - 1)
            left = np.maximum(right - 1, 0)
            centres = np.where(centres - union[left] <= union[right] - centres, union[left], union[right])
        return _finish(family, axis, window, None, placement, _spans(axis, centres, window))

    return build


def _sliding(window: float, stride: float, max_windows: int | None = None) -> Callable[[str, AudioAxis], Windows]:
    def build(family: str, axis: AudioAxis) -> Windows:
        starts, ends = sliding_windows(axis.audio_end_sec, window, stride)
        starts, ends = starts[:max_windows], ends[:max_windows]
        return _finish(family, axis, window, stride, "sliding", (starts, ends, (starts + ends) / 2))

    return build


def _tempo(family: str, axis: AudioAxis) -> Windows:
    duration = axis.video_duration_sec
    window = max(2.0, duration) if duration < 8.0 else min(max(0.6 * duration, 8.0), 15.0)
    stride = max(0.5, duration / _TEMPO_CURVE.count(duration))
    return _sliding(window, stride)(family, axis)


FAMILIES: Mapping[str, Callable[[str, AudioAxis], Windows]] = {
    "primary": _primary,
    "clap": _uniform(snap=True),
    "tempo": _tempo,
    "asr": _sliding(*_ASR_WINDOWS["semantic"]),
    "diarization": _sliding(2.0, 2.0),
    "emotion": _sliding(4.0, 2.0),
    "source_separation": _sliding(15.0, 15.0),
    **{
        name: _uniform()
        for name in ("spectral", "quality", "mfcc", "mel", "onset", "chroma", "voice_quality", "hpss", "key")
    },
}


def _finish(
    family: str,
    axis: AudioAxis,
    window_sec: float,
    stride_sec: float | None,
    placement: str,
    spans: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Windows:
    start, end, centre = (np.asarray(values, dtype=np.float64) for values in spans)
    # Half a sample of slack: the end of the audio is itself rounded to whole samples.
    slack = 0.5 / axis.sample_rate
    inside = (start >= axis.audio_start_sec - slack) & (end <= axis.audio_end_sec + slack)
    first = np.floor(start * axis.sample_rate + 0.5).astype(np.int64)
    last = np.floor(end * axis.sample_rate + 0.5).astype(np.int64)
    first = np.clip(first, 0, axis.total_samples - 1)
    last = np.clip(last, first + 1, axis.total_samples)
    return Windows(family, window_sec, stride_sec, placement, start, end, centre, first, last, inside)


def build_windows(
    families: Sequence[str], axis: AudioAxis, *, asr_mode: str = "semantic", asr_max_windows: int | None = None
) -> list[Windows]:
    """Windows of the named families, sorted by name. Raises `config_invalid` for an unknown family or ASR mode.

    `asr_mode`: `semantic` (30 s windows every 25 s) or `proxy` (10 s every 5 s).
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or asr_mode not in _ASR_WINDOWS:
        raise TrendFlowError("config_invalid", f"Unknown audio families {unknown} or ASR mode {asr_mode!r}.")
    builders = {**FAMILIES, "asr": _sliding(*_ASR_WINDOWS[asr_mode], asr_max_windows)}
    return [builders[name](name, axis) for name in sorted(set(families))]
