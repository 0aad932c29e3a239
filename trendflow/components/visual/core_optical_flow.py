"""Dense flow between successive primary-group frames, reduced to motion statistics per pair.

Row i describes the pair (i−1, i). Rates are per second and lengths are fractions of the longer side of the frame, so
neither the sampling gap nor the analysis size enters a value. A pair is reliable when the flow forward and the flow
back agree; a cut, or a gap too long for the motion in it, fails that test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples
from trendflow.components.visual import _summary
from trendflow.components.visual._camera_motion import CameraFit, CameraMotion, camera_shake
from trendflow.components.visual._dense_flow import FlowModel, PixelScale, PreparedFrames
from trendflow.components.visual._flow_statistics import FLOW, FlowStatistics, flow_statistics, magnitude_map
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.models.interface import ModelHandle

SPEC = ComponentSpec(
    name="core_optical_flow",
    producer_version="1.0.0",
    schema_version="core_optical_flow_npz_v4",
    hard=("segmenter",),
    reads=("frames",),
    roles=("optical_flow",),
    reference=THRESHOLDS.reference,
)

PREVIEWS = 10
PREVIEW_SIDE = 64


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays `[N]` per frame pair, row 0 NaN, with the frames' indices and times, and up to ten magnitude maps.

    `empty` with `too_few_frames` for fewer than two frames. Raises `model_spec_invalid` (the entry describes no flow
    model) or `artifact_validation_failed` (times that do not increase, vectors that are not finite).
    """
    samples, model, timer = inputs.need_samples(), need_model(inputs, "optical_flow"), StageTimer()
    times_s = samples.times_s.astype(np.float64)
    dt_s = _gaps(times_s)
    shown = _preview_rows(len(samples))
    pairs = _measure(inputs, samples, model, timer, frozenset(shown.tolist()))
    arrays = _arrays(pairs, dt_s)
    enough = len(samples) >= 2
    features = {
        "reliable_pair_ratio": _summary.mean(arrays["pair_reliable_mask"][1:]),
        "pair_dt_median_s": _summary.median(dt_s),
    }
    return Artifact(
        arrays={
            "frame_indices": samples.frame_indices.astype(np.int32),
            "times_s": times_s,
            **arrays,
            "preview_pair_pos": shown,
            "preview_flow_mag_map_norm": _previews(pairs, shown, dt_s),
            **feature_arrays(features),
        },
        status="ok" if enough else "empty",
        empty_reason=None if enough else "too_few_frames",
        models_used=(model.used,),
        device_used=model.device_used,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "preview_k": len(shown),
            "preview_map_size": PREVIEW_SIDE,
        },
        stage_timings_ms=timer.timings_ms(),
    )


@dataclass(frozen=True)
class _Pair:
    """One frame pair, not yet divided by time."""

    flow: FlowStatistics
    camera: CameraMotion
    preview: np.ndarray | None  # float32 [64, 64], frame lengths


def _gaps(times_s: np.ndarray) -> np.ndarray:
    """Seconds since the previous sample, float64 `[N]`, row 0 NaN. Raises `artifact_validation_failed` unless > 0."""
    gaps = np.diff(times_s, prepend=np.nan)
    if not (gaps[1:] > 0).all():
        raise TrendFlowError("artifact_validation_failed", "The times of the sampled frames do not increase.")
    return gaps


def _preview_rows(count: int) -> np.ndarray:
    """Rows whose magnitude map is kept: up to ten, evenly spread over the pairs. int32 `[K]`, increasing."""
    return np.rint(np.linspace(1, count - 1, min(PREVIEWS, count - 1))).astype(np.int32)


def _measure(
    inputs: ComponentInputs, samples: FrameSamples, model: ModelHandle, timer: StageTimer, shown: frozenset[int]
) -> list[_Pair]:
    """Every pair of successive samples, in order."""
    if len(samples) < 2:
        return []
    step = _PairStep(samples, FlowModel(model, timer), timer, shown)

    def work(start: int, stop: int) -> list[_Pair]:
        pairs = step(start, stop)
        inputs.progress(stop + 1, len(samples))
        return pairs

    batches = inputs.runner.run(len(samples) - 1, work, step.max_pairs)
    return [pair for batch in batches for pair in batch]


