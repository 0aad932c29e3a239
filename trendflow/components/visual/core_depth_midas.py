"""Relative inverse depth per primary-group frame: what is near, how layered the picture is, and how that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples, Param
from trendflow.components.visual import _depth_maps as maps
from trendflow.components.visual import _summary
from trendflow.components.visual._depth_model import DepthModel
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="core_depth_midas",
    producer_version="1.0.0",
    schema_version="core_depth_midas_npz_v4",
    hard=("segmenter",),
    reads=("frames",),
    roles=("depth",),
    params={"keep_maps": Param(False, "Also write the normalised map of every frame at the model's resolution.")},
    reference=THRESHOLDS.reference,
)

LOWRES_SIDE = 48
PREVIEW_SIDE = 96
MAX_PREVIEWS = 10
RAW_ROWS = ("depth_mean", "depth_std", "depth_p05", "depth_p95", "depth_range_robust")
MEASURED_ROWS = (
    "depth_complexity_score",
    "foreground_background_separation_proxy",
    "foreground_area_frac",
    "near_bottom_bias",
)


@dataclass(frozen=True)
class _FrameDepth:
    """What is kept of one frame. A flat map has NaN rows and NaN maps."""

    valid: bool
    raw: tuple[float, ...]
    measured: tuple[float, ...]
    lowres: np.ndarray  # float32 [48, 48]
    preview: np.ndarray  # float32 [96, 96]
    full: np.ndarray | None  # float16 [h, w]


def run(inputs: ComponentInputs) -> Artifact:
    """Rows `[N]` of raw statistics and normalised measures, small maps and previews.

    Raises `model_spec_invalid` (the entry is no relative depth model) or `artifact_validation_failed` (a map is not
    finite).
    """
    samples, model, timer = inputs.need_samples(), need_model(inputs, "depth"), StageTimer()
    keep_maps = bool(inputs.params.get("keep_maps", SPEC.params["keep_maps"].default))
    depth = DepthModel(model, timer)

    def work(frames: np.ndarray) -> list[_FrameDepth]:
        found = depth(frames)
        with timer.stage("measures"):
            return [_measured(one, keep_maps) for one in found]

    batches = over_frames(inputs, samples, work, model.entry.max_batch_size, timer)
    frames = [frame for batch in batches for frame in batch]
    valid = np.array([frame.valid for frame in frames])
    lowres = np.stack([frame.lowres for frame in frames])
    rows = dict(zip(RAW_ROWS, np.array([frame.raw for frame in frames]).T, strict=True))
    measured = dict(zip(MEASURED_ROWS, np.array([frame.measured for frame in frames]).T, strict=True))
    arrays = {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "depth_valid_mask": valid,
        **{name: values.astype(np.float32) for name, values in {**rows, **measured}.items()},
        "depth_maps_lowres": lowres.astype(np.float16),
        **_previews(samples, frames),
    }
    if keep_maps:
        arrays["depth_maps_norm"] = np.stack([frame.full for frame in frames if frame.full is not None])
    features: dict[str, float] = {}
    for name, values in measured.items():
        features |= {f"{name}_mean": _summary.mean(values), f"{name}_std": _summary.std(values)}
    features["flat_frame_ratio"] = _summary.mean(~valid)
    # The mean over a pair of maps is NaN when either is flat, and only finite pairs count.
    features["depth_change_mean"] = _summary.mean(np.abs(np.diff(lowres, axis=0)).mean(axis=(1, 2), dtype=np.float64))
    return Artifact(
        arrays={**arrays, **feature_arrays(features)},
        models_used=(model.used,),
        device_used=model.device_used,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "absent_features": _absent(features),
            "preview_k": min(len(samples), MAX_PREVIEWS),
            "preview_map_size": PREVIEW_SIDE,
        },
        stage_timings_ms=timer.timings_ms(),
    )


def _absent(features: Mapping[str, float]) -> dict[str, str]:
    """Why a value is NaN: a flat map measures nothing."""
    reasons = {"depth_change_mean": "no two successive frames whose depth is not flat"}
    for name in MEASURED_ROWS:
        reasons[f"{name}_mean"] = "no frame whose depth is not flat"
        reasons[f"{name}_std"] = "fewer than two frames whose depth is not flat"
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}


def _measured(depth: np.ndarray, keep_map: bool) -> _FrameDepth:
    raw = maps.RawDepth.of(depth)
    if raw.is_flat:
        return _FrameDepth(
            valid=False,
            raw=(np.nan,) * len(RAW_ROWS),
            measured=(np.nan,) * len(MEASURED_ROWS),
            lowres=np.full((LOWRES_SIDE, LOWRES_SIDE), np.nan, dtype=np.float32),
            preview=np.full((PREVIEW_SIDE, PREVIEW_SIDE), np.nan, dtype=np.float32),
            full=np.full(depth.shape, np.nan, dtype=np.float16) if keep_map else None,
        )
    d = raw.normalised(depth)
    return _FrameDepth(
        valid=True,
        raw=(raw.mean, raw.std, raw.p05, raw.p95, raw.range),
        measured=(maps.complexity(d), maps.separation(d), maps.foreground_share(d), maps.near_bottom_bias(d)),
        lowres=maps.area_average(d, LOWRES_SIDE),
        preview=maps.area_average(d, PREVIEW_SIDE),
        full=d.astype(np.float16) if keep_map else None,
    )


def _previews(samples: FrameSamples, frames: list[_FrameDepth]) -> dict[str, np.ndarray]:
    """At most ten frames, evenly spread and both ends included, for display."""
    count = min(len(samples), MAX_PREVIEWS)
    rows = np.linspace(0, len(samples) - 1, count).round().astype(int)
    return {
        "preview_frame_indices": samples.frame_indices[rows].astype(np.int32),
        "preview_times_s": samples.times_s[rows].astype(np.float64),
        "preview_depth_maps_norm": np.stack([frames[row].preview for row in rows]).astype(np.float16),
    }
