"""The tracks of the report: one chart per signal, in reading order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from trendflow.presentation.formatting import clock, fixed, number, percent, plural
from trendflow.presentation.run_view import SEGMENTER, Arrays, ComponentView, RunView
from trendflow.presentation.series import nice_range, sample_edges, value_range
from trendflow.presentation.svg import Chart
from trendflow.presentation.timeline import (
    EVENT_TITLES,
    EVENT_TYPES,
    HARD_CUT,
    Axis,
    Lane,
    Legend,
    State,
    TimeLabel,
    Track,
    axis_labels,
    component_state,
    curve,
    make_axis,
    peak,
    shot_label,
)

TOP_CLASSES = 6
# Below this the picture stands still; a finer axis would magnify coding noise.
MIN_MOTION_AXIS = 0.01
# A shot narrower than this share of the axis has no room for its number.
MIN_LABEL_SHARE = 0.025
MIN_LABEL_SHARE_PHONE = 0.07
# White noise may pass the evidence gate in almost a fifth of its windows; fewer than that speak for no tempo.
MIN_TEMPO_WINDOWS = 0.2
NO_STEADY_TEMPO = "No steady tempo"


def build_tracks(view: RunView) -> list[Track]:
    """Every track of the run in reading order. A component outside the run's profile has none."""
    axis = make_axis(view)
    if axis is None:
        return []
    builders: tuple[tuple[str, Callable[[RunView, Axis], list[Track]]], ...] = (
        ("cut_detection", _shots),
        (SEGMENTER, _dense),
        ("core_clip", _image_change),
        ("core_face_landmarks", _faces),
        ("core_object_detections", _objects),
        ("loudness_extractor", _loudness),
        ("tempo_extractor", _tempo),
    )
    tracks: list[Track] = []
    for component, build in builders:
        if component in view.components or view.skipped_because(component) is not None:
            tracks += build(view, axis)
    return tracks


def _shots(view: RunView, axis: Axis) -> list[Track]:
    arrays = view.arrays("cut_detection")
    about = "Shots as alternating bands; boundaries and transitions as marks."
    state = component_state(view, "cut_detection")
    if state is not None:
        return [Track("shots", "Shots and cuts", about, state=state)]
    starts, ends = arrays["shot_start_time_s"], arrays["shot_end_time_s"]
    chart = axis.chart(cuts=False)
    labels = []
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        chart.band(start, end, f"shot shot-{k % 2}", shot_label(k, start, end))
        share = (end - start) / axis.duration
        if share >= MIN_LABEL_SHARE:
            labels.append(TimeLabel(50 * (start + end) / axis.duration, str(k + 1), share < MIN_LABEL_SHARE_PHONE))
    types = arrays["event_type_id"].tolist()
    for k, kind in enumerate(types):
        _draw_event(chart, arrays, k, kind)
    present = sorted(set(types))
    legend = [Legend(f"ev ev-{EVENT_TYPES[kind]}", EVENT_TITLES[kind]) for kind in present]
    facts = [plural(len(starts), "shot"), plural(types.count(HARD_CUT), "hard cut")]
    tracks = [
        Track(
            "shots",
            "Shots and cuts",
            about,
            facts,
            chart.render(f"{facts[0]} and {facts[1]} over {clock(axis.duration)}"),
            "s",
            x_labels=labels,
            legend=legend,
        )
    ]
    if "pts_sec" in view.dense and len(arrays["cut_score"]):
        tracks.append(
            curve(
                axis,
                "cut-score",
                "Cut score",
                "How strongly colour and structure change between neighbouring frames; every source frame.",
                view.dense["pts_sec"],
                arrays["cut_score"],
                "",
                2,
                low=0.0,
                high=1.0,
                facts=[f"max {number(peak(arrays['cut_score']), 2)}"],
                color="c-cut",
            )
        )
    return tracks


def _draw_event(chart: Chart, arrays: Arrays, k: int, kind: int) -> None:
    at, start, end = (float(arrays[f"event_{part}time_s"][k]) for part in ("", "start_", "end_"))
    title = f"{EVENT_TITLES[kind]} at {clock(at, 2)}, strength {fixed(float(arrays['event_strength'][k]), 2)}"
    if kind == HARD_CUT:
        if arrays["event_is_jump_cut"][k]:
            title += ", jump cut"
        chart.marker(at, "ev-hard_cut", title)
    elif end > start:
        chart.band(start, end, f"ev-{EVENT_TYPES[kind]}", title, high=0.3)
    else:
        chart.marker(at, f"ev-{EVENT_TYPES[kind]}", title, high=0.3)