class _PairStep:
    """Measures pairs start…stop, where pair k is the samples k and k+1.

    The last frame of a batch is the first of the next one and is kept, so each frame is read and prepared once.
    """

    def __init__(self, samples: FrameSamples, flow: FlowModel, timer: StageTimer, shown: frozenset[int]) -> None:
        self._samples, self._flow, self._timer, self._shown = samples, flow, timer, shown
        self._kept: tuple[int, PreparedFrames] | None = None
        self._camera: CameraFit | None = None

    @property
    def max_pairs(self) -> int:
        return self._flow.max_pairs

    def __call__(self, start: int, stop: int) -> list[_Pair]:
        frames = self._frames(start, stop + 1)
        forward, backward = self._flow.both_ways(frames)
        with self._timer.stage("statistics"):
            pairs = self._statistics(start, forward, backward, PixelScale.of(frames))
        # Only now: a batch that ran out of memory is repeated from its first frame.
        self._kept = stop, frames.rows(len(frames) - 1, len(frames))
        return pairs

    def _frames(self, start: int, stop: int) -> PreparedFrames:
        kept = self._kept[1] if self._kept is not None and self._kept[0] == start else None
        with self._timer.stage("read"):
            frames = self._samples.read(start if kept is None else start + 1, stop)
        prepared = self._flow.prepare(frames)
        return prepared if kept is None else kept.then(prepared)

    def _statistics(self, start: int, forward: np.ndarray, backward: np.ndarray, scale: PixelScale) -> list[_Pair]:
        if self._camera is None:
            self._camera = CameraFit(forward.shape[2], forward.shape[1])
        return [
            _Pair(
                flow_statistics(there, back, scale),
                self._camera(there, scale),
                magnitude_map(there, scale, PREVIEW_SIDE) if row in self._shown else None,
            )
            for row, (there, back) in enumerate(zip(forward, backward, strict=True), start=start + 1)
        ]


def _arrays(pairs: Sequence[_Pair], dt_s: np.ndarray) -> dict[str, np.ndarray]:
    """Per-pair arrays `[N]` from N−1 pairs; row 0 is NaN and its masks are false."""
    flow = _columns(FlowStatistics, [pair.flow for pair in pairs])
    camera = _columns(CameraMotion, [pair.camera for pair in pairs])
    valid = np.isfinite(flow["consistency"])
    reliable = valid & (np.nan_to_num(flow["consistency"]) >= FLOW.reliable_consistency)
    translation = np.stack([camera["tx"], camera["ty"]], axis=1) / dt_s[:, None]
    values = {
        "dt_seconds": dt_s,
        "flow_consistency": flow["consistency"],
        "motion_norm_per_sec_mean": flow["magnitude_mean"] / dt_s,
        "flow_mag_std_per_sec_norm": flow["magnitude_std"] / dt_s,
        "flow_mag_p95_per_sec_norm": flow["magnitude_p95"] / dt_s,
        "flow_dx_mean_per_sec_norm": flow["dx_mean"] / dt_s,
        "flow_dy_mean_per_sec_norm": flow["dy_mean"] / dt_s,
        "flow_dir_sin_mean": flow["dir_sin"],
        "flow_dir_cos_mean": flow["dir_cos"],
        "flow_dir_dispersion": flow["dir_dispersion"],
        "flow_div_abs_mean": flow["divergence_abs_mean"] / dt_s,
        "cam_affine_scale": camera["scale"],
        "cam_affine_rotation": camera["rotation"],
        "cam_zoom_rate_per_sec": np.log(camera["scale"]) / dt_s,
        "cam_rotation_per_sec": camera["rotation"] / dt_s,
        "cam_tx_per_sec_norm": translation[:, 0],
        "cam_ty_per_sec_norm": translation[:, 1],
        "bg_ratio": camera["inlier_share"],
        # The garbage vectors of a cut must not enter the neighbourhood of the pairs around it.
        "cam_shake_std_norm": camera_shake(np.where(reliable[:, None], translation, np.nan)),
    }
    masks = {"pair_valid_mask": valid, "pair_reliable_mask": reliable}
    return {name: value.astype(np.float32) for name, value in values.items()} | masks


def _columns(kind: type, rows: Sequence[FlowStatistics] | Sequence[CameraMotion]) -> dict[str, np.ndarray]:
    """Fields of N−1 rows as float64 columns `[N]` that begin with NaN."""
    names = [field.name for field in fields(kind)]
    table = np.array([[float("nan")] * len(names), *(astuple(row) for row in rows)], dtype=np.float64)
    return dict(zip(names, table.T, strict=True))


def _previews(pairs: Sequence[_Pair], shown: np.ndarray, dt_s: np.ndarray) -> np.ndarray:
    """Magnitude maps in frame lengths per second, float16 `[K, 64, 64]`."""
    maps = [pair.preview for pair in pairs if pair.preview is not None]
    stacked = np.stack(maps) if maps else np.zeros((0, PREVIEW_SIDE, PREVIEW_SIDE), dtype=np.float32)
    return (stacked / dt_s[shown][:, None, None]).astype(np.float16)
