"""optical_flow: motion of a whole video, from its reliable frame pairs.

Unreliable pairs (cuts, gaps too long for the motion) are left out, not counted as still or fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, Upstream
from trendflow.components.visual import _summary
from trendflow.components.visual._own_rows import OwnFrames, assigned_frames, need_upstream
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="optical_flow",
    producer_version="1.0.0",
    schema_version="optical_flow_npz_v4",
    hard=("segmenter", "core_optical_flow"),
    reference=THRESHOLDS.reference,
)


@dataclass(frozen=True)
class MotionConstants:
    """Mean motion of a pair in frame lengths per second."""

    high_motion: float
    static_motion: float


MOTION = THRESHOLDS.bind("optical_flow", MotionConstants)


def run(inputs: ComponentInputs) -> Artifact:
    """Scalars over reliable pairs. `empty` with `upstream_empty` when the flow has no pair.

    Without a reliable pair every scalar is NaN but `missing_frame_ratio`, which is 1. Raises `dependency_missing`
    without flow or assigned frames, `artifact_validation_failed` when the flow was measured on other frames.
    """
    frames = assigned_frames(inputs, SPEC.name)
    flow = need_upstream(inputs, "core_optical_flow")
    _require_same_frames(frames, flow)
    reliable = flow.arrays["pair_reliable_mask"]
    features = motion_features(flow, reliable)
    return Artifact(
        arrays={**frames.arrays(), **feature_arrays(features)},
        status="empty" if flow.status == "empty" else "ok",
        empty_reason="upstream_empty" if flow.status == "empty" else None,
        meta={"thresholds_version": THRESHOLDS.version, "absent_features": _absent(features, int(reliable.sum()))},
    )


def motion_features(flow: Upstream, reliable: np.ndarray) -> dict[str, float]:
    """Scalars over the rows of `flow` where `reliable` (bool `[N]`, row 0 false) is true."""
    arrays = flow.arrays
    motion = arrays["motion_norm_per_sec_mean"][reliable]
    translation = np.hypot(arrays["cam_tx_per_sec_norm"], arrays["cam_ty_per_sec_norm"])
    return {
        "motion_curve_mean": _summary.mean(motion),
        "motion_curve_median": _summary.median(motion),
        "motion_curve_p90": _summary.percentile(motion, 90),
        "motion_curve_variance": _summary.std(motion) ** 2,
        "missing_frame_ratio": 1.0 - _summary.mean(reliable[1:]),
        "high_motion_ratio": _summary.mean(motion >= MOTION.high_motion),
        "static_ratio": _summary.mean(motion <= MOTION.static_motion),
        "cam_shake_std_mean": _summary.mean(arrays["cam_shake_std_norm"][reliable]),
        "cam_rotation_abs_mean": _summary.mean(np.abs(arrays["cam_rotation_per_sec"][reliable])),
        "cam_translation_abs_mean": _summary.mean(translation[reliable]),
        "cam_zoom_abs_mean": _summary.mean(np.abs(arrays["cam_zoom_rate_per_sec"][reliable])),
        "flow_dir_dispersion_mean": _summary.mean(arrays["flow_dir_dispersion"][reliable]),
        "bg_ratio_mean": _summary.mean(arrays["bg_ratio"][reliable]),
    }


def _require_same_frames(frames: OwnFrames, flow: Upstream) -> None:
    theirs = flow.arrays["frame_indices"], flow.arrays["times_s"]
    if not (np.array_equal(theirs[0], frames.frame_indices) and np.array_equal(theirs[1], frames.times_s)):
        raise TrendFlowError(
            "artifact_validation_failed", "core_optical_flow measured other frames.", upstream="core_optical_flow"
        )


def _absent(features: dict[str, float], reliable_pairs: int) -> dict[str, str]:
    """Why a scalar is NaN although the component ran."""
    reason = {0: "no pair is reliable", 1: "only one pair is reliable"}.get(
        reliable_pairs, "no reliable pair shows enough common motion"
    )
    return {name: reason for name, value in features.items() if np.isnan(value)}
