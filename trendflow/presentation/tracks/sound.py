"""Loudness, tempo and how the sound changes."""

from __future__ import annotations

import numpy as np

from trendflow.presentation.formatting import fixed, number, percent
from trendflow.presentation.framed import LegendItem
from trendflow.presentation.measures import MIN_CHANGE_AXIS, sound_change
from trendflow.presentation.run_view import ComponentView, RunView
from trendflow.presentation.series import nice_range, value_range
from trendflow.presentation.timeline import (
    Axis,
    State,
    Track,
    axis_labels,
    component_state,
    curve,
    peak,
    rate_axis,
)

# White noise may pass the evidence gate in almost a fifth of its windows; fewer than that speak for no tempo.
MIN_TEMPO_WINDOWS = 0.2
NO_STEADY_TEMPO = "No steady tempo"


def loudness(view: RunView, axis: Axis) -> list[Track]:
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
    legend = [LegendItem("key-line c-audio", "2 s windows")]
    if np.isfinite(integrated):
        chart.level(integrated, "level")
        legend.append(LegendItem("key-line level", "integrated"))
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


def tempo(view: RunView, axis: Axis) -> list[Track]:
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
        bpm_median = view.feature("tempo_extractor", "tempo_bpm")
        valid = view.feature("tempo_extractor", "tempo_valid_ratio")
        steady = has_steady_tempo(view.components["tempo_extractor"])
        median = f"median {fixed(bpm_median, 1, 'BPM')}" if steady else NO_STEADY_TEMPO.lower()
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


def change(view: RunView, axis: Axis) -> list[Track]:
    """How far the sound of each window is from the one before."""
    title, about = "Sound change", "Cosine distance of the sound embedding of each window to the window before."
    state = component_state(view, "clap_extractor")
    if state is not None:
        return [Track("sound-change", title, about, state=state)]
    arrays = view.arrays("clap_extractor")
    distance = sound_change(arrays)
    mean = view.feature("clap_extractor", "embedding_change_mean")
    return [
        curve(
            axis,
            "sound-change",
            title,
            about,
            arrays["segment_center_sec"],
            distance,
            "",
            3,
            low=0.0,
            high=rate_axis(distance, MIN_CHANGE_AXIS),
            facts=[f"mean {number(mean, 2)}"],
            color="c-audio",
        )
    ]
