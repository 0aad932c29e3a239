"""What the Segmenter decided and measured, recomputed from docs/components.md and an own decode of the source."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from trendflow_tests.recompute.compare import assert_scalars, duration_s
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

CHILDREN = ("story_structure", "uniqueness", "video_pacing")
"""Components that take their frames out of those of the group `primary`."""
PRIMARY = ("core_clip", "core_optical_flow", "core_object_detections", "core_face_landmarks", "shot_quality")


@dataclass(frozen=True)
class Decoded:
    """Every frame of the source: ticks, 8-bit RGB on the raster `[F, 54, 96, 3]` / 255, and the end of the last one."""

    pts: np.ndarray
    time_base: float
    rasters: np.ndarray
    end_pts: int

    @property
    def times_s(self) -> np.ndarray:
        return np.asarray((self.pts - self.pts[0]) * self.time_base)

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - self.pts[0]) * self.time_base)


def bt601_rgb(frame: av.VideoFrame) -> np.ndarray:
    """RGB in [0, 1] of a limited-range YUV 4:2:0 frame with the matrix of BT.601."""
    planes = frame.to_ndarray().astype(np.float64)
    luma, chroma = planes[: frame.height], planes[frame.height :].reshape(2, frame.height // 2, frame.width // 2)
    y = (luma - 16) / 219
    cb, cr = (cv2.resize((plane - 128) / 224, (frame.width, frame.height)) for plane in chroma)
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1)


@pytest.fixture(scope="module")
def decoded(finished: StoredRun) -> Decoded:
    pts, rasters = [], []
    with av.open(str(finished.source)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            assert frame.format.name == "yuv420p"
            assert frame.height < 720, "a stream without a stated matrix is then BT.601"
            pts.append(frame.pts)
            raster = cv2.resize(bt601_rgb(frame), (96, 54), interpolation=cv2.INTER_AREA)
            rasters.append(np.round(raster * 255) / 255)
            end = frame.pts + frame.duration
        return Decoded(np.array(pts), float(stream.time_base), np.array(rasters), end)


def soft_histogram(raster: np.ndarray) -> np.ndarray:
    """Shares of 16 hues × 4 saturations × 4 values; what is one bin of the 148 stands in one place."""
    pixels = raster.reshape(-1, 3)
    value, chroma = pixels.max(axis=1), np.ptp(pixels, axis=1)
    some = np.where(chroma > 0, chroma, 1)
    red, green, blue = pixels.T
    sixth = np.select(
        [value == red, value == green],
        [(green - blue) / some % 6, (blue - red) / some + 2],
        (red - green) / some + 4,
    )
    hue = np.where(chroma > 0, sixth * 16 / 6, 0)
    saturation = np.where(value > 0, 3 * chroma / np.where(value > 0, value, 1), 0)
    histogram = np.zeros((4, 4, 16))
    for dv in (0, 1):
        for ds in (0, 1):
            for dh in (0, 1):
                share = np.ones(len(pixels))
                nodes = []
                for position, step, last in ((3 * value, dv, 2), (saturation, ds, 2), (hue, dh, 16)):
                    cell = np.minimum(position.astype(int), last)
                    offset = position - cell
                    share *= offset if step else 1 - offset
                    nodes.append(cell + step)
                np.add.at(histogram, (nodes[0], nodes[1], nodes[2] % 16), share)
    merged = np.zeros_like(histogram)
    merged[0, 0, 0] = histogram[0].sum()
    merged[1:, 0, 0] = histogram[1:, 0].sum(axis=1)
    merged[1:, 1:] = histogram[1:, 1:]
    return np.asarray(merged / len(pixels))


def test_dense_signals(finished: StoredRun, decoded: Decoded) -> None:
    dense = finished.dense()
    np.testing.assert_array_equal(dense["pts"], decoded.pts)
    np.testing.assert_allclose(dense["pts_sec"], decoded.times_s, rtol=0, atol=1e-9)
    # Both round to 8 bits, but libswscale averages before it converts colours, this reader after. With the matrix of
    # BT.709 luma would be off by 0.001.
    luma = np.mean(decoded.rasters @ (0.2126, 0.7152, 0.0722), axis=(1, 2))
    np.testing.assert_allclose(dense["luma_mean"], luma, rtol=0, atol=3e-4)
    difference = np.mean(np.abs(np.diff(decoded.rasters, axis=0)), axis=(1, 2, 3))
    assert difference.max() > 0.2
    np.testing.assert_allclose(dense["lowres_mad"][1:], difference, rtol=1e-3, atol=3e-4)
    histograms = [soft_histogram(raster) for raster in decoded.rasters]
    distance = [np.abs(now - before).sum() / 2 for before, now in pairwise(histograms)]
    assert max(distance) > 0.5
    np.testing.assert_allclose(dense["hist_l1"][1:], distance, rtol=1e-3, atol=2e-3)
    assert np.isnan([dense["lowres_mad"][0], dense["hist_l1"][0]]).all()


def test_scalars(finished: StoredRun, decoded: Decoded) -> None:
    with av.open(str(finished.source)) as container:
        stream, sound = container.streams.video[0], container.streams.audio[0]
        rate, width, height = float(stream.average_rate), stream.codec_context.width, stream.codec_context.height
        first = stream.start_time * stream.time_base
        blocks = list(container.decode(sound))
        end = blocks[-1].pts * blocks[-1].time_base + blocks[-1].samples / blocks[-1].sample_rate - first
        start = max(0, blocks[0].pts * blocks[0].time_base - first)
    intervals = np.diff(decoded.times_s)
    median = np.median(intervals)
    assert duration_s(finished) == pytest.approx(decoded.duration_s, abs=1e-9)
    assert_scalars(
        finished,
        "segmenter",
        {
            "duration_sec": decoded.duration_s,
            "source_fps": rate,
            "analysis_fps": rate,
            "analysis_height": min(320, height),
            "analysis_width": 2 * round(width / height * 320 / 2),
            "source_width": width,
            "source_height": height,
            "aspect_ratio": width / height,
            "is_portrait": height > width,
            "is_vfr": np.mean(np.abs(intervals - median) > 0.25 * median) > 0.01,
            "decode_error_ratio": 0,
            "audio_channels": sound.codec_context.channels,
            "audio_coverage_ratio": (min(float(end), decoded.duration_s) - float(start)) / decoded.duration_s,
            "av_drift_sec": abs(float(end) - decoded.duration_s),
        },
        rtol=1e-5,
        atol=1e-4,  # the end of the audio is rounded to a sample
    )
    assert finished.frames(np.array([0])).shape == (1, 320, 568, 3)


def nearest(times: np.ndarray, target: float) -> int:
    """Position of the time nearest to the target, the earlier one of two."""
    return int(np.argmin(np.abs(times - target)))


def budget_of(duration: float, low: int, target: int, high: int) -> int:
    """Frames of a set for a video of at most 60 s, where one every 0.25 s is the duration's own limit."""
    assert duration <= 60
    return int(np.clip(max(low, min(target, int(duration / 0.25 + 0.5))), low, high))


