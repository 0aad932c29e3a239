"""Motion of whole videos: scalars from hand-made pairs, and from real clips played slow, fast and not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.motion.bench import run_flow, summarise
from trendflow_tests.components.motion.camera import film, texture
from trendflow_tests.components.visual.clips import Clip, clip_of, decode, features

NAN = float("nan")


def pairs(motion: list[float], reliable: list[bool] | None = None, **more: list[float]) -> Artifact:
    """A hand-made flow artifact: one pair per value, one second each."""
    n = len(motion) + 1
    names = ("cam_zoom_rate_per_sec", "cam_rotation_per_sec", "cam_tx_per_sec_norm", "cam_ty_per_sec_norm")
    names += ("cam_shake_std_norm", "flow_dir_dispersion", "bg_ratio")
    columns: dict[str, Any] = (
        {name: [0.0] * len(motion) for name in names} | {"motion_norm_per_sec_mean": motion} | more
    )
    arrays = {name: np.array([NAN, *values], dtype=np.float32) for name, values in columns.items()}
    arrays["frame_indices"] = np.arange(n, dtype=np.int32)
    arrays["times_s"] = np.arange(n, dtype=np.float64)
    arrays["pair_reliable_mask"] = np.array([False, *(reliable or [True] * len(motion))])
    return Artifact(arrays)


def test_statistics_of_reliable_pairs() -> None:
    artifact = summarise(
        pairs(
            [0.0, 0.004, 0.2, 0.1, 9.0],
            [True, True, True, True, False],
            cam_zoom_rate_per_sec=[0.1, -0.3, NAN, 0.2, 7.0],
            cam_rotation_per_sec=[-0.5, 0.5, NAN, 0.5, 7.0],
            cam_tx_per_sec_norm=[0.3, 0.0, NAN, -0.3, 7.0],
            cam_ty_per_sec_norm=[-0.4, 0.0, NAN, 0.4, 7.0],
            cam_shake_std_norm=[NAN, 0.1, NAN, 0.3, 7.0],
            flow_dir_dispersion=[NAN, NAN, 0.2, 0.4, 1.0],
            bg_ratio=[1.0, 0.9, 0.1, 0.6, 1.0],
        )
    )
    expected = {
        "motion_curve_mean": 0.076,
        "motion_curve_median": 0.052,
        "motion_curve_p90": 0.17,
        "motion_curve_variance": float(np.var([0.0, 0.004, 0.2, 0.1])),
        "missing_frame_ratio": 0.2,
        "high_motion_ratio": 0.5,
        "static_ratio": 0.5,
        "cam_shake_std_mean": 0.2,
        "cam_rotation_abs_mean": 0.5,
        "cam_translation_abs_mean": 1 / 3,
        "cam_zoom_abs_mean": 0.2,
        "flow_dir_dispersion_mean": 0.3,
        "bg_ratio_mean": 0.65,
    }
    assert features(artifact) == pytest.approx(expected, rel=1e-5)
    assert artifact.meta["absent_features"] == {}


def test_without_a_reliable_pair_only_their_absence_is_known() -> None:
    artifact = summarise(pairs([0.1, 0.2], [False, False]))
    values = features(artifact)
    assert artifact.status == "ok"
    assert values.pop("missing_frame_ratio") == 1
    assert np.isnan(list(values.values())).all()
    assert set(artifact.meta["absent_features"]) == set(values)


def test_one_reliable_pair_has_no_variance() -> None:
    artifact = summarise(pairs([0.1, 0.2], [True, False]))
    assert features(artifact)["motion_curve_mean"] == pytest.approx(0.1)
    assert np.isnan(features(artifact)["motion_curve_variance"])
    assert "motion_curve_variance" in artifact.meta["absent_features"]


def test_an_empty_flow_makes_an_empty_summary(flow_model: ModelHandle, room: Clip) -> None:
    artifact = summarise(run_flow(flow_model, room.take(slice(0, 1))))
    assert (artifact.status, artifact.empty_reason) == ("empty", "upstream_empty")
    assert np.isnan(list(features(artifact).values())).all()


@pytest.mark.parametrize(
    ("assigned", "times_s"),
    [([0, 1, 3], [0.0, 1.0, 2.0, 3.0]), ([0, 1], [0.0, 1.0, 2.0]), ([0, 1, 2], [0.0, 1.0, 2.5])],
)
def test_a_flow_of_other_frames_is_refused(assigned: list[int], times_s: list[float]) -> None:
    with pytest.raises(TrendFlowError, match="artifact_validation_failed"):
        summarise(pairs([0.1, 0.2]), np.array(assigned), np.array(times_s))


@given(st.lists(st.tuples(st.floats(0, 5, width=32), st.booleans()), min_size=1, max_size=30))
def test_shares_are_shares(rows: list[tuple[float, bool]]) -> None:
    values = features(summarise(pairs([row[0] for row in rows], [row[1] for row in rows])))
    for name in ("missing_frame_ratio", "high_motion_ratio", "static_ratio"):
        assert np.isnan(values[name]) or 0 <= values[name] <= 1
    kept = sum(row[1] for row in rows)
    assert values["missing_frame_ratio"] == pytest.approx(1 - kept / len(rows), abs=1e-6)


def test_a_still_clip_is_static(flow_model: ModelHandle, bunny: Clip) -> None:
    """One real frame under the noise of a camera (synthetic, 1 grey level), four times a second."""
    noise = np.random.default_rng(5).normal(0, 1, (6, *bunny.frames.shape[1:]))
    still = clip_of(np.clip(bunny.frames[:1] + noise, 0, 255).astype(np.uint8))
    values = features(summarise(run_flow(flow_model, still)))
    assert (values["static_ratio"], values["high_motion_ratio"], values["missing_frame_ratio"]) == (1, 0, 0)


def test_an_empty_room_is_static(flow_model: ModelHandle, data_dir: Path) -> None:
    """The first people enter after five seconds; until then only the compression changes the picture."""
    empty = decode(data_dir / "video" / "people_139s.mp4", 0.4, windows=((0.0, 4.5),))
    values = features(summarise(run_flow(flow_model, empty)))
    assert (values["static_ratio"], values["high_motion_ratio"], values["missing_frame_ratio"]) == (1, 0, 0)


def test_a_fast_copy_moves_more(flow_model: ModelHandle, bunny: Clip) -> None:
    """The tilt from 3 to 7 s at its speed, and with every third frame only, played at the same rate."""
    tilt = bunny.take(slice(0, 17))
    slow = features(summarise(run_flow(flow_model, tilt)))
    fast = features(summarise(run_flow(flow_model, clip_of(tilt.frames[::3]))))
    assert slow["high_motion_ratio"] == 0
    assert fast["high_motion_ratio"] == 1
    assert fast["motion_curve_mean"] == pytest.approx(3 * slow["motion_curve_mean"], rel=0.15)
    assert fast["cam_translation_abs_mean"] == pytest.approx(3 * slow["cam_translation_abs_mean"], rel=0.15)


def test_a_synthetic_zoom_shows_in_its_scalar_alone(flow_model: ModelHandle) -> None:
    values = features(summarise(run_flow(flow_model, film(texture(4), 5, zoom=1.05))))
    assert values["cam_zoom_abs_mean"] == pytest.approx(np.log(1.05) / 0.25, rel=0.05)
    assert values["cam_translation_abs_mean"] < 0.005
    assert values["cam_rotation_abs_mean"] < 0.005
