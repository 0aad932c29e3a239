"""The learned shot-boundary path with a stand-in model. The stand-in exists in this test only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trendflow.components.visual import cut_detection
from trendflow.components.visual._shot_boundary import transition_probability
from trendflow.contracts.artifact import Artifact, ModelUsed
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow_tests.components.cuts.clips import Clip, events, feature
from trendflow_tests.components.cuts.scenes import brighten, dissolve, shot
from trendflow_tests.components.schema_check import schema_problems

FPS = 24


class StandIn:
    """Test only. Reads the frame number from the corner of each thumbnail and looks its probability up."""

    device_used = "cpu"
    used = ModelUsed("stand_in", "1", "0" * 64, "inprocess", "onnx", "fp32", "cpu")

    def __init__(self, table: Callable[[np.ndarray], np.ndarray], activation: str = "none", width: int = 100) -> None:
        self.table, self.width = table, width
        self.windows: list[np.ndarray] = []
        self.entry = SimpleNamespace(
            name="stand_in",
            inputs=(SimpleNamespace(name="frames", dtype="uint8"),),
            outputs=(SimpleNamespace(name="probability", dtype="float32"),),
            max_batch_size=4,
            postprocessing={"activation": activation},
        )

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (batch,) = inputs.values()
        assert batch.shape[1:] == (100, 27, 48, 3)
        assert batch.dtype == np.uint8
        numbers = batch[:, :, 0, 0, :2].astype(int) @ (1, 256)
        self.windows.extend(numbers)
        return {"probability": self.table(numbers).astype(np.float32)[:, : self.width]}


def numbered(thumbs: np.ndarray) -> np.ndarray:
    thumbs = thumbs.copy()
    n = np.arange(len(thumbs))
    thumbs[:, 0, 0, 0], thumbs[:, 0, 0, 1] = n % 256, n // 256
    return thumbs


@pytest.mark.parametrize("frames", [1, 49, 50, 51, 100, 237])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_every_frame_is_read_with_context_on_both_sides(frames: int, batch: int) -> None:
    """The value of frame i must come from the middle half of a window, wherever that window lies in a batch."""
    model = StandIn(lambda numbers: (numbers % 97) / 97)
    thumbs = numbered(np.zeros((frames, 27, 48, 3), np.uint8))
    got = transition_probability(model, thumbs, BatchRunner(batch_size=batch))
    np.testing.assert_allclose(got, (np.arange(frames) % 97) / 97, rtol=1e-6)
    assert len(model.windows) == -(-frames // 50)
    for i, window in enumerate(model.windows):
        np.testing.assert_array_equal(window, np.clip(np.arange(100) - 25 + 50 * i, 0, frames - 1))


def test_logits_pass_the_logistic_function() -> None:
    model = StandIn(lambda numbers: np.log(0.3 / 0.7) + 0.0 * numbers, activation="sigmoid")
    got = transition_probability(model, np.zeros((10, 27, 48, 3), np.uint8), BatchRunner())
    np.testing.assert_allclose(got, 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (StandIn(lambda n: n * 0.0, activation="softmax"), "model_spec_invalid"),
        (StandIn(lambda n: n * 0.0, width=50), "model_spec_invalid"),
        (StandIn(lambda n: n * 0.0 + 1.5), "artifact_validation_failed"),
    ],
)
def test_unfit_models_are_refused(model: Any, code: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        transition_probability(model, np.zeros((10, 27, 48, 3), np.uint8), BatchRunner())
    assert caught.value.error_code == code


def detect(frames: np.ndarray, probability: dict[int, float], default: float = 0.3) -> Artifact:
    """Cut detection with a model that gives these probabilities, and `default` elsewhere."""
    table = np.full(len(frames), default)
    for frame, value in probability.items():
        table[frame] = value
    clip = Clip.at_rate(frames, FPS)
    dense = clip.dense(thumbs=True)
    dense["thumb_rgb"] = numbered(dense["thumb_rgb"])
    artifact = cut_detection.run(clip.inputs(dense=dense, models={"shot_boundary": StandIn(lambda n: table[n])}))
    assert schema_problems(cut_detection, artifact) == []
    return artifact


def test_low_probability_vetoes_a_cut() -> None:
    frames = np.concatenate([shot(1, 40), shot(2, 40)])
    assert events(detect(frames, {}), "hard_cut") == [40]
    assert events(detect(frames, {39: 0.05, 40: 0.05}), "hard_cut") == []


@pytest.mark.parametrize("marked", [{39: 0.9}, {40: 0.9}, {39: 0.9, 40: 0.8}])
def test_a_cut_may_be_marked_on_either_of_its_frames(marked: dict[int, float]) -> None:
    frames = np.concatenate([shot(1, 40), shot(2, 40)])
    artifact = detect(frames, marked, default=0.0)
    assert events(artifact, "hard_cut") == [40]
    assert artifact.arrays["event_contrib_mask"][0, 4]
    assert artifact.models_used == (StandIn.used,)
    assert artifact.meta["batching"]["effective_batch_size"] is not None


def test_high_probability_adds_a_weak_cut() -> None:
    """Two crops of one dark scene differ too little for the score."""
    dark = (np.concatenate([shot(1, 40), shot(2, 40)]) // 8).astype(np.uint8)
    assert events(detect(dark, {}), "hard_cut") == []
    assert events(detect(dark, {39: 0.8}), "hard_cut") == [40]


def test_a_flash_stays_a_flash_whatever_the_model_says() -> None:
    frames = shot(3, 60)
    frames[30] = brighten(frames[30:31], 90)[0]
    artifact = detect(frames, {29: 0.9, 30: 0.9})
    assert events(artifact, "flash") == [30]
    assert events(artifact, "hard_cut") == []


def test_a_run_of_confident_frames_is_a_dissolve() -> None:
    frames = dissolve(shot(4, 64), shot(5, 64), 24)
    artifact = detect(frames, dict.fromkeys(range(48, 56), 0.8))
    (frame,) = events(artifact, "dissolve")
    assert frame == pytest.approx(52, abs=3)
    assert events(artifact, "hard_cut") == []
    assert feature(artifact, "dissolve_count") == 1


def test_the_model_needs_thumbnails() -> None:
    clip = Clip.at_rate(shot(1, 40), FPS)
    with pytest.raises(TrendFlowError, match="thumbnails") as caught:
        cut_detection.run(clip.inputs(models={"shot_boundary": StandIn(lambda n: n * 0.0)}))
    assert caught.value.error_code == "dependency_missing"