def test_frames_of_every_component(finished: StoredRun, decoded: Decoded) -> None:
    plan, times = finished.arrays("segmenter"), decoded.times_s
    splits, names = plan["component_indices_row_splits"], plan["component_names"].tolist()
    rows = {name: plan["component_indices"][splits[k] : splits[k + 1]] for k, name in enumerate(names)}
    budgets = dict(zip(names, plan["component_budget"].tolist(), strict=True))
    wanted = {name: budget_of(decoded.duration_s, *budgets[name]) for name in ("cut_detection", *CHILDREN)}
    low, target, high = np.array([budgets[name] for name in PRIMARY]).T
    primary = budget_of(decoded.duration_s, low.max(), target.max(), high.min())

    largest = min(max(wanted["cut_detection"], primary), len(times))
    chosen: list[int] = []
    for k in range(largest):
        position = nearest(times, k * times[-1] / (largest - 1))
        first = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(position, first), len(times) - largest + k))
    np.testing.assert_array_equal(plan["union_frame_indices_source"], chosen)
    np.testing.assert_allclose(plan["union_timestamps_sec"], times[chosen], rtol=0, atol=1e-9)

    def spread(n: int, of: int) -> list[int]:
        return [int(k * (of - 1) / (n - 1) + 0.5) for k in range(n)]

    group = np.array(spread(primary, largest))
    for name in PRIMARY:
        np.testing.assert_array_equal(rows[name], group)
    for name in CHILDREN:
        np.testing.assert_array_equal(rows[name], group[spread(min(wanted[name], primary), primary)])
    assert set(names) == {"cut_detection", "optical_flow", *PRIMARY, *CHILDREN}


def test_audio_windows(finished: StoredRun, decoded: Decoded) -> None:
    plan, duration = finished.arrays("segmenter"), decoded.duration_s
    samples, rate = finished.audio("audio_full.wav")
    end = len(samples) / rate
    clip = finished.arrays("core_clip")["times_s"]
    assert 8 <= duration <= 60
    even = 1 + np.arange(round(duration)) * (end - 2) / (round(duration) - 1)
    union = plan["union_timestamps_sec"]
    inside = union[(union >= 1) & (union <= end - 1)]  # the audio of this file begins with its video
    snapped = np.array([inside[nearest(inside, t)] for t in even])
    window, stride = np.clip(0.6 * duration, 8, 15), max(0.5, duration / round(duration))
    starts = np.arange(int((end - window) / stride) + 1) * stride
    rest = len(starts) * stride
    ends = starts + window
    if end - rest >= window / 2:
        starts, ends = np.append(starts, rest), np.append(ends, end)
    expected = {
        "clap": (snapped - 1, snapped + 1),
        "primary": (clip - 1, clip + 1),
        "tempo": (starts, ends),
    }
    assert plan["family_names"].tolist() == sorted(expected)
    for k, family in enumerate(plan["family_names"].tolist()):
        mine = slice(*plan["segment_row_splits"][k : k + 2])
        start, stop = expected[family]
        np.testing.assert_allclose(plan["segment_start_sec"][mine], start, rtol=0, atol=1e-4)
        np.testing.assert_allclose(plan["segment_end_sec"][mine], stop, rtol=0, atol=1e-4)
        np.testing.assert_allclose(plan["segment_center_sec"][mine], (start + stop) / 2, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(plan["segment_mask"][mine], (start >= -1e-6) & (stop <= end + 1e-4))
