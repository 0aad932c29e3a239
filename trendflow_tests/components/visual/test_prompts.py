"""core_clip with prompts: towers of random weights against transformers, and constructed ones against closed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trendflow.components.visual import core_clip
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.components.visual._prompt_classes import ClassProbabilities, softmax
from trendflow.contracts.artifact import Artifact, ModelUsed
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import PROMPTS
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.visual.clips import Bench, Clip, assert_same, clip_of, decode, features
from trendflow_tests.components.visual.small_models import loaded
from trendflow_tests.models.builders import UNLICENSED, entry_for
from trendflow_tests.models.tiny_clip import image_tower, published_names, random_clip, text_tower

CHECKPOINT = "c" * 64
SIDE = 16


@dataclass(frozen=True)
class KnownTexts:
    """A text tower whose vectors are given: text → vector. Stands for no trained model."""

    entry: CatalogueEntry
    vectors: Mapping[str, np.ndarray]
    asked: list[str] = field(default_factory=list)

    @property
    def used(self) -> ModelUsed:
        return self.entry.model_used("cpu")

    @property
    def device_used(self) -> str:
        return "cpu"

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise AssertionError("texts have known vectors")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.extend(texts)
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


def known_texts(vectors: Mapping[str, np.ndarray], **changes: Any) -> KnownTexts:
    values: dict[str, Any] = {
        "name": "known_vectors_text",
        "roles": ["prompt_encoder"],
        "embedding_dim": 3,
        "checkpoint": CHECKPOINT,
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 3], "layout": "NC"}],
        "postprocessing": {"logit_scale": 100.0},
        "max_batch_size": 16,
        **UNLICENSED,
    }
    return KnownTexts(entry_for(b"known", **{**values, **changes}), vectors)


@pytest.fixture(scope="module")
def colour_encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    """The mean colour of the picture as its embedding: pictures are written so that cosines are known."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Add", ["mean", "least"], ["embeddings"]),
        ],
        "mean_colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", 3])],
        [numpy_helper.from_array(np.float32([1e-3] * 3), "least")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = bytes(model.SerializeToString())
    entry = entry_for(
        data,
        name="mean_colour_not_meaning",
        embedding_dim=3,
        checkpoint=CHECKPOINT,
        inputs=[{"name": "images", "dtype": "uint8", "shape": ["B", SIDE, SIDE, 3], "layout": "NHWC"}],
        outputs=[{"name": "embeddings", "dtype": "float32", "shape": ["B", 3], "layout": "NC"}],
        preprocessing={
            "geometry": "shorter_side_center_crop",
            "resize_shorter": SIDE,
            "width": SIDE,
            "height": SIDE,
            "interpolation": "bicubic",
            "color_order": "RGB",
        },
        **UNLICENSED,
    )
    return loaded(tmp_path_factory.mktemp("colour"), data, entry)


def all_texts() -> list[str]:
    return [text for found in PROMPTS.sets.values() for text in found.prompts.values()] + list(PROMPTS.places)


def spread_vectors(seed: int = 0) -> dict[str, np.ndarray]:
    """Every text points somewhere else among the colours."""
    rng = np.random.default_rng(seed)
    vectors = rng.dirichlet(np.ones(3) * 0.5, len(all_texts())) + 1e-3
    return dict(zip(all_texts(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))


def colours(*rgb: tuple[int, int, int]) -> Clip:
    return clip_of(np.array(rgb, np.uint8)[:, None, None].repeat(24, axis=1).repeat(32, axis=2))


CLIP = colours((200, 30, 30), (10, 220, 40), (60, 60, 240), (120, 120, 120))


@pytest.fixture(scope="module")
def scored(bench: Bench, colour_encoder: ModelHandle) -> Artifact:
    return run(bench, CLIP, colour_encoder, known_texts(spread_vectors()))


def run(bench: Bench, clip: Clip, encoder: ModelHandle, tower: Any, **arguments: Any) -> Artifact:
    return bench.run(core_clip, clip, models={"image_encoder": encoder, "prompt_encoder": tower}, **arguments)


def test_scores_are_cosines_and_probabilities_their_scaled_softmax(scored: Artifact) -> None:
    vectors = spread_vectors()
    frames = CLIP.frames[:, 0, 0].astype(np.float64) + 1e-3
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    for name, found in PROMPTS.sets.items():
        cosines = frames @ np.stack([vectors[text] for text in found.prompts.values()]).T
        assert scored.arrays[f"{name}_prompts"].tolist() == list(found.prompts)
        np.testing.assert_allclose(scored.arrays[f"{name}_scores"], cosines, atol=1e-5)
        exact = np.exp(100 * cosines) / np.exp(100 * cosines).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scored.arrays[f"{name}_probs"], exact, atol=1e-3)
        np.testing.assert_allclose(scored.arrays[f"{name}_probs"].sum(axis=1), 1, atol=1e-4)
    assert scored.arrays["logit_scale"] == 100
    assert scored.arrays["prompt_temperature"].tolist() == [1.0] * 6
    assert scored.meta["prompts_version"] == PROMPTS.version
    assert [used.model_name for used in scored.models_used] == ["mean_colour_not_meaning", "known_vectors_text"]


def test_features_are_means_of_summed_classes_and_entropies(scored: Artifact) -> None:
    values, arrays = features(scored), scored.arrays
    groups = {
        "aesthetic_high": ("scene_aesthetic", slice(0, 3)),
        "luxury_high": ("scene_luxury", slice(0, 3)),
        "cozy": ("scene_atmosphere", slice(0, 1)),
        "scary": ("scene_atmosphere", slice(1, 2)),
        "epic": ("scene_atmosphere", slice(2, 4)),
        "neutral": ("scene_atmosphere", slice(4, 6)),
        **{
            f"quality_{name}": ("shot_quality", slice(index, index + 1))
            for index, name in enumerate(PROMPTS.sets["shot_quality"].classes)
        },
    }
    for feature, (name, columns) in groups.items():
        expected = arrays[f"{name}_probs"][:, columns].sum(axis=1).mean()
        assert values[f"prob_mean__{feature}"] == pytest.approx(expected, abs=1e-5)
    for name in ("shot_quality", "scene_aesthetic", "scene_luxury", "scene_atmosphere", "cut_detection_transition"):
        probs = arrays[f"{name}_probs"].astype(np.float64)
        plogp = np.where(probs > 0, probs * np.log(np.maximum(probs, 1e-300)), 0)
        expected = (-plogp.sum(axis=1) / np.log(probs.shape[1])).mean()
        assert values[f"entropy_mean__{name}"] == pytest.approx(expected, abs=1e-4)
    assert len([name for name in values if name.startswith("prob_mean__")]) == len(groups)
    assert scored.meta["absent_features"] == {}
    assert scored.warnings == ()


def test_places_are_the_most_alike_categories_when_asked_for(
    bench: Bench, colour_encoder: ModelHandle, scored: Artifact
) -> None:
    assert not [name for name in scored.arrays if name.startswith("places")]
    tower = known_texts(spread_vectors())
    scored = run(bench, CLIP, colour_encoder, tower, label_places=True)
    vectors = np.stack([spread_vectors()[text] for text in PROMPTS.places])
    cosines = scored.arrays["frame_embeddings"].astype(np.float64) @ vectors.T
    best = -np.sort(-cosines, axis=1)[:, :5]
    np.testing.assert_allclose(scored.arrays["places365_topk_scores"], best, atol=1e-6)
    picked = np.take_along_axis(cosines, scored.arrays["places365_topk_indices"].astype(int), axis=1)
    np.testing.assert_allclose(picked, best, atol=1e-6)
    mean = cosines.mean(axis=0)
    np.testing.assert_allclose(scored.arrays["places365_video_topk_scores"], -np.sort(-mean)[:5], atol=1e-6)
    assert scored.arrays["places365_video_topk_indices"][0] == mean.argmax()


def test_the_scale_of_the_checkpoint_tells_frames_apart(bench: Bench, colour_encoder: ModelHandle) -> None:
    """Without it the same cosines share the probability evenly: the constant that looks like a feature."""
    entropies = {}
    for scale in (1.0, 100.0):
        tower = known_texts(spread_vectors(), postprocessing={"logit_scale": scale})
        artifact = run(bench, CLIP, colour_encoder, tower)
        entropies[scale] = artifact.arrays["shot_quality_probs"]
        values = features(artifact)
        uniform = "near_uniform_probs" in artifact.warnings
        assert uniform == (scale == 1.0)
        for name in PROMPTS.sets:
            if f"entropy_mean__{name}" in values and scale == 100.0:
                assert values[f"entropy_mean__{name}"] < 0.95
        assert np.isnan(values["prob_mean__quality_sharp"]) == (scale == 1.0)
    assert np.abs(entropies[1.0] - 0.1).max() < 0.1 < np.abs(entropies[100.0] - 0.1).max()


def test_only_the_set_that_tells_nothing_apart_is_left_out(bench: Bench, colour_encoder: ModelHandle) -> None:
    vectors = spread_vectors()
    vectors |= dict.fromkeys(PROMPTS.sets["scene_luxury"].prompts.values(), np.array([1.0, 0.0, 0.0]))
    artifact = run(bench, CLIP, colour_encoder, known_texts(vectors))
    gone = {"prob_mean__luxury_high", "entropy_mean__scene_luxury"}
    assert artifact.warnings == ("near_uniform_probs",)
    assert set(artifact.meta["absent_features"]) == gone
    assert {name for name, value in features(artifact).items() if np.isnan(value)} == gone
    np.testing.assert_allclose(artifact.arrays["scene_luxury_probs"], 1 / 6, atol=1e-6)


def test_batches_of_frames_do_not_matter(bench: Bench, colour_encoder: ModelHandle, scored: Artifact) -> None:
    for batch_size in (1, 3):
        other = run(bench, CLIP, colour_encoder, known_texts(spread_vectors()), batch_size=batch_size)
        assert_same(scored, other)


def test_the_tower_is_asked_for_every_prompt_and_nothing_else(bench: Bench, colour_encoder: ModelHandle) -> None:
    tower = known_texts(spread_vectors())
    run(bench, CLIP, colour_encoder, tower)
    assert tower.asked == [text for text in all_texts() if text not in PROMPTS.places]


def test_extreme_frames_have_probabilities_like_any_other(
    bench: Bench, colour_encoder: ModelHandle, extreme: Clip
) -> None:
    artifact = run(bench, extreme, colour_encoder, known_texts(spread_vectors()))
    assert artifact.status == "ok"
    assert np.isfinite(artifact.arrays["scene_atmosphere_probs"]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "d" * 64},
        {"checkpoint": None},
        {
            "embedding_dim": 4,
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 4], "layout": "NC"}],
        },
        {"postprocessing": {}},
        {"postprocessing": {"logit_scale": 0.0}},
    ],
)
def test_a_tower_that_does_not_fit_the_images_is_refused(
    bench: Bench, colour_encoder: ModelHandle, changes: dict[str, Any]
) -> None:
    with pytest.raises(TrendFlowError) as caught:
        run(bench, CLIP, colour_encoder, known_texts(spread_vectors(), **changes))
    assert caught.value.error_code == "model_spec_invalid"