def _dense(view: RunView, axis: Axis) -> list[Track]:
    dense = view.dense
    if "pts_sec" not in dense:
        state = component_state(view, SEGMENTER) or State("none", "This run has no dense signals.")
        return [Track("frame-difference", "Frame difference", "", state=state)]
    times, motion = dense["pts_sec"], dense["lowres_mad"]
    # The spike of a cut is many times any motion; the axis ends where motion does and spikes leave it.
    off_cut = np.ones(len(times), bool)
    for cut in axis.cuts:
        off_cut[max(0, int(np.searchsorted(times, cut)) - 1) : int(np.searchsorted(times, cut)) + 2] = False
    top = max(MIN_MOTION_AXIS, peak(motion[off_cut])) if value_range(motion[off_cut]) else MIN_MOTION_AXIS
    return [
        curve(
            axis,
            "frame-difference",
            "Frame difference",
            "Mean absolute change of the picture from one source frame "
            "to the next, 0 to 1. Spikes at hard cuts leave the axis.",
            times,
            motion,
            "",
            3,
            low=0.0,
            high=top,
            facts=[f"median {number(float(np.nanmedian(motion)), 2)}"] if value_range(motion) else [],
            color="c-picture",
        ),
        curve(
            axis,
            "brightness",
            "Brightness",
            "Mean luma of every source frame, 0 is black and 1 is white.",
            times,
            dense["luma_mean"],
            "",
            2,
            low=0.0,
            high=1.0,
            facts=[f"mean {number(float(np.nanmean(dense['luma_mean'])), 2)}"],
            color="c-picture",
        ),
    ]


