"""Places per frame and per scene, with models that have no trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trendflow.components.base import ComponentInputs, Upstream
from trendflow.components.visual import scene_classification
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._scene_model import GROUPS, HIERARCHY, SceneModel
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.visual import upstreams
from trendflow_tests.components.visual.clips import Bench, Clip, Respecified, features
from trendflow_tests.components.visual.small_models import grey_as_place, random_places

SHARPNESS = 0.05
ATMOSPHERE = ("cozy/1", "cozy/2", "scary", "epic/1", "epic/2", "neutral")
HIGH_LOW = ("high/1", "high/2", "high/3", "low/1", "low/2", "low/3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def grey_model(folder: Path) -> ModelHandle:
    return grey_as_place(folder, SHARPNESS)


@pytest.fixture(scope="module")
def random_model(folder: Path) -> ModelHandle:
    return random_places(folder)


def inputs_of(
    bench: Bench,
    clip: Clip,
    model: ModelHandle,
    *,
    shot_starts_s: Sequence[float] = (0.0,),
    duration_s: float | None = None,
    **upstream: Upstream,
) -> ComponentInputs:
    end = duration_s or float(clip.times_s[-1]) + 0.25
    inputs = bench.inputs(scene_classification, clip, models={"scene_classifier": model})
    found = {
        "segmenter": upstreams.upstream("segmenter", {}),
        "cut_detection": upstreams.cuts(shot_starts_s, end, clip.times_s, np.arange(0, end, 1 / 25)),
        "core_clip": upstreams.prompts(clip.times_s, {}),
        **upstream,
    }
    return replace(inputs, upstream=found, video=replace(inputs.video, duration_sec=end))


def run(bench: Bench, clip: Clip, model: ModelHandle, **arguments: Any) -> Artifact:
    artifact = scene_classification.run(inputs_of(bench, clip, model, **arguments))
    assert bench.problems(scene_classification, artifact, len(clip)) == []
    return artifact


def grey_clip(levels: Sequence[int], gap_s: float = 1.0) -> Clip:
    frames = np.stack([np.full((90, 160, 3), level, dtype=np.uint8) for level in levels])
    return Clip(frames, np.arange(len(levels)) * gap_s)


def expected_probabilities(level: int) -> np.ndarray:
    """The grey model's softmax is a normal distribution over class numbers, cut at both ends."""
    weights = np.exp(-SHARPNESS * (np.arange(365) - level) ** 2.0)
    return weights / weights.sum()


def test_probabilities_of_every_frame(bench: Bench, grey_model: ModelHandle) -> None:
    levels = [0, 40, 100, 255]
    artifact = run(bench, grey_clip(levels), grey_model)
    arrays = artifact.arrays
    assert arrays["frame_topk_ids"][:, 0].tolist() == levels
    for i, level in enumerate(levels):
        p = expected_probabilities(level)
        best = np.sort(p)[::-1]
        np.testing.assert_allclose(arrays["frame_topk_probs"][i], best[:5], rtol=2e-3)
        assert arrays["frame_top1_top2_gap"][i] == pytest.approx(best[0] - best[1], rel=1e-2)
        positive = p[p > 0]
        assert arrays["frame_entropy"][i] == pytest.approx(-(positive * np.log(positive)).sum() / np.log(365), rel=2e-3)
        by_group = [p[k::16].sum() for k in range(16)]
        np.testing.assert_allclose(arrays["scene_group_probs"][i], by_group, rtol=2e-3, atol=1e-6)
        io = [sum(by_group[:6]), sum(by_group[6:10]), sum(by_group[10:])]
        np.testing.assert_allclose(arrays["scene_io_probs"][i], io, rtol=2e-3, atol=1e-6)


def test_real_frames_give_sorted_and_complete_probabilities(
    bench: Bench, hello: Clip, random_model: ModelHandle
) -> None:
    artifact = run(bench, hello, random_model)
    arrays, values = artifact.arrays, features(artifact)
    assert (np.diff(arrays["frame_topk_probs"], axis=1) <= 0).all()
    for name in ("scene_io_probs", "scene_group_probs"):
        np.testing.assert_allclose(arrays[name].sum(axis=1), 1, atol=1e-4)
    assert sum(values[f"group_prob_mean__{group}"] for group in GROUPS) == pytest.approx(1, abs=1e-4)
    assert sum(values[f"io_prob_mean__{name}"] for name in HIERARCHY) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(arrays["frame_top1_prob"], arrays["frame_topk_probs"][:, 0])
    assert artifact.models_used[0].model_name == "random_weights_places"
    assert artifact.meta["label_vocab_version"] == "synthetic_places_v1"