def test_an_image_encoder_without_a_checkpoint_shares_none(bench: Bench) -> None:
    """The starter's encoder: two towers that both name no checkpoint were not trained together."""
    with pytest.raises(TrendFlowError) as caught:
        run(bench, CLIP, bench.models["image_encoder"], known_texts(spread_vectors(), checkpoint=None))
    assert caught.value.error_code == "model_spec_invalid"


def test_random_towers_give_the_probabilities_of_transformers(bench: Bench, tmp_path: Path, sample_video: Path) -> None:
    """Embeddings, scale and softmax of the whole chain; the pixels are what the component's preprocessing gives."""
    torch = pytest.importorskip("torch")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    reference = random_clip(seed=1)
    weights = published_names(reference)
    encoder, tower = image_tower(tmp_path, weights), text_tower(tmp_path, weights)
    clip = decode(sample_video, 2.0)
    artifact = run(bench, clip, encoder, tower)
    pixels, _ = FramePreprocessing.of(encoder.entry)(clip.frames)
    assert pixels.dtype == np.uint8
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    for name, found in PROMPTS.sets.items():
        ids = torch.from_numpy(tower.tokenize(list(found.prompts.values())))
        with torch.no_grad():
            output = reference(input_ids=ids, pixel_values=processor(list(pixels), return_tensors="pt").pixel_values)
        np.testing.assert_allclose(artifact.arrays["frame_embeddings"], output.image_embeds.numpy(), atol=1e-5)
        expected = output.logits_per_image.softmax(dim=-1).numpy()
        np.testing.assert_allclose(artifact.arrays[f"{name}_probs"], expected, atol=1e-4)


