"""Audio windows: the families of `segments.json`. Pure functions of durations and frame times.

Method: windows of `primary` are 2 s around the times of the group `primary`. Those of `clap` are 2 s around N even
times from 1 s after the start of the audio to 1 s before its end, each moved to the nearest time of the union around
which 2 s of audio lie, the earlier one of two; N is the duration in whole seconds up to 60 s, then round(60 + 190·(1 −
(1 − x)^0.75)) with x = (duration − 60) / 1140, and at least 5. Those of `tempo` last as long as the video, at least 2
s, below 8 s of video, else clip(0.6 · duration, 8, 15) s; they follow each other by max(0.5 s, duration / N') from the
start of the audio as long as they fit, and one more is cut at its end and kept if half of it is left. N' is as N with
440 for 190 and 0.95 for 0.75. The audio ends where its last sample does.
"""

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

    @property
    def audio_duration_sec(self) -> float:
        return self.audio_end_sec - self.audio_start_sec


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
    """Starts and ends of windows over `duration_sec` seconds, from 0 on.

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


def _whole(axis: AudioAxis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start, end = np.array([axis.audio_start_sec]), np.array([axis.audio_end_sec])
    return start, end, (start + end) / 2


def _snapped(axis: AudioAxis, centres: np.ndarray, window_sec: float) -> np.ndarray:
    """Each centre moved to the nearest time of the union whose window lies inside the audio, else left alone."""
    union = axis.union_times
    slack = _slack(axis)
    low, high = axis.audio_start_sec + window_sec / 2 - slack, axis.audio_end_sec - window_sec / 2 + slack
    union = union[(union >= low) & (union <= high)]
    if not len(union):
        return centres
    right = np.clip(np.searchsorted(union, centres), 0, len(union) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(centres - union[left] <= union[right] - centres, union[left], union[right])


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
        if axis.audio_duration_sec < window:
            return _finish(family, axis, window, None, placement, _whole(axis))
        count = _DENSE_CURVE.count(axis.video_duration_sec)
        centres = axis.audio_start_sec + uniform_centres(axis.audio_duration_sec, window, count)
        if snap:
            centres = _snapped(axis, centres, window)
        return _finish(family, axis, window, None, placement, _spans(axis, centres, window))

    return build


def _sliding(window: float, stride: float, max_windows: int | None = None) -> Callable[[str, AudioAxis], Windows]:
    def build(family: str, axis: AudioAxis) -> Windows:
        spans = sliding_windows(axis.audio_duration_sec, window, stride)
        starts, ends = (axis.audio_start_sec + times[:max_windows] for times in spans)
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


def _slack(axis: AudioAxis) -> float:
    """Half a sample, in seconds: the end of the audio is itself rounded to whole samples."""
    return 0.5 / axis.sample_rate


def _finish(
    family: str,
    axis: AudioAxis,
    window_sec: float,
    stride_sec: float | None,
    placement: str,
    spans: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Windows:
    start, end, centre = (np.asarray(values, dtype=np.float64) for values in spans)
    slack = _slack(axis)
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