def test_scenes_of_scripted_frames(bench: Bench, grey_model: ModelHandle) -> None:
    """Shots 0-3 (place 50), 3-4 (place 58), 4-9 (place 60): the second of 1 s joins the third."""
    levels = [50, 50, 50, 58, 60, 60, 59, 60, 60]
    artifact = run(bench, grey_clip(levels), grey_model, shot_starts_s=(0.0, 3.0, 4.0), duration_s=9.0)
    arrays, values = artifact.arrays, features(artifact)
    assert arrays["frame_scene_id"].tolist() == [0] * 3 + [1] * 6
    assert arrays["scene_label"].tolist() == ["place_050", "place_060"]
    assert arrays["scene_label_id"].tolist() == [50, 60]
    assert arrays["start_time_s"].tolist() == [0, 3]
    assert arrays["end_time_s"].tolist() == [3, 9]
    assert arrays["length_seconds"].tolist() == [3, 6]
    np.testing.assert_allclose(arrays["label_stability"], [1, 4 / 6])
    first, second = expected_probabilities(50), np.mean([expected_probabilities(g) for g in levels[3:]], axis=0)
    np.testing.assert_allclose(arrays["mean_score"], [first[50], second[60]], rtol=2e-3)
    np.testing.assert_allclose(arrays["dominant_places_topk_probs"][1], np.sort(second)[:-4:-1], rtol=2e-3)
    assert arrays["dominant_places_topk_ids"][1].tolist() == [60, 59, 61]
    middle = (first + second) / 2
    divergence = sum(np.sum(p[p > 0] * np.log2(p[p > 0] / middle[p > 0])) for p in (first, second)) / 2
    assert np.isnan(arrays["scene_change_score"][0])
    assert arrays["scene_change_score"][1] == pytest.approx(np.sqrt(divergence), rel=1e-3)
    assert values["scene_change_mean"] == pytest.approx(np.sqrt(divergence), rel=1e-3)
    assert values["scene_count_per_min"] == pytest.approx(2 * 60 / 9)
    assert values["scene_length_median_s"] == 4.5
    assert values["label_stability_mean"] == pytest.approx(5 / 6)
    assert values["high_confidence_ratio"] == 0
    assert arrays["fraction_high_confidence_frames"].tolist() == [0, 0]


def test_a_sure_model_is_confident(bench: Bench, folder: Path) -> None:
    sure = grey_as_place(folder, sharpness=2.0)
    values = features(run(bench, grey_clip([120, 121]), sure))
    assert values["high_confidence_ratio"] == 1
    assert values["top1_prob_mean"] == pytest.approx(1 / (1 + 2 * np.exp(-2) + 2 * np.exp(-8)), rel=1e-2)


def test_without_prompts_their_features_are_nan_with_a_reason(bench: Bench, grey_model: ModelHandle) -> None:
    artifact = run(bench, grey_clip([10, 20]), grey_model)
    names = ("aesthetic_mean", "luxury_mean", "cozy_mean", "scary_mean", "epic_mean")
    assert np.isnan([features(artifact)[name] for name in names]).all()
    absent = dict.fromkeys(names, "core_clip has no prompt probabilities") | {"scene_change_mean": "a single scene"}
    assert artifact.meta["absent_features"] == absent
    assert not {"mean_aesthetic_score", "mean_cozy", "atmosphere_entropy"}.intersection(artifact.arrays)


def test_prompts_describe_scenes(bench: Bench, grey_model: ModelHandle) -> None:
    """core_clip measured twice as many frames; its rows are found by their index."""
    clip = grey_clip([50, 50, 90, 90], gap_s=2.0)
    high = np.array([0.9, 0.0, 0.5, 0.0, 0.1, 0.0, 0.7, 0.0])
    aesthetic = np.stack([high * share for share in (0.5, 0.3, 0.2)] + [(1 - high) / 3] * 3, axis=1)
    luxury = np.tile([0.1, 0.1, 0.1, 0.3, 0.3, 0.1], (8, 1))
    atmosphere = np.tile([0.2, 0.2, 0.3, 0.1, 0.1, 0.1], (8, 1))
    upstream = upstreams.prompts(
        np.arange(8) * 1.0,
        {
            "scene_aesthetic": (HIGH_LOW, aesthetic),
            "scene_luxury": (HIGH_LOW, luxury),
            "scene_atmosphere": (ATMOSPHERE, atmosphere),
        },
    )
    inputs = inputs_of(bench, clip, grey_model, duration_s=8.0, core_clip=upstream)
    assert inputs.samples is not None
    own = replace(inputs.samples, frame_indices=np.array([0, 2, 4, 6], np.int32), reader=Spread(clip))
    cuts = upstreams.cuts((0.0, 4.0), 8.0, np.arange(8) * 1.0, np.arange(0, 8, 1 / 25))
    artifact = scene_classification.run(
        replace(inputs, samples=own, upstream={**inputs.upstream, "cut_detection": cuts})
    )
    assert bench.problems(scene_classification, artifact, 8) == []
    arrays, values = artifact.arrays, features(artifact)
    np.testing.assert_allclose(arrays["mean_aesthetic_score"], [0.7, 0.4], rtol=1e-5)
    np.testing.assert_allclose(arrays["aesthetic_std"], [0.2, 0.3], rtol=1e-5)
    np.testing.assert_allclose(arrays["aesthetic_frac_high"], [0.5, 0.5])
    np.testing.assert_allclose(arrays["mean_luxury_score"], [0.3, 0.3], rtol=1e-5)
    np.testing.assert_allclose(arrays["mean_cozy"], 0.4, rtol=1e-5)
    np.testing.assert_allclose(arrays["mean_epic"], 0.2, rtol=1e-5)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(arrays["atmosphere_entropy"], -(p * np.log(p)).sum() / np.log(4), rtol=1e-5)
    assert values["aesthetic_mean"] == pytest.approx(0.55, rel=1e-5)
    assert values["scary_mean"] == pytest.approx(0.3, rel=1e-5)
    assert artifact.meta["absent_features"] == {}


