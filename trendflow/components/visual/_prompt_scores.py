"""Likeness of frames to the prompts of the bank, as cosines, probabilities and scalars.

Without the scale of the checkpoint ten prompts would share the probability evenly in every video.

Method: scores are the cosines between the embedding of a frame and those of the prompts, probabilities the softmax over
the prompts of one set of `logit_scale` / temperature times the cosine. `logit_scale` stands under `postprocessing` in
the catalogue entry of the text tower, prompts and temperature in the prompt bank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from trendflow.components._entry import number
from trendflow.components.base import ComponentInputs
from trendflow.components.visual import _summary
from trendflow.components.visual._prompt_classes import ClassProbabilities, normalised_entropy, softmax, top_classes
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import PROMPTS, PromptSet
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.interface import PromptEncoder

NOT_MAPPED = "role prompt_encoder is not mapped"
NEAR_UNIFORM = "the prompts do not tell the frames apart"
PLACES_TOP = 5

# Scalar of the video → prompt set and class. The share of `low` is what `high` leaves.
CLASS_MEANS = {
    "prob_mean__aesthetic_high": ("scene_aesthetic", "high"),
    "prob_mean__luxury_high": ("scene_luxury", "high"),
    **{f"prob_mean__{name}": ("scene_atmosphere", name) for name in ("cozy", "scary", "epic", "neutral")},
    **{f"prob_mean__quality_{name}": ("shot_quality", name) for name in PROMPTS.sets["shot_quality"].classes},
}
ENTROPY_MEANS = {
    f"entropy_mean__{name}": name
    for name in ("shot_quality", "scene_aesthetic", "scene_luxury", "scene_atmosphere", "cut_detection_transition")
}
FEATURES = (*CLASS_MEANS, *ENTROPY_MEANS)


@dataclass(frozen=True)
class PromptScores:
    """What the prompts say of the frames; empty arrays and NaN without a prompt encoder."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    features: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FEATURES, float("nan")))
    absent: dict[str, str] = field(default_factory=lambda: dict.fromkeys(("prob_mean__", "entropy_mean__"), NOT_MAPPED))
    warnings: tuple[str, ...] = ()


def prompt_scores(
    inputs: ComponentInputs,
    tower: PromptEncoder,
    image_entry: CatalogueEntry,
    embeddings: np.ndarray,
    *,
    label_places: bool = False,
) -> PromptScores:
    """Scores of frames with unit `embeddings` `[N, D]` by the image tower `image_entry`.

    `label_places` adds the place categories, whose 365 prompts take longer to encode than all others together.
    Raises `model_spec_invalid` when the text tower is of another checkpoint or width than the image tower.
    """
    _require_one_checkpoint(image_entry, tower.entry)
    scale = number(tower.entry, "postprocessing", "logit_scale", 1e-6)
    texts = [text for prompt_set in PROMPTS.sets.values() for text in prompt_set.prompts.values()]
    cosines = _cosines(embeddings, _embedded(inputs, tower, texts))
    arrays: dict[str, np.ndarray] = {}
    classes: dict[str, ClassProbabilities] = {}
    entropies: dict[str, float] = {}
    start = 0
    for name, prompt_set in PROMPTS.sets.items():
        stop = start + len(prompt_set.prompts)
        probs = softmax(scale / prompt_set.temperature * cosines[:, start:stop])
        arrays |= _set_arrays(prompt_set, cosines[:, start:stop], probs)
        classes[name] = ClassProbabilities.summed(tuple(prompt_set.prompts), probs)
        entropies[name] = _summary.mean(normalised_entropy(probs))
        start = stop
    features = {name: _summary.mean(classes[of].of(label)) for name, (of, label) in CLASS_MEANS.items()}
    features |= {name: entropies[of] for name, of in ENTROPY_MEANS.items()}
    uniform = {name for name, found in classes.items() if found.near_uniform}
    unusable = [name for name in features if _set_of(name) in uniform]
    if label_places:
        # In batches of their own: the last digits of a vector depend on its batch, and it is remembered.
        arrays |= _place_arrays(_cosines(embeddings, _embedded(inputs, tower, PROMPTS.places)))
    arrays["logit_scale"] = np.array(scale, np.float32)
    arrays["prompt_temperature"] = np.array([found.temperature for found in PROMPTS.sets.values()], np.float32)
    return PromptScores(
        arrays,
        features | dict.fromkeys(unusable, float("nan")),
        dict.fromkeys(unusable, NEAR_UNIFORM),
        ("near_uniform_probs",) if uniform else (),
    )


def _set_of(feature: str) -> str:
    """The prompt set a scalar rests on."""
    return CLASS_MEANS[feature][0] if feature in CLASS_MEANS else ENTROPY_MEANS[feature]


def _embedded(inputs: ComponentInputs, tower: PromptEncoder, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors `[len(texts), D]`; the tower remembers them, so that only the first video pays for them."""
    parts = inputs.runner.run(
        len(texts), lambda start, stop: tower.embed_texts(texts[start:stop]), tower.entry.max_batch_size
    )
    return np.concatenate(parts).astype(np.float64)


def _cosines(embeddings: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Float64 `[N, texts]`. Rounding may carry the product of equal unit vectors past 1 by an ulp."""
    return np.clip(embeddings.astype(np.float64) @ vectors.T, -1.0, 1.0)


def _set_arrays(prompt_set: PromptSet, cosines: np.ndarray, probs: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{prompt_set.name}_prompts", np.array(list(prompt_set.prompts), dtype=np.str_)
    yield f"{prompt_set.name}_scores", cosines.astype(np.float32)
    yield f"{prompt_set.name}_probs", probs.astype(np.float32)


def _place_arrays(cosines: np.ndarray) -> dict[str, np.ndarray]:
    """The categories most like each frame `[N, 365]`, and most like the video by their mean cosine."""
    ids, scores = top_classes(cosines, PLACES_TOP)
    video_ids, video_scores = top_classes(cosines.mean(axis=0, keepdims=True), PLACES_TOP)
    return {
        "places365_topk_indices": ids,
        "places365_topk_scores": scores,
        "places365_video_topk_indices": video_ids[0],
        "places365_video_topk_scores": video_scores[0],
    }


def _require_one_checkpoint(image: CatalogueEntry, text: CatalogueEntry) -> None:
    """Vectors of towers that were not trained together have no common space, whatever their widths."""
    if image.checkpoint is None or image.checkpoint != text.checkpoint:
        raise TrendFlowError(
            "model_spec_invalid",
            f"The text tower {text.name} and the image encoder {image.name} do not share a checkpoint.",
        )
    if image.embedding_dim != text.embedding_dim:
        raise TrendFlowError(
            "model_spec_invalid", f"The text tower {text.name} and the image encoder {image.name} differ in width."
        )
