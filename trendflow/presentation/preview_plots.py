"""How each preview is drawn. Plots use matplotlib's objects directly, never its global state."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from trendflow.presentation.contact_sheet import Mark, contact_sheet
from trendflow.presentation.formatting import clock, fixed
from trendflow.presentation.previews import Preview
from trendflow.presentation.run_view import Arrays, features_of
from trendflow.presentation.series import sample_edges, spread, thin, time_ticks, value_range
from trendflow.presentation.thumbnails import FrameReader
from trendflow.presentation.timeline import EVENT_TITLES, EVENT_TYPES, HARD_CUT
from trendflow.presentation.tracks import TOP_CLASSES, class_counts

FRAMES = 10
MAX_BOXES = 8
# Hues that stay apart for colour-blind readers (after Okabe and Ito), dark enough for white paper.
_PICTURE, _CONTENT, _AUDIO, _CUT = "#0068ab", "#7b3fa0", "#007a5c", "#c44e00"
_OBJECT_BOX, _FACE_BOX = "#56b4e9", "#f0c23c"
_TEXT, _GRID = "#444c5a", "#e4e7ec"


class _Plot:
    """A wide, low figure over the time axis of a video, 0 to `end` seconds."""

    def __init__(self, end: float, rows: int = 1, height: float = 1.9) -> None:
        self.figure = Figure(figsize=(9.0, height), dpi=100, layout="constrained")
        FigureCanvasAgg(self.figure)
        grid = self.figure.subplots(rows, 1, sharex=True, squeeze=False)
        self.axes = [grid[row, 0] for row in range(rows)]
        for axes in self.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(_GRID)
            axes.tick_params(colors=_TEXT, labelsize=8, length=0)
            axes.grid(color=_GRID, linewidth=0.7)
            axes.set_axisbelow(True)
        end = max(end, 1.0)
        self.axes[-1].set_xlim(0, end)
        self.axes[-1].set_xticks(time_ticks(end))
        self.axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))

    def curve(self, row: int, times: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
        x, y = thin(np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64))
        self.axes[row].plot(x, y, color=color, linewidth=1.1, marker="." if len(x) < 60 else None, markersize=4)
        self.axes[row].set_ylabel(label, color=_TEXT, fontsize=8)

    def finish(self, name: str) -> Preview:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", facecolor="white")
        return Preview(name, "image/png", buffer.getvalue())


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
    plot = _Plot(_last(arrays["pts_sec"]), rows=2, height=2.8)
    plot.curve(0, arrays["pts_sec"], arrays["lowres_mad"], _PICTURE, "frame difference")
    plot.curve(1, arrays["pts_sec"], arrays["luma_mean"], _PICTURE, "brightness")
    return [plot.finish("frame_signals")]


def _cuts(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    starts, ends = arrays["shot_start_time_s"], arrays["shot_end_time_s"]
    plot = _Plot(_last(ends))
    axes = plot.axes[0]
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axes.axvspan(start, end, color="#d9e3ef" if k % 2 else "#f0f4f9", linewidth=0)
    # The artifact has no time per source frame; between the borders of a shot frames are spaced evenly enough here.
    anchors = np.concatenate([arrays["shot_start_source_frame"], arrays["shot_end_source_frame"][-1:]])
    times = np.interp(np.arange(len(arrays["cut_score"])), anchors, np.concatenate([starts, ends[-1:]]))
    plot.curve(0, times, arrays["cut_score"], _CUT, "cut score")
    axes.set_ylim(0, 1)
    for kind in sorted(set(arrays["event_type_id"].tolist())):
        at = arrays["event_time_s"][arrays["event_type_id"] == kind]
        style = {"color": _CUT, "marker": "v"} if kind == HARD_CUT else {"color": _CONTENT, "marker": "D"}
        axes.plot(at, np.full(len(at), 0.97), linestyle="", markersize=5, label=EVENT_TITLES[kind], **style)
    if len(arrays["event_type_id"]):
        axes.legend(loc="upper right", fontsize=7, frameon=False, ncols=len(EVENT_TYPES))
    return [plot.finish("cut_time_line")]


def _image_change(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    plot = _Plot(_last(arrays["times_s"]))
    plot.curve(0, arrays["times_s"], 1.0 - arrays["consecutive_cosine_prev"], _CONTENT, "1 − cosine to previous")
    return [plot.finish("image_change")]


def _faces(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times, count = arrays["times_s"], arrays["face_count"]
    plot = _Plot(_last(times), height=1.6)
    plot.axes[0].stairs(count, sample_edges(times, _last(times)), fill=True, color=_CONTENT, alpha=0.75)
    plot.axes[0].set_ylabel("faces", color=_TEXT, fontsize=8)
    plot.axes[0].yaxis.get_major_locator().set_params(integer=True)
    splits, boxes = arrays["face_row_splits"], arrays["face_boxes_norm"]

    def marks(k: int) -> list[Mark]:
        return [Mark(boxes[row], "", _FACE_BOX) for row in range(splits[k], splits[k + 1])]

    return [plot.finish("faces_over_time"), *_sheet("faces", frames, arrays["frame_indices"], times, marks)]


def _objects(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    times = arrays["times_s"]
    counts = dict(list(class_counts(arrays).items())[:TOP_CLASSES])
    plot = _Plot(_last(times), height=0.9 + 0.22 * len(counts))
    axes = plot.axes[0]
    axes.grid(False)
    axes.pcolormesh(
        sample_edges(times, _last(times)),
        np.arange(len(counts) + 1),
        np.stack(list(counts.values())),
        cmap="Purples",
        vmin=0,
        vmax=3,
    )
    axes.set_yticks(np.arange(len(counts)) + 0.5, list(counts))
    axes.invert_yaxis()
    splits, names = arrays["det_row_splits"], arrays["class_names"]

    def marks(k: int) -> list[Mark]:
        rows = sorted(range(splits[k], splits[k + 1]), key=lambda row: -arrays["scores"][row])[:MAX_BOXES]
        return [Mark(arrays["boxes_norm"][row], str(names[arrays["class_ids"][row]]), _OBJECT_BOX) for row in rows]

    return [plot.finish("objects_over_time"), *_sheet("objects", frames, arrays["frame_indices"], times, marks)]


def _loudness(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    lufs = np.where(arrays["segment_mask"], arrays["segment_lufs"], np.nan)
    if value_range(lufs) is None:
        return []
    plot = _Plot(_last(arrays["segment_center_sec"]))
    plot.curve(0, arrays["segment_center_sec"], lufs, _AUDIO, "LUFS (2 s windows)")
    integrated = features_of(arrays)["lufs_integrated"]
    if math.isfinite(integrated):
        label = f"integrated {fixed(integrated, 1, 'LUFS')}"
        plot.axes[0].axhline(integrated, color=_TEXT, linewidth=1, linestyle="--", label=label)
        plot.axes[0].legend(loc="lower right", fontsize=7, frameon=False)
    return [plot.finish("loudness")]


def _tempo(arrays: Arrays, frames: FrameReader | None) -> list[Preview]:
    bpm = arrays["bpm_by_segment"]
    plot = _Plot(_last(arrays["segment_end_sec"]), rows=2, height=2.8)
    plot.curve(0, arrays["segment_center_sec"], bpm, _AUDIO, "BPM")
    found = value_range(bpm)
    if found is not None:  # a steady beat must look steady
        plot.axes[0].set_ylim(found[0] - 5, found[1] + 5)
    plot.curve(1, arrays["segment_center_sec"], arrays["pulse_clarity_by_segment"], _AUDIO, "pulse clarity")
    return [plot.finish("tempo")]


DRAWERS: dict[str, Callable[[Arrays, FrameReader | None], list[Preview]]] = {
    "segmenter": _segmenter,
    "dense_signals": _dense,
    "cut_detection": _cuts,
    "core_clip": _image_change,
    "core_face_landmarks": _faces,
    "core_object_detections": _objects,
    "loudness_extractor": _loudness,
    "tempo_extractor": _tempo,
}