class Spread:
    """Every second frame of the union exists."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self.clip.frames[union_indices // 2]


def test_prompts_that_tell_nothing_apart_give_no_scalars(bench: Bench, grey_model: ModelHandle) -> None:
    clip = grey_clip([10, 20])
    even = upstreams.prompts(clip.times_s, {"scene_atmosphere": (ATMOSPHERE, np.full((2, 6), 1 / 6))})
    artifact = run(bench, clip, grey_model, core_clip=even)
    assert artifact.warnings == ("near_uniform_probs",)
    assert np.isnan(features(artifact)["cozy_mean"])
    np.testing.assert_allclose(artifact.arrays["mean_cozy"], 2 / 6, rtol=1e-5)


def test_extreme_clips(bench: Bench, extreme: Clip, random_model: ModelHandle) -> None:
    artifact = run(bench, extreme, random_model)
    assert artifact.status == "ok"
    assert artifact.arrays["frame_scene_id"].tolist() == [0] * len(extreme)
    assert np.isnan(features(artifact)["scene_change_mean"])


def test_pictures_are_cropped_as_the_reference_does(hello: Clip, random_model: ModelHandle) -> None:
    """Shorter side to 256 with Pillow's bilinear filter, central 224 x 224, ImageNet mean and deviation."""
    given: list[np.ndarray] = []

    class Recording(Respecified):
        def infer(self, inputs: Any) -> dict[str, np.ndarray]:
            given.append(inputs["x"])
            return super().infer(inputs)

    frame = hello.frames[0]
    SceneModel(Recording.of(random_model), StageTimer())(frame[None])
    height, width = frame.shape[:2]
    scaled = Image.fromarray(frame).resize((int(256 * width / height), 256), Image.Resampling.BILINEAR)
    left, top = round((scaled.width - 224) / 2), 16
    crop = np.asarray(scaled.crop((left, top, left + 224, top + 224))) / 255
    expected = (crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(given[0][0], expected.transpose(2, 0, 1), atol=1e-4)


def refused(inputs: ComponentInputs) -> str:
    with pytest.raises(TrendFlowError) as caught:
        scene_classification.run(inputs)
    return caught.value.error_code


def test_an_entry_that_is_no_place_model_is_refused(bench: Bench, random_model: ModelHandle) -> None:
    entry, clip = random_model.entry, grey_clip([10])
    groups = dict(entry.class_groups)
    for change in (
        {"class_names": entry.class_names[:364]},
        {"class_names": ()},
        {"class_groups": {}},
        {"class_groups": {"indoor": entry.class_names}},
        {"class_groups": {group: groups[group] for group in GROUPS[:15]}},
        {"postprocessing": {"score_activation": "none"}},
        {"preprocessing": {**entry.preprocessing, "width": 300}},
        {"preprocessing": {**entry.preprocessing, "geometry": "stretch"}},
    ):
        model = Respecified.of(random_model, **change)
        assert refused(inputs_of(bench, clip, model)) == "model_spec_invalid", change


def test_a_model_without_its_tables_is_refused(bench: Bench, random_model: ModelHandle) -> None:
    for bare in ({"class_names": (), "class_groups": {}}, {"class_groups": {}}):
        assert refused(inputs_of(bench, grey_clip([10]), Respecified.of(random_model, **bare))) == "model_spec_invalid"


def test_shots_and_embeddings_must_know_the_frames(bench: Bench, random_model: ModelHandle) -> None:
    clip = grey_clip([10, 20, 30])
    inputs = inputs_of(bench, clip, random_model)
    cuts = inputs.upstream["cut_detection"]
    two_shots = {**cuts.arrays, "shot_start_time_s": np.array([0.0, 1.0]), "shot_end_time_s": np.array([1.0, 3.0])}
    for ids in ([0, 0], [0, 0, 2], [1, 0, 0]):
        broken = replace(cuts, arrays={**two_shots, "union_shot_ids": np.array(ids, np.int32)})
        assert refused(inputs_of(bench, clip, random_model, cut_detection=broken)) == "artifact_validation_failed"
    other = upstreams.prompts(clip.times_s[:2], {})
    assert refused(inputs_of(bench, clip, random_model, core_clip=other)) == "artifact_validation_failed"


def test_what_is_missing_is_named(bench: Bench, random_model: ModelHandle) -> None:
    inputs = inputs_of(bench, grey_clip([10]), random_model)
    for name in ("core_clip", "cut_detection"):
        rest = {key: value for key, value in inputs.upstream.items() if key != name}
        assert refused(replace(inputs, upstream=rest)) == "dependency_missing"
    assert refused(replace(inputs, models={})) == "dependency_missing"
