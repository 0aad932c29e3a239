"""Motion of the picture and its technical quality."""

from __future__ import annotations

import numpy as np

from trendflow.presentation.formatting import number, percent
from trendflow.presentation.framed import LegendItem
from trendflow.presentation.measures import (
    BLURRED_SHARPNESS,
    CAMERA_SHAKE,
    MIN_DIFFERENCE_AXIS,
    MIN_MOTION_AXIS,
    NOISE_AXIS,
    SHARPNESS_AXIS,
    camera_moves,
    camera_scale,
    on_reliable_pairs,
    quality,
)
from trendflow.presentation.run_view import SEGMENTER, Arrays, ComponentView, RunView
from trendflow.presentation.series import covering, nice_range, sample_edges, value_range
from trendflow.presentation.timeline import (
    Axis,
    Lane,
    State,
    Track,
    axis_labels,
    component_state,
    curve,
    peak,
    rate_axis,
)


def frame_difference(view: RunView, axis: Axis) -> list[Track]:
    dense = view.dense
    if "pts_sec" not in dense:
        state = component_state(view, SEGMENTER) or State("none", "This run has no dense signals.")
        return [Track("frame-difference", "Frame difference", "", state=state)]
    times, motion = dense["pts_sec"], dense["lowres_mad"]
    # The spike of a cut is many times any motion; the axis ends where motion does and spikes leave it.
    off_cut = np.ones(len(times), bool)
    for cut in axis.cuts:
        off_cut[max(0, int(np.searchsorted(times, cut)) - 1) : int(np.searchsorted(times, cut)) + 2] = False
    top = max(MIN_DIFFERENCE_AXIS, peak(motion[off_cut])) if value_range(motion[off_cut]) else MIN_DIFFERENCE_AXIS
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
    ]


def brightness(view: RunView, axis: Axis) -> list[Track]:
    """Mean luma of every source frame; nothing without dense signals, which `frame_difference` already says."""
    if "pts_sec" not in view.dense:
        return []
    luma = view.dense["luma_mean"]
    return [
        curve(
            axis,
            "brightness",
            "Brightness",
            "Mean luma of every source frame, 0 is black and 1 is white.",
            view.dense["pts_sec"],
            luma,
            "",
            2,
            low=0.0,
            high=1.0,
            facts=[f"mean {number(float(np.nanmean(luma)), 2)}"],
            color="c-picture",
        )
    ]


def motion(view: RunView, axis: Axis) -> list[Track]:
    """The motion curve and, as lanes on one scale, what of it is the camera."""
    state = component_state(view, "core_optical_flow")
    title, about = "Motion", "Mean speed of the picture between sampled frames that match, in frame lengths per second."
    if state is not None:
        return [Track("motion", title, about, state=state)]
    flow = view.arrays("core_optical_flow")
    speed = on_reliable_pairs(flow, "motion_norm_per_sec_mean")
    track = curve(
        axis,
        "motion",
        title,
        about,
        flow["times_s"],
        speed,
        "per s",
        3,
        low=0.0,
        high=rate_axis(speed, MIN_MOTION_AXIS),
        facts=_motion_facts(view.components.get("optical_flow")),
    )
    return [track, _camera(flow, axis)] if track.state is None else [track]


def _motion_facts(summary: ComponentView | None) -> list[str]:
    if summary is None or summary.status != "ok":
        return []
    return [
        f"median {number(summary.feature('motion_curve_median'), 2)} per s",
        f"still in {percent(summary.feature('static_ratio'))} of pairs",
    ]


def _camera(flow: Arrays, axis: Axis) -> Track:
    moves = camera_moves(flow)
    scale = camera_scale(moves)
    lanes = []
    for title, values in moves.items():
        chart = axis.chart(0.0 if title == CAMERA_SHAKE else -scale, scale, (0.0,))
        chart.line(flow["times_s"], values, "curve c-picture")
        strongest = peak(np.abs(values))
        detail = f"at most {number(strongest, 2)} per s" if np.isfinite(strongest) else "not measured"
        lanes.append(Lane(title, detail, chart.render(f"{title}: {detail}", "lane lane-curve")))
    return Track(
        "camera",
        "Camera moves",
        "What most of the picture does at once. Upwards is right, up, growing and clockwise; all lanes share one "
        "scale: frame lengths, growth or radians per second.",
        [f"lanes reach ±{number(scale, 2)} per s"],
        lanes=lanes,
    )


def shot_quality(view: RunView, axis: Axis) -> list[Track]:
    """Sharpness, exposure and noise: frames as a faint curve, the mean of each shot as steps."""
    state = component_state(view, "shot_quality")
    if state is not None:
        return [Track("quality", "Quality", "Sharpness, exposure and noise of each shot.", state=state)]
    arrays = view.arrays("shot_quality")
    value = view.components["shot_quality"].feature
    return [
        _measure(
            arrays,
            axis,
            "sharpness_tenengrad_log",
            "Sharpness",
            "log10 of the mean squared luma gradient; steps are means of shots.",
            [f"blurred: {percent(value('blurry_shot_ratio'))} of shots"],
            SHARPNESS_AXIS,
            level=BLURRED_SHARPNESS,
        ),
        _exposure(arrays, axis),
        _measure(
            arrays,
            axis,
            "noise_sigma",
            "Noise",
            "Standard deviation of fine grain in grey levels of 255; steps are means of shots.",
            [f"mean {number(value('noise_sigma_mean'), 2)} of 255"],
            NOISE_AXIS,
        ),
    ]


def _measure(
    arrays: Arrays,
    axis: Axis,
    name: str,
    title: str,
    about: str,
    facts: list[str],
    span: tuple[float, float],
    level: float | None = None,
) -> Track:
    """One quality measure; `span` is the least its value axis covers, `level` a limit in it."""
    frames, shots = quality(arrays, name)
    shown = covering(frames, span)
    if shown is None:
        return Track(name, title, about, facts, state=State("none", "No value was measured."))
    bottom, top, ticks = nice_range(*shown, 2)
    chart = axis.chart(bottom, top, ticks)
    chart.line(arrays["times_s"], frames, "curve faint c-picture")
    chart.steps(sample_edges(arrays["times_s"], axis.duration), shots, "curve main c-picture")
    legend = [LegendItem("key-line c-picture", "mean of the shot"), LegendItem("key-line faint c-picture", "frame")]
    if level is not None:
        chart.level(level, "level")
        legend.append(LegendItem("key-line level", f"blurred below {number(level)}"))
    labels = axis_labels([ticks[0], ticks[-1]], bottom, top)
    return Track(name, title, about, facts, chart.render(title), "s", labels, legend=legend, decimals=2)


def _exposure(arrays: Arrays, axis: Axis) -> Track:
    lanes = []
    for name, title in (("underexposure_ratio", "Too dark"), ("overexposure_ratio", "Too bright")):
        frames, _ = quality(arrays, name)
        chart = axis.chart(0.0, 1.0)
        chart.line(arrays["times_s"], frames, "curve c-picture", "area c-picture")
        detail = f"at most {percent(peak(frames))} of the picture"
        lanes.append(Lane(title, detail, chart.render(f"{title}: {detail}", "lane lane-curve")))
    return Track(
        "exposure",
        "Exposure",
        "Share of pixels at the dark and at the bright end of the scale, where detail is lost.",
        ["lanes reach 100\u202f%"],
        lanes=lanes,
    )
