"""Place categories per frame and per scene.

Class probabilities are the softmax of the role `scene_classifier`; the indoor/outdoor classes and the 16 groups above
the classes are sums of them after the tables of the catalogue entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples
from trendflow.components.visual import _summary
from trendflow.components.visual._aligned import shots_of
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.components.visual._own_rows import need_upstream
from trendflow.components.visual._prompt_classes import normalised_entropy, top_classes
from trendflow.components.visual._scene_constants import SCENES
from trendflow.components.visual._scene_model import GROUPS, IO_CLASSES, SceneModel
from trendflow.components.visual._scene_prompts import ScenePrompts
from trendflow.components.visual._scenes import Scene, find_scenes, jensen_shannon_distance
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="scene_classification",
    producer_version="1.0.0",
    schema_version="scene_classification_npz_v3",
    hard=("segmenter", "core_clip", "cut_detection"),
    reads=("frames",),
    roles=("scene_classifier",),
    reference=THRESHOLDS.reference,
)

FRAME_TOP, SCENE_TOP = 5, 3


def run(inputs: ComponentInputs) -> Artifact:
    """Class probabilities of every frame `[N, …]` and statistics of every scene `[S, …]`.

    Raises `model_spec_invalid` (not 365 classes, group tables absent, an unknown preprocessing) or
    `artifact_validation_failed` (shots do not cover the samples, core_clip lacks one of the frames).
    """
    samples, model, timer = inputs.need_samples(), need_model(inputs, "scene_classifier"), StageTimer()
    cuts, clip = need_upstream(inputs, "cut_detection"), need_upstream(inputs, "core_clip")
    shot_ids = shots_of(cuts, samples)
    if (np.diff(shot_ids) < 0).any():
        raise TrendFlowError("artifact_validation_failed", "The shots of the samples are not in order.")
    prompts = ScenePrompts.of(clip, samples)
    classifier = SceneModel(model, timer)
    probs = np.concatenate(over_frames(inputs, samples, classifier, model.entry.max_batch_size, timer))
    frames = _frame_arrays(samples, probs)
    io_probs, group_probs = classifier.group_probabilities(probs)
    with timer.stage("scenes"):
        start_s, end_s = cuts.arrays["shot_start_time_s"], cuts.arrays["shot_end_time_s"]
        scenes = find_scenes(probs, shot_ids, start_s, end_s, SCENES.min_scene_s)
    scene_arrays = _scene_arrays(scenes, frames, classifier.class_names)
    arrays = {
        **frames,
        "scene_io_probs": io_probs.astype(np.float32),
        "scene_group_probs": group_probs.astype(np.float32),
        "frame_scene_id": np.repeat(np.arange(len(scenes)), [s.stop - s.first for s in scenes]).astype(np.int32),
        **scene_arrays,
        **prompts.scene_arrays(scenes),
    }
    features = {
        **{f"io_prob_mean__{name}": _summary.mean(io_probs[:, i]) for i, name in enumerate(IO_CLASSES)},
        **{f"group_prob_mean__{name}": _summary.mean(group_probs[:, i]) for i, name in enumerate(GROUPS)},
        "entropy_mean": _summary.mean(frames["frame_entropy"]),
        "top1_prob_mean": _summary.mean(frames["frame_top1_prob"]),
        "high_confidence_ratio": _summary.mean(frames["frame_top1_prob"] >= SCENES.high_confidence),
        "scene_count_per_min": 60.0 * len(scenes) / inputs.video.duration_sec,
        "scene_length_median_s": _summary.median(scene_arrays["length_seconds"]),
        "label_stability_mean": _summary.mean(scene_arrays["label_stability"]),
        "scene_change_mean": _summary.mean(scene_arrays["scene_change_score"]),
        **prompts.features(),
    }
    return Artifact(
        arrays={**arrays, **feature_arrays(features)},
        warnings=prompts.warnings,
        models_used=(model.used,),
        device_used=model.device_used,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "absent_features": prompts.absent() | ({} if len(scenes) > 1 else {"scene_change_mean": "a single scene"}),
            **({"label_vocab_version": vocab} if (vocab := model.entry.label_vocab_version) else {}),
        },
        stage_timings_ms=timer.timings_ms(),
    )


def _frame_arrays(samples: FrameSamples, probs: np.ndarray) -> dict[str, np.ndarray]:
    ids, top = top_classes(probs, FRAME_TOP)
    return {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "frame_topk_ids": ids,
        "frame_topk_probs": top,
        "frame_entropy": normalised_entropy(probs.astype(np.float64)).astype(np.float32),
        "frame_top1_prob": top[:, 0],
        "frame_top1_top2_gap": top[:, 0] - top[:, 1],
    }


def _scene_arrays(
    scenes: list[Scene], frames: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    top1, entropy = frames["frame_topk_ids"][:, 0], frames["frame_entropy"]
    confident = frames["frame_top1_prob"] >= SCENES.high_confidence
    labels = np.array([scene.label for scene in scenes], dtype=np.int32)
    dominant_ids, dominant_probs = top_classes(np.stack([scene.mean for scene in scenes]), SCENE_TOP)
    change = [jensen_shannon_distance(a.mean, b.mean) for a, b in itertools.pairwise(scenes)]

    def over_scenes(values: list[float]) -> np.ndarray:
        return np.array(values, dtype=np.float32)

    def mean_of(values: np.ndarray) -> np.ndarray:
        return over_scenes([_summary.mean(values[scene.rows]) for scene in scenes])

    return {
        "scene_label": np.array([names[label] for label in labels], dtype=np.str_),
        "scene_label_id": labels,
        "start_time_s": np.array([scene.start_s for scene in scenes], dtype=np.float64),
        "end_time_s": np.array([scene.end_s for scene in scenes], dtype=np.float64),
        "length_seconds": over_scenes([scene.length_s for scene in scenes]),
        "mean_score": over_scenes([float(scene.mean[scene.label]) for scene in scenes]),
        "class_entropy_mean": mean_of(entropy),
        "top1_vs_top2_gap_mean": mean_of(frames["frame_top1_top2_gap"]),
        "label_stability": over_scenes([_summary.mean(top1[scene.rows] == scene.label) for scene in scenes]),
        "fraction_high_confidence_frames": mean_of(confident),
        "scene_change_score": over_scenes([float("nan"), *change]),
        "dominant_places_topk_ids": dominant_ids,
        "dominant_places_topk_probs": dominant_probs,
    }