def _image_change(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Image change", "1 − cosine of the image embeddings of neighbouring sampled frames."
    state = component_state(view, "core_clip")
    if state is not None:
        return [Track("image-change", title, about, state=state)]
    arrays = view.arrays("core_clip")
    change = 1.0 - arrays["consecutive_cosine_prev"].astype(np.float64)
    gap = view.feature("core_clip", "pair_dt_median_s")
    facts = [f"sampled every {fixed(gap, 2, 's')}"] if np.isfinite(gap) else []
    top = max(0.1, peak(change)) if value_range(change) else 0.1
    return [
        curve(
            axis,
            "image-change",
            title,
            about,
            arrays["times_s"],
            change,
            "",
            3,
            low=0.0,
            high=top,
            facts=facts,
            color="c-content",
        )
    ]


def _faces(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Faces", "Number of faces in each sampled frame."
    state = component_state(view, "core_face_landmarks")
    if state is not None:
        return [Track("faces", title, about, state=state)]
    arrays = view.arrays("core_face_landmarks")
    count = arrays["face_count"].astype(np.float64)
    top = max(1, int(count.max(initial=0)))
    ticks = sorted({0, top // 2, top} if top > 3 else range(top + 1))
    chart = axis.chart(0.0, top * 1.08, ticks)
    chart.steps(sample_edges(arrays["times_s"], axis.duration), count, "curve main c-content", "area c-content")
    share = float((count > 0).mean()) if len(count) else float("nan")
    facts = [f"in {percent(share)} of frames", f"at most {top}" if count.any() else "none"]
    return [
        Track(
            "faces",
            title,
            about,
            facts,
            chart.render(f"Faces {facts[0]}, {facts[1]} at once"),
            "s",
            axis_labels([float(t) for t in ticks], 0.0, top * 1.08),
            decimals=0,
        )
    ]


def class_counts(arrays: Arrays) -> dict[str, np.ndarray]:
    """Objects per sampled frame `[N]` for each class that occurs, the class seen in most frames first."""
    names, ids = arrays["class_names"].tolist(), arrays["class_ids"]
    splits = arrays["det_row_splits"]
    frames = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
    counts = {names[k]: np.bincount(frames[ids == k], minlength=len(splits) - 1) for k in np.unique(ids).tolist()}
    presence = Counter({name: int((count > 0).sum()) for name, count in counts.items()})
    return {name: counts[name] for name, _ in sorted(presence.items(), key=lambda item: (-item[1], item[0]))}


def _objects(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Objects", "The classes seen in most sampled frames; darker means more of them at once."
    state = component_state(view, "core_object_detections")
    if state is not None:
        return [Track("objects", title, about, state=state)]
    arrays = view.arrays("core_object_detections")
    counts = class_counts(arrays)
    edges = sample_edges(arrays["times_s"], axis.duration)
    lanes = []
    for name, count in list(counts.items())[:TOP_CLASSES]:
        share = float((count > 0).mean())
        chart = axis.chart()
        for level in (1, 2, 3):
            chart.blocks(edges, count == level if level < 3 else count >= level, f"heat heat-{level}")
        label = f"{name}: in {percent(share)} of frames, at most {count.max()} at once"
        lanes.append(Lane(name, percent(share), chart.render(label, "lane")))
    facts = [plural(len(counts), "class", "classes")]
    if len(counts) > TOP_CLASSES:
        facts.append(f"top {TOP_CLASSES} shown")
    legend = [Legend("heat-1", "1"), Legend("heat-2", "2"), Legend("heat-3", "3 or more")]
    return [Track("objects", title, about, facts, lanes=lanes, legend=legend)]


def _loudness(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Loudness", "Loudness of 2 s windows (BS.1770, ungated), in LUFS."
    state = component_state(view, "loudness_extractor")
    if state is not None:
        return [Track("loudness", title, about, state=state)]
    arrays = view.arrays("loudness_extractor")
    lufs = np.where(arrays["segment_mask"], arrays["segment_lufs"], np.nan).astype(np.float64)
    integrated = view.feature("loudness_extractor", "lufs_integrated")
    true_peak = view.feature("loudness_extractor", "true_peak_dbtp")
    found = value_range(lufs, np.array([integrated]))
    facts = [f"integrated {fixed(integrated, 1, 'LUFS')}", f"true peak {fixed(true_peak, 1, 'dBTP')}"]
    if found is None:
        return [Track("loudness", title, about, facts, state=State("none", "Every window is below −70 LUFS."))]
    bottom, top, ticks = nice_range(found[0], found[1], 2)
    chart = axis.chart(bottom, top, ticks)
    chart.line(arrays["segment_center_sec"], lufs, "curve main c-audio", "area c-audio")
    legend = [Legend("key-line c-audio", "2 s windows")]
    if np.isfinite(integrated):
        chart.level(integrated, "level")
        legend.append(Legend("key-line level", "integrated"))
    return [
        Track(
            "loudness",
            title,
            about,
            facts,
            chart.render(f"Loudness, {facts[0]}", unit="LUFS"),
            "m",
            axis_labels(ticks, bottom, top),
            legend=legend,
            decimals=1,
        )
    ]


def has_steady_tempo(tempo: ComponentView) -> bool:
    """Whether the artifact's own evidence supports one number: enough windows with a beat, and these agree."""
    disagree = "windows_disagree" in tempo.arrays["tempo_warnings"].tolist()
    return tempo.feature("tempo_valid_ratio") >= MIN_TEMPO_WINDOWS and not disagree


def _tempo(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Tempo", "Beats per minute of each window; only windows with enough evidence have a tempo."
    state = component_state(view, "tempo_extractor")
    arrays = view.arrays("tempo_extractor")
    tracks = []
    bpm = arrays["bpm_by_segment"].astype(np.float64) if "bpm_by_segment" in arrays else np.empty(0)
    found = value_range(bpm)
    if state is not None or found is None:
        tracks.append(Track("tempo", title, about, state=state or State("none", "No window has a tempo.")))
    else:
        bottom, top, ticks = nice_range(found[0] - 5, found[1] + 5, 2)
        chart = axis.chart(bottom, top, ticks)
        chart.line(arrays["segment_center_sec"], bpm, "curve main c-audio")
        if len(bpm) <= 150:  # beyond that the dots run together
            chart.dots(arrays["segment_center_sec"], bpm, "dot c-audio")
        tempo = view.feature("tempo_extractor", "tempo_bpm")
        valid = view.feature("tempo_extractor", "tempo_valid_ratio")
        steady = has_steady_tempo(view.components["tempo_extractor"])
        median = f"median {fixed(tempo, 1, 'BPM')}" if steady else NO_STEADY_TEMPO.lower()
        facts = [median, f"{percent(valid)} of windows valid"]
        tracks.append(
            Track(
                "tempo",
                title,
                about,
                facts,
                chart.render(f"Tempo, {facts[0]}", unit="BPM"),
                "m",
                axis_labels(ticks, bottom, top),
                decimals=1,
            )
        )
    clarity = arrays.get("pulse_clarity_by_segment")
    if clarity is not None and value_range(clarity):
        tracks.append(
            curve(
                axis,
                "tempo-evidence",
                "Tempo evidence",
                "Pulse clarity of each window: 1 is a perfectly periodic beat, noise and speech stay near 0.",
                arrays["segment_center_sec"],
                clarity,
                "",
                2,
                low=min(0.0, float(np.nanmin(clarity))),
                high=1.0,
                facts=[f"max {number(peak(clarity), 2)}"],
                color="c-audio",
            )
        )
    return tracks
