"""How each preview is drawn: curves as SVG, frames as one JPEG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.presentation.contact_sheet import Mark, contact_sheet
from trendflow.presentation.figure import Key, Panel, figure, time_axis
from trendflow.presentation.formatting import fixed, number
from trendflow.presentation.measures import (
    CAMERA_SHAKE,
    MIN_CHANGE_AXIS,
    MIN_COLOR_AXIS,
    MIN_DIFFERENCE_AXIS,
    MIN_MOTION_AXIS,
    NOISE_AXIS,
    REPETITION_COSINE,
    SHARPNESS_AXIS,
    TOP_CLASSES,
    camera_moves,
    camera_scale,
    class_counts,
    on_reliable_pairs,
    opening_s,
    quality,
    sound_change,
)
from trendflow.presentation.run_view import Arrays, features_of
from trendflow.presentation.series import covering, nice_range, sample_edges, spread, value_range
from trendflow.presentation.thumbnails import FrameReader
from trendflow.presentation.timeline import EVENT_TITLES, EVENT_TYPES, HARD_CUT, Axis, rate_axis

FRAMES = 10
MAX_BOXES = 8
FEW_SAMPLES = 60  # below this the samples of a curve are marked
_OBJECT_BOX, _FACE_BOX = "#56b4e9", "#f0c23c"


@dataclass(frozen=True)
class Preview:
    """One picture, below 150 kB; `mime` is `image/svg+xml` or `image/jpeg`."""

    name: str
    mime: str
    data: bytes


def _plot(name: str, axis: Axis, *panels: Panel, legend: Sequence[Key] = ()) -> Preview:
    return Preview(name, "image/svg+xml", figure(axis, panels, name.replace("_", " "), legend))


def _curve(
    axis: Axis,
    times: np.ndarray,
    values: np.ndarray,
    color: str,
    title: str,
    low: float | None = None,
    high: float | None = None,
) -> Panel:
    """A curve on a value axis that spans the data unless `low` or `high` says otherwise."""
    found = value_range(values) or (0.0, 1.0)
    bottom, top, ticks = nice_range(found[0] if low is None else low, found[1] if high is None else high)
    chart = axis.chart(bottom, top, ticks)
    chart.line(times, values, f"curve c-{color}")
    if len(times) < FEW_SAMPLES:
        chart.dots(times, values, f"dot c-{color}")
    return Panel(chart, title, ticks)


def _last(times: np.ndarray) -> float:
    return float(times[-1]) if len(times) else 0.0


def _segmenter(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["union_timestamps_sec"]
    return _sheet("filmstrip", frames, np.arange(len(times)), times)


def _sheet(
    name: str,
    frames: FrameReader | None,
    indices: np.ndarray,
    times: np.ndarray,
    marks: Callable[[int], list[Mark]] | None = None,
) -> list[Preview]:
    """A contact sheet of evenly spread samples, or nothing when there is no reader or no sample."""
    if frames is None or not len(indices):
        return []
    chosen = spread(len(indices), FRAMES)
    pictures = frames.read(np.asarray(indices)[chosen].astype(np.int32))
    boxes = [marks(int(k)) for k in chosen] if marks else []
    return [Preview(name, "image/jpeg", contact_sheet(pictures, np.asarray(times)[chosen].tolist(), boxes))]


def _dense(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["pts_sec"]
    axis = time_axis(_last(times))
    difference = arrays["lowres_mad"]
    top = rate_axis(difference, MIN_DIFFERENCE_AXIS)
    return [
        _plot(
            "frame_signals",
            axis,
            _curve(axis, times, difference, "picture", "frame difference", 0.0, top),
            _curve(axis, times, arrays["luma_mean"], "picture", "brightness", 0.0, 1.0),
        )
    ]


def _cuts(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    starts, ends = arrays["shot_start_time_s"], arrays["shot_end_time_s"]
    axis = time_axis(_last(ends))
    ticks = (0.0, 0.5, 1.0)
    chart = axis.chart(0.0, 1.0, ticks)
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        chart.band(start, end, f"shot-{k % 2}")
    # The artifact has no time per source frame; between the borders of a shot frames are spaced evenly enough here.
    anchors = np.concatenate([arrays["shot_start_source_frame"], arrays["shot_end_source_frame"][-1:]])
    times = np.interp(np.arange(len(arrays["cut_score"])), anchors, np.concatenate([starts, ends[-1:]]))
    chart.line(times, arrays["cut_score"], "curve c-cut")
    legend = []
    for kind in sorted(set(arrays["event_type_id"].tolist())):
        at = arrays["event_time_s"][arrays["event_type_id"] == kind]
        color = "cut" if kind == HARD_CUT else "content"
        chart.dots(at, np.full(len(at), 0.95), f"dot c-{color} ev-{EVENT_TYPES[kind]}")
        legend.append(Key(color, EVENT_TITLES[kind]))
    return [_plot("cut_time_line", axis, Panel(chart, "cut score", ticks), legend=legend)]


def _image_change(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["times_s"]
    axis = time_axis(_last(times))
    change = 1.0 - arrays["consecutive_cosine_prev"].astype(np.float64)
    return [_plot("image_change", axis, _curve(axis, times, change, "content", "1 − cosine to previous", low=0.0))]


def _faces(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, count = arrays["times_s"], arrays["face_count"]
    axis = time_axis(_last(times))
    top = max(1, int(count.max(initial=0)))
    ticks = sorted({0.0, float(top // 2), float(top)})
    chart = axis.chart(0.0, float(top), ticks)
    chart.steps(sample_edges(times, _last(times)), count, "curve c-content", "area c-content")
    splits, boxes = arrays["face_row_splits"], arrays["face_boxes_norm"]

    def marks(k: int) -> list[Mark]:
        return [Mark(boxes[row], "", _FACE_BOX) for row in range(splits[k], splits[k + 1])]

    plot = _plot("faces_over_time", axis, Panel(chart, "faces", ticks, height=80))
    return [plot, *_sheet("faces", frames, arrays["frame_indices"], times, marks)]


def _objects(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["times_s"]
    axis = time_axis(_last(times))
    edges = sample_edges(times, _last(times))
    lanes = []
    for name, count in list(class_counts(arrays).items())[:TOP_CLASSES]:
        chart = axis.chart()
        for level in (1, 2, 3):
            chart.blocks(edges, count == level if level < 3 else count >= level, f"heat heat-{level} c-content")
        lanes.append(Panel(chart, name, height=20))
    splits, names = arrays["det_row_splits"], arrays["class_names"]

    def marks(k: int) -> list[Mark]:
        rows = sorted(range(splits[k], splits[k + 1]), key=lambda row: -arrays["scores"][row])[:MAX_BOXES]
        return [Mark(arrays["boxes_norm"][row], str(names[arrays["class_ids"][row]]), _OBJECT_BOX) for row in rows]

    plot = _plot("objects_over_time", axis, *lanes)
    return [plot, *_sheet("objects", frames, arrays["frame_indices"], times, marks)]


def _loudness(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    lufs = np.where(arrays["segment_mask"], arrays["segment_lufs"], np.nan)
    integrated = features_of(arrays)["lufs_integrated"]
    found = value_range(lufs, np.array([integrated]))
    if value_range(lufs) is None or found is None:
        return []
    axis = time_axis(_last(arrays["segment_center_sec"]))
    panel = _curve(axis, arrays["segment_center_sec"], lufs, "audio", "LUFS, 2 s windows", *found)
    legend = []
    if math.isfinite(integrated):
        panel.chart.level(integrated, "level")
        legend = [Key("audio", f"dashed: integrated {fixed(integrated, 1, 'LUFS')}")]
    return [_plot("loudness", axis, panel, legend=legend)]


def _tempo(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, bpm = arrays["segment_center_sec"], arrays["bpm_by_segment"]
    axis = time_axis(_last(arrays["segment_end_sec"]))
    low, high = value_range(bpm) or (0.0, 1.0)
    return [
        _plot(
            "tempo",
            axis,
            _curve(axis, times, bpm, "audio", "BPM", low - 5, high + 5),  # a steady beat must look steady
            _curve(axis, times, arrays["pulse_clarity_by_segment"], "audio", "pulse clarity", high=1.0),
        )
    ]


def _flow(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["times_s"]
    axis = time_axis(_last(times))
    speed = on_reliable_pairs(arrays, "motion_norm_per_sec_mean")
    panels = [_curve(axis, times, speed, "picture", "frame lengths/s", 0.0, rate_axis(speed, MIN_MOTION_AXIS))]
    moves = camera_moves(arrays)
    scale = camera_scale(moves)
    for title, values in moves.items():
        chart = axis.chart(0.0 if title == CAMERA_SHAKE else -scale, scale, (0.0,))
        chart.line(times, values, "curve c-content")
        panels.append(Panel(chart, title, height=36))
    legend = [Key("picture", "motion"), Key("content", f"camera: lanes reach {number(scale, 2)} per s")]
    return [_plot("motion_and_camera", axis, *panels, legend=legend)]


def _story(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, energy = arrays["times_s"], arrays["story_energy_curve"]
    axis = time_axis(_last(times))
    # The artifact does not hold the duration; its last sample is less than a sample's gap before the end.
    opening = opening_s(_last(times))
    panel = _curve(axis, times, energy, "content", "energy", 0.0, rate_axis(energy, 1.0))
    panel.chart.band(0.0, opening, "opening")
    panel.chart.dots(arrays["story_energy_peaks_times_s"], arrays["story_energy_peaks_values"], "dot c-cut peak")
    legend = [Key("cut", f"peaks; shaded: opening of {fixed(opening, 1, 's')}")]
    return [_plot("story_energy", axis, panel, legend=legend)]


def _pace(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, semantic, color = (
        arrays[name] for name in ("times_s", "semantic_change_rate_per_sec", "color_change_rate_per_sec")
    )
    axis = time_axis(_last(times))
    density = arrays["cut_density_8"].astype(np.float64) * 60
    top = rate_axis(density, 1.0)
    chart = axis.chart(0.0, top, (0.0, top))
    chart.steps(np.linspace(0.0, axis.duration, len(density) + 1), density, "curve c-cut", "area c-cut")
    return [
        _plot(
            "pace",
            axis,
            Panel(chart, "cuts per min", (0.0, top), height=80),
            _curve(axis, times, semantic, "content", "content, 1/s", 0.0, rate_axis(semantic, MIN_CHANGE_AXIS)),
            _curve(axis, times, color, "picture", "colour, ΔE/s", 0.0, rate_axis(color, MIN_COLOR_AXIS)),
        )
    ]


def _repetition(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, similar = arrays["times_s"], arrays["max_sim_to_other"]
    axis = time_axis(_last(times))
    found = value_range(similar)
    if found is None:
        return []
    low = min(found[0], REPETITION_COSINE - 0.05)
    panel = _curve(axis, times, similar, "content", "highest cosine", low, 1.0)
    panel.chart.level(REPETITION_COSINE, "level")
    return [_plot("repetition", axis, panel, legend=[Key("content", f"dashed: repetition, {REPETITION_COSINE:g}")])]


# Measure, title, and the least its value axis covers.
_QUALITY_PANELS: tuple[tuple[str, str, tuple[float, float]], ...] = (
    ("sharpness_tenengrad_log", "sharpness, log10", SHARPNESS_AXIS),
    ("noise_sigma", "noise of 255", NOISE_AXIS),
    ("underexposure_ratio", "too dark", (0.0, 1.0)),
    ("overexposure_ratio", "too bright", (0.0, 1.0)),
)


def _quality(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["times_s"]
    axis = time_axis(_last(times))
    panels = []
    for name, title, span in _QUALITY_PANELS:
        values, shots = quality(arrays, name)
        shown = covering(values, span)
        if shown is None:
            continue
        bottom, top, ticks = nice_range(*shown, 2)
        chart = axis.chart(bottom, top, ticks)
        chart.line(times, values, "curve faint c-picture")
        chart.steps(sample_edges(times, _last(times)), shots, "curve c-picture")
        panels.append(Panel(chart, title, (ticks[0], ticks[-1]), height=80))
    return [_plot("quality", axis, *panels, legend=[Key("picture", "mean of each shot; faint: each frame")])]


def _sound(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, change = arrays["segment_center_sec"], sound_change(arrays)
    axis = time_axis(_last(times))
    panel = _curve(axis, times, change, "audio", "cosine distance", 0.0, rate_axis(change, MIN_CHANGE_AXIS))
    return [_plot("sound_change", axis, panel)]


DRAWERS: dict[str, Callable[[Arrays, FrameReader | None], list[Preview]]] = {
    "segmenter": _segmenter,
    "dense_signals": _dense,
    "cut_detection": _cuts,
    "core_clip": _image_change,
    "core_face_landmarks": _faces,
    "core_object_detections": _objects,
    "core_optical_flow": _flow,
    "shot_quality": _quality,
    "story_structure": _story,
    "uniqueness": _repetition,
    "video_pacing": _pace,
    "clap_extractor": _sound,
    "loudness_extractor": _loudness,
    "tempo_extractor": _tempo,
}
