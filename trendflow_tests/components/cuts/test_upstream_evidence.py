"""Motion, embeddings and boxes of other components, made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trendflow.components.base import Upstream
from trendflow.components.visual import cut_detection
from trendflow.contracts.artifact import Artifact
from trendflow_tests.components.cuts.clips import Clip, as_upstream, events, feature
from trendflow_tests.components.cuts.scenes import shot
from trendflow_tests.components.schema_check import schema_problems

FPS = 24
SECONDS = 4


def run(upstream: dict[str, Upstream], frames: np.ndarray | None = None, every: int = 3) -> Artifact:
    """A clip with one cut in its middle, sampled eight times a second."""
    half = FPS * SECONDS // 2
    frames = np.concatenate([shot(1, half), shot(2, half)]) if frames is None else frames
    artifact = cut_detection.run(Clip.at_rate(frames, FPS).inputs(every=every, upstream=upstream))
    assert schema_problems(cut_detection, artifact) == []
    return artifact


def flow(**rows: dict[int, float]) -> Upstream:
    """Flow of four pairs a second; still and reliable but for the given rows."""
    times = np.arange(0, SECONDS, 0.25)
    n = len(times)
    arrays = {
        "times_s": times,
        "pair_reliable_mask": np.ones(n, dtype=bool),
        "motion_norm_per_sec_mean": np.full(n, 0.01, np.float32),
        "flow_dir_dispersion": np.full(n, 0.9, np.float32),
        "cam_zoom_rate_per_sec": np.zeros(n, np.float32),
        "bg_ratio": np.full(n, 0.9, np.float32),
    }
    arrays["pair_reliable_mask"][0] = False
    for name in ("motion_norm_per_sec_mean", "flow_dir_dispersion", "cam_zoom_rate_per_sec", "bg_ratio"):
        arrays[name][0] = np.nan
    for name, values in rows.items():
        for row, value in values.items():
            arrays[name][row] = value
    return as_upstream("core_optical_flow", arrays)


def test_successive_fast_pairs_are_one_whip_pan() -> None:
    fast = {5: 0.8, 6: 1.4, 11: 0.6}
    artifact = run(
        {"core_optical_flow": flow(motion_norm_per_sec_mean=fast, flow_dir_dispersion={5: 0.1, 6: 0.2, 11: 0.9})}
    )
    (frame,) = events(artifact, "whip_pan")
    row = artifact.arrays["event_source_frame"].tolist().index(frame)
    assert artifact.arrays["event_start_time_s"][row] == 1.0
    assert artifact.arrays["event_end_time_s"][row] == 1.5
    assert artifact.arrays["event_strength"][row] == 1.0
    assert feature(artifact, "whip_pan_per_min") == pytest.approx(60 / SECONDS)
    assert feature(artifact, "zoom_per_min") == 0.0
    assert feature(artifact, "soft_transition_count") == 0


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({"cam_zoom_rate_per_sec": {4: -0.3}}, 1),
        ({"cam_zoom_rate_per_sec": {4: 0.3}, "bg_ratio": {4: 0.3}}, 0),
        ({"cam_zoom_rate_per_sec": {4: 0.1}}, 0),
        ({"cam_zoom_rate_per_sec": {4: 0.3}, "pair_reliable_mask": {4: False}}, 0),
    ],
)
def test_zoom_rule(changed: dict[str, dict[int, float]], count: int) -> None:
    assert len(events(run({"core_optical_flow": flow(**changed)}), "zoom")) == count


def test_motion_is_read_from_the_reliable_pair_that_encloses_two_samples() -> None:
    artifact = run({"core_optical_flow": flow(motion_norm_per_sec_mean={3: 0.5}, pair_reliable_mask={7: False})})
    start, end = artifact.arrays["times_s"][:-1], artifact.arrays["times_s"][1:]
    inside = (start >= 0.5) & (end <= 0.75)
    np.testing.assert_allclose(artifact.arrays["flow_mag"][inside], 0.5)
    unreliable = (start >= 1.5) & (end <= 1.75)
    beyond = end > SECONDS - 0.25
    np.testing.assert_array_equal(artifact.arrays["flow_valid_mask"], ~(unreliable | beyond))


def clip_embeddings(cosine: float, times: np.ndarray | None = None) -> Upstream:
    """Two constant unit vectors, one on each side of the cut at 2 s, with the given cosine."""
    times = np.arange(0, SECONDS, 0.25) if times is None else times
    first, second = np.array([1.0, 0.0]), np.array([cosine, np.sqrt(1 - cosine**2)])
    vectors = np.where((times < SECONDS / 2)[:, None], first, second).astype(np.float32)
    return as_upstream("core_clip", {"times_s": times, "frame_embeddings": vectors})


def objects(after: tuple[float, float, float, float], name: str = "person") -> Upstream:
    """A small cat and one large box of class `name` per frame; the large one changes at the cut."""
    times = np.arange(0, SECONDS, 0.25)
    before = (0.3, 0.2, 0.5, 0.8)
    boxes = [box for t in times for box in ((0.0, 0.0, 0.1, 0.1), before if t < SECONDS / 2 else after)]
    arrays = {
        "times_s": times,
        "det_row_splits": np.arange(0, 2 * len(times) + 1, 2, dtype=np.int64),
        "boxes_norm": np.array(boxes, np.float32),
        "class_ids": np.tile(np.array([0, 1], np.int32), len(times)),
        "class_names": np.array(["cat", name]),
    }
    return as_upstream("core_object_detections", arrays)


def faces(after: tuple[float, float, float, float]) -> Upstream:
    times = np.arange(0, SECONDS, 0.25)
    boxes = [(0.4, 0.3, 0.5, 0.5) if t < SECONDS / 2 else after for t in times]
    arrays = {
        "times_s": times,
        "face_row_splits": np.arange(len(times) + 1, dtype=np.int64),
        "face_boxes_norm": np.array(boxes, np.float32),
    }
    return as_upstream("core_face_landmarks", arrays)


SAME = (0.3, 0.2, 0.5, 0.8)


@pytest.mark.parametrize(
    ("cosine", "after", "is_jump"),
    [
        (0.95, (0.45, 0.2, 0.65, 0.8), True),  # moved by 0.15
        (0.95, (0.28, 0.14, 0.52, 0.86), True),  # 20 % larger
        (0.95, (0.305, 0.2, 0.505, 0.8), False),  # stayed
        (0.95, (0.29, 0.17, 0.51, 0.83), False),  # 10 % larger
        (0.70, (0.45, 0.2, 0.65, 0.8), False),  # another scene
    ],
)
def test_jump_cut_rule(cosine: float, after: tuple[float, float, float, float], is_jump: bool) -> None:
    artifact = run({"core_clip": clip_embeddings(cosine), "core_object_detections": objects(after)})
    assert events(artifact, "hard_cut") == [48]
    assert artifact.arrays["event_is_jump_cut"].tolist() == [is_jump]
    assert artifact.arrays["jump_channel_present"]
    assert feature(artifact, "jump_cut_ratio") == float(is_jump)


def test_a_face_tells_a_jump_cut_too() -> None:
    moved = run({"core_clip": clip_embeddings(0.95), "core_face_landmarks": faces((0.6, 0.3, 0.7, 0.5))})
    still = run({"core_clip": clip_embeddings(0.95), "core_face_landmarks": faces((0.4, 0.3, 0.5, 0.5))})
    assert moved.arrays["event_is_jump_cut"].tolist() == [True]
    assert still.arrays["event_is_jump_cut"].tolist() == [False]


def test_only_persons_count() -> None:
    """A class list without persons gives no boxes, hence no channel."""
    artifact = run({"core_clip": clip_embeddings(0.95), "core_object_detections": objects((0.5, 0.2, 0.7, 0.8), "dog")})
    assert not artifact.arrays["jump_channel_present"]
    assert not artifact.arrays["event_is_jump_cut"].any()
    assert np.isnan(feature(artifact, "jump_cut_ratio"))
    assert artifact.meta["absent_features"]["jump_cut_ratio"] == "no component gives person or face boxes"


def test_embeddings_too_far_apart_judge_nothing() -> None:
    """Only frames at 0 and 3.5 s have embeddings: what changed in 3.5 s says nothing about the cut."""
    clip = clip_embeddings(0.95, np.array([0.0, 3.5]))
    artifact = run({"core_clip": clip, "core_object_detections": objects((0.5, 0.2, 0.7, 0.8))})
    assert artifact.arrays["jump_channel_present"]
    assert not artifact.arrays["event_is_jump_cut"].any()
    assert np.isnan(feature(artifact, "jump_cut_ratio"))
    assert not artifact.arrays["deep_valid_mask"].any()
    assert "embeddings" in artifact.meta["absent_features"]["jump_cut_ratio"]


def test_embedding_distance_across_the_cut() -> None:
    artifact = run({"core_clip": clip_embeddings(0.25)})
    arrays = artifact.arrays
    start, end, valid = arrays["times_s"][:-1], arrays["times_s"][1:], arrays["deep_valid_mask"]
    np.testing.assert_array_equal(valid, end <= SECONDS - 0.25)
    across = valid & (start >= SECONDS / 2 - 0.25) & (end <= SECONDS / 2)
    np.testing.assert_allclose(arrays["deep_cosine_dist"][across], 0.75, atol=1e-6)
    np.testing.assert_allclose(arrays["deep_cosine_dist"][valid & ~across], 0.0, atol=1e-6)
    hist, mad, ssim, deep, learned = arrays["event_contrib_mask"][0]
    assert (hist, mad, ssim, deep, learned) == (True, True, True, True, False)


def test_an_empty_upstream_is_read_normally() -> None:
    """No detection and no face anywhere: cuts can be judged, none is a jump cut."""
    times = np.arange(0, SECONDS, 0.25)
    none = np.zeros(len(times) + 1, dtype=np.int64)
    nothing = np.zeros((0, 4), np.float32)
    upstream = {
        "core_clip": clip_embeddings(0.95),
        "core_object_detections": as_upstream(
            "core_object_detections",
            {
                "times_s": times,
                "det_row_splits": none,
                "boxes_norm": nothing,
                "class_ids": np.zeros(0, np.int32),
                "class_names": np.array(["person"]),
            },
        ),
        "core_face_landmarks": as_upstream(
            "core_face_landmarks", {"times_s": times, "face_row_splits": none, "face_boxes_norm": nothing}
        ),
    }
    artifact = run(upstream)
    assert artifact.arrays["jump_channel_present"]
    assert feature(artifact, "jump_cut_ratio") == 0.0
