"""Image embedding of every primary-group frame.

The embedding is the output of the role `image_encoder`, L2-normalised here; its width is a fact of the catalogue
entry. Prompt probabilities need the text tower of the same checkpoint (role `prompt_encoder`) and a prompt bank.
Without them the prompt arrays are absent and the prompt features NaN.
"""

from __future__ import annotations

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.visual import _summary
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

SPEC = ComponentSpec(
    name="core_clip",
    producer_version="1.0.0",
    schema_version="core_clip_npz_v3",
    hard=("segmenter",),
    reads=("frames",),
    roles=("image_encoder",),
    optional_roles=("prompt_encoder",),
)

# Classes whose probability is a feature. The quality classes are named by the prompt bank and exist only with one.
PROMPT_CLASSES = ("aesthetic_high", "luxury_high", "cozy", "scary", "epic", "neutral")
PROMPT_SETS = ("shot_quality", "scene_aesthetic", "scene_luxury", "scene_atmosphere", "cut_detection_transition")
PROMPT_FEATURES = (
    *(f"prob_mean__{name}" for name in PROMPT_CLASSES),
    *(f"entropy_mean__{name}" for name in PROMPT_SETS),
)
PROMPT_PREFIXES = ("prob_mean__", "entropy_mean__")


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays `frame_embeddings` [N, D] and `consecutive_cosine_prev` [N] with the frames' indices and times.

    Raises `config_invalid` (a prompt encoder is mapped but there is no prompt bank), `model_spec_invalid` (width is
    not the entry's) or `artifact_validation_failed` (a zero or non-finite vector).
    """
    if "prompt_encoder" in inputs.models:
        raise TrendFlowError(
            "config_invalid", "The role prompt_encoder is mapped, but this configuration has no prompt bank."
        )
    samples, encoder, timer = inputs.need_samples(), need_model(inputs, "image_encoder"), StageTimer()
    embed = _Embedder(encoder, timer)
    parts = over_frames(inputs, samples, embed, encoder.entry.max_batch_size, timer)
    embeddings = np.concatenate(parts)
    features = {
        "pair_dt_median_s": _summary.median(np.diff(samples.times_s)),
        "embedding_dispersion": dispersion(embeddings),
        **dict.fromkeys(PROMPT_FEATURES, float("nan")),
    }
    return Artifact(
        arrays={
            "frame_indices": samples.frame_indices.astype(np.int32),
            "times_s": samples.times_s.astype(np.float64),
            "frame_embeddings": embeddings,
            "consecutive_cosine_prev": consecutive_cosine(embeddings),
            **feature_arrays(features),
        },
        models_used=(encoder.used,),
        device_used=encoder.device_used,
        meta={"absent_features": dict.fromkeys(PROMPT_PREFIXES, "role prompt_encoder is not mapped")},
        stage_timings_ms=timer.timings_ms(),
    )


class _Embedder:
    """Frames → unit vectors with one image encoder."""

    def __init__(self, encoder: ModelHandle, timer: StageTimer) -> None:
        entry = encoder.entry
        if entry.embedding_dim is None or len(entry.inputs) != 1 or len(entry.outputs) != 1:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} describes no image encoder.")
        self._encoder, self._timer, self._width = encoder, timer, entry.embedding_dim
        self._input = entry.inputs[0].name
        self._output = entry.outputs[0].name
        self._preprocess = FramePreprocessing.of(entry)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """float32 `[n, D]`, unit length."""
        with self._timer.stage("preprocess"):
            images, _ = self._preprocess(frames)
        with self._timer.stage("inference"):
            raw = self._encoder.infer({self._input: images})[self._output]
        if raw.shape != (len(frames), self._width):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The embedding of {self._encoder.entry.name} is not {self._width} wide.",
                shape=list(raw.shape),
            )
        return unit_rows(raw)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32. Raises `artifact_validation_failed` on a zero or non-finite row."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise TrendFlowError("artifact_validation_failed", "An image embedding is zero or not finite.")
    return (exact / lengths).astype(np.float32)


def consecutive_cosine(embeddings: np.ndarray) -> np.ndarray:
    """`e_i · e_{i−1}` of unit rows `[N, D]` → float32 `[N]`, row 0 NaN."""
    cosine = np.full(len(embeddings), np.nan, dtype=np.float32)
    exact = embeddings.astype(np.float64)
    # Rounding may carry the product of equal vectors past 1 by an ulp.
    cosine[1:] = np.clip(np.einsum("nd,nd->n", exact[1:], exact[:-1]), -1.0, 1.0)
    return cosine


def dispersion(embeddings: np.ndarray) -> float:
    """1 − length of the mean unit vector: 0 when all frames look the same, towards 1 when they point apart."""
    return max(0.0, 1.0 - float(np.linalg.norm(embeddings.astype(np.float64).mean(axis=0))))