CLASS_NAMES = st.sampled_from(["a", "b", "c/1", "c/2", "d/x", "d/y", "e"])


@settings(max_examples=40)
@given(names=st.lists(CLASS_NAMES, min_size=2, max_size=7, unique=True), seed=st.integers(0, 1000), data=st.data())
def test_classes_share_all_probability_whatever_the_order_of_prompts(
    names: list[str], seed: int, data: st.DataObject
) -> None:
    probs = softmax(np.random.default_rng(seed).normal(size=(3, len(names))) * 5)
    found = ClassProbabilities.summed(names, probs)
    np.testing.assert_allclose(found.values.sum(axis=1), 1, atol=1e-12)
    order = data.draw(st.permutations(range(len(names))))
    shuffled = ClassProbabilities.summed([names[i] for i in order], probs[:, order])
    assert set(shuffled.names) == set(found.names) == {name.split("/")[0] for name in names}
    for name in found.names:
        np.testing.assert_allclose(shuffled.of(name), found.of(name), atol=1e-12)


@settings(max_examples=40)
@given(shift=st.floats(-1e3, 1e3), seed=st.integers(0, 1000))
def test_softmax_sums_to_one_and_ignores_a_common_shift(shift: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(2, 6)) * 30
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(softmax(logits + shift), softmax(logits), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_keeps_the_precision_and_survives_large_logits(dtype: type) -> None:
    found = softmax(np.array([[1000, 1001]], dtype=dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, [[1 / (1 + np.e), np.e / (1 + np.e)]], rtol=1e-6)
