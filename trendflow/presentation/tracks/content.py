"""What the video shows and how it develops: energy, repetition, image change, faces and objects."""

from __future__ import annotations

import numpy as np

from trendflow.presentation.formatting import clock, difference, fixed, number, percent, plural
from trendflow.presentation.framed import LegendItem
from trendflow.presentation.measures import MIN_CHANGE_AXIS, REPETITION_COSINE, TOP_CLASSES, class_counts, opening_s
from trendflow.presentation.run_view import RunView
from trendflow.presentation.series import nice_range, sample_edges, value_range
from trendflow.presentation.timeline import (
    Axis,
    Lane,
    State,
    Track,
    axis_labels,
    component_state,
    curve,
    rate_axis,
)


def story(view: RunView, axis: Axis) -> list[Track]:
    """The energy curve with its opening and its peaks."""
    title, about = "Energy", "Change of content and motion together, smoothed over a second; 0 is a still picture."
    state = component_state(view, "story_structure")
    if state is not None:
        return [Track("energy", title, about, state=state)]
    arrays = view.arrays("story_structure")
    value = view.components["story_structure"].feature
    energy = arrays["story_energy_curve"].astype(np.float64)
    found = value_range(energy)
    if found is None:
        return [Track("energy", title, about, state=State("none", "No value was measured."))]
    bottom, top, ticks = nice_range(0.0, max(1.0, found[1]), 2)
    chart = axis.chart(bottom, top, ticks)
    opening = opening_s(axis.duration)
    chart.band(0.0, opening, "opening", f"Opening: first {fixed(opening, 1, 's')}")
    chart.line(arrays["times_s"], energy, "curve main c-content", "area c-content")
    chart.dots(arrays["story_energy_peaks_times_s"], arrays["story_energy_peaks_values"], "dot c-cut")
    climax = value("climax_time_frac") * axis.duration
    facts = [f"climax at {clock(climax)}", f"opening {difference(value('hook_energy_diff'))} against the rest"]
    legend = [LegendItem("opening", f"opening, {fixed(opening, 1, 's')}")]
    if len(arrays["story_energy_peaks_times_s"]):
        legend.append(LegendItem("key-dot c-cut", plural(len(arrays["story_energy_peaks_times_s"]), "peak")))
    svg = chart.render(f"Energy, {facts[0]}, {facts[1]}")
    labels = axis_labels(ticks, bottom, top)
    return [Track("energy", title, about, facts, svg, "m", labels, legend=legend, decimals=2)]


def repetition(view: RunView, axis: Axis) -> list[Track]:
    """How much each moment looks like another one."""
    title = "Repetition"
    about = "Highest cosine of each sample with any sample at least 2 s away; 1 is the same picture again."
    state = component_state(view, "uniqueness")
    if state is not None:
        return [Track("repetition", title, about, state=state)]
    arrays = view.arrays("uniqueness")
    similar = arrays["max_sim_to_other"].astype(np.float64)
    found = value_range(similar)
    if found is None:
        return [Track("repetition", title, about, state=State("none", "No value was measured."))]
    bottom, top, ticks = nice_range(min(found[0], REPETITION_COSINE - 0.05), 1.0, 2)
    chart = axis.chart(bottom, top, ticks)
    chart.line(arrays["times_s"], similar, "curve main c-content", "area c-content")
    chart.level(REPETITION_COSINE, "level")
    facts = [f"repeated: {percent(view.feature('uniqueness', 'repetition_ratio'))} of samples"]
    legend = [LegendItem("key-line level", f"repetition from {number(REPETITION_COSINE)}")]
    svg, labels = chart.render(f"Repetition, {facts[0]}"), axis_labels(ticks, bottom, top)
    return [Track("repetition", title, about, facts, svg, "m", labels, legend=legend, decimals=2)]


def image_change(view: RunView, axis: Axis) -> list[Track]:
    title, about = "Image change", "1 − cosine of the image embeddings of neighbouring sampled frames."
    state = component_state(view, "core_clip")
    if state is not None:
        return [Track("image-change", title, about, state=state)]
    arrays = view.arrays("core_clip")
    change = 1.0 - arrays["consecutive_cosine_prev"].astype(np.float64)
    gap = view.feature("core_clip", "pair_dt_median_s")
    facts = [f"sampled every {fixed(gap, 2, 's')}"] if np.isfinite(gap) else []
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
            high=rate_axis(change, MIN_CHANGE_AXIS),
            facts=facts,
            color="c-content",
        )
    ]


def faces(view: RunView, axis: Axis) -> list[Track]:
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


def objects(view: RunView, axis: Axis) -> list[Track]:
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
    legend = [LegendItem("heat-1", "1"), LegendItem("heat-2", "2"), LegendItem("heat-3", "3 or more")]
    return [Track("objects", title, about, facts, lanes=lanes, legend=legend)]
