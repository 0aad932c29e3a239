"""Image embedding of every primary-group frame, and how much the frame is like the prompts of the prompt bank.

The embedding is the output of the role `image_encoder`, L2-normalised here; its width is a fact of the catalogue
entry. Prompt probabilities need the text tower of the same checkpoint (role `prompt_encoder`). Without it the prompt
arrays are absent and the prompt features NaN.
"""

from __future__ import annotations

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec, Param
from trendflow.components.visual import _summary
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.components.visual._prompt_scores import PromptScores, prompt_scores
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import PROMPTS
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.models.interface import ModelHandle, PromptEncoder
from trendflow.models.vectors import unit_rows

SPEC = ComponentSpec(
    name="core_clip",
    producer_version="1.0.0",
    schema_version="core_clip_npz_v3",
    hard=("segmenter",),
    reads=("frames",),
    roles=("image_encoder",),
    optional_roles=("prompt_encoder",),
    params={"label_places": Param(False, "Also write the place categories that are most like each frame.")},
    reference={**THRESHOLDS.reference, **PROMPTS.reference},
)


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays `frame_embeddings` [N, D] and `consecutive_cosine_prev` [N] with the frames' indices and times.

    With a prompt encoder also names, cosines and probabilities [N, P] of every prompt set. Raises `model_spec_invalid`
    (width is not the entry's, text tower of another checkpoint) or `artifact_validation_failed` (a zero or non-finite
    vector).
    """
    samples, encoder, timer = inputs.need_samples(), need_model(inputs, "image_encoder"), StageTimer()
    text_tower = _text_tower(inputs)
    embed = _Embedder(encoder, timer)
    parts = over_frames(inputs, samples, embed, encoder.entry.max_batch_size, timer)
    embeddings = np.concatenate(parts)
    prompts = PromptScores()
    if text_tower is not None:
        with timer.stage("prompts"):
            places = bool(inputs.params.get("label_places", SPEC.params["label_places"].default))
            prompts = prompt_scores(inputs, text_tower, encoder.entry, embeddings, label_places=places)
    features = {
        "pair_dt_median_s": _summary.median(np.diff(samples.times_s)),
        "embedding_dispersion": dispersion(embeddings),
        **prompts.features,
    }
    return Artifact(
        arrays={
            "frame_indices": samples.frame_indices.astype(np.int32),
            "times_s": samples.times_s.astype(np.float64),
            "frame_embeddings": embeddings,
            "consecutive_cosine_prev": consecutive_cosine(embeddings),
            **prompts.arrays,
            **feature_arrays(features),
        },
        warnings=prompts.warnings,
        models_used=(encoder.used,) if text_tower is None else (encoder.used, text_tower.used),
        device_used=encoder.device_used,
        meta={
            "absent_features": {
                **prompts.absent,
                **({} if len(samples) > 1 else {"pair_dt_median_s": "a single frame"}),
            },
            "thresholds_version": THRESHOLDS.version,
            **({} if text_tower is None else {"prompts_version": PROMPTS.version}),
        },
        stage_timings_ms=timer.timings_ms(),
    )


def _text_tower(inputs: ComponentInputs) -> PromptEncoder | None:
    handle = inputs.models.get("prompt_encoder")
    if handle is not None and not isinstance(handle, PromptEncoder):
        raise TrendFlowError("model_spec_invalid", f"The entry {handle.entry.name} describes no text tower.")
    return handle


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
        return unit_rows(raw, self._encoder.entry.name)


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
