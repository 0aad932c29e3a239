"""What a model is judged by: the component that uses it, its outputs there, the component's scalars.

A model runs only as its component runs it, so preprocessing, batching and decoding are those of production. Outputs
come from the artifact, or from the calls of the model where the component stores no more than statistics of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, Upstream
from trendflow.components.visual import (
    core_clip,
    core_depth_midas,
    core_object_detections,
    core_optical_flow,
    scene_classification,
)
from trendflow.components.visual._prompt_classes import softmax
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.models.loaded import WrappedHandle
from trendflow.optimisation import parity
from trendflow.optimisation.clips import Part
from trendflow.optimisation.parity import Boxes, Kind


def _no_upstream(part: Part) -> dict[str, Upstream]:
    return {}


@dataclass(frozen=True)
class Judged:
    """How a role is judged. `measure(reference, variant)` compares the outputs of all frames.

    One of `of_artifact` and `of_call` gives the outputs, one per frame or pair of frames.
    """

    role: str
    kind: Kind
    spec: ComponentSpec
    run: Callable[[ComponentInputs], Artifact]
    measure: Callable[[Any, Any], dict[str, float]]
    of_artifact: Callable[[Artifact], Sequence[Any]] | None = None
    of_call: Callable[[Mapping[str, np.ndarray]], Sequence[Any]] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    upstream: Callable[[Part], Mapping[str, Upstream]] = _no_upstream


@dataclass(frozen=True)
class Seen:
    """What a model made of some frames: its outputs, and the scalars of its component per video."""

    outputs: list[Any]
    scalars: list[dict[str, float]]


class _Listener(WrappedHandle):
    """A model whose answers are kept, as the outputs that it is judged by."""

    def __init__(self, model: ModelHandle, of_call: Callable[[Mapping[str, np.ndarray]], Sequence[Any]]) -> None:
        super().__init__(model)
        self._of_call = of_call
        self.heard: list[Any] = []

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = super().infer(inputs)
        self.heard += self._of_call(outputs)
        return outputs


def _boxes(artifact: Artifact) -> list[Boxes]:
    arrays, splits = artifact.arrays, artifact.arrays["det_row_splits"]
    return [
        Boxes(*(arrays[name][start:stop] for name in ("boxes", "scores", "class_ids")))
        for start, stop in pairwise(splits)
    ]


def _stacked(measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> Callable[[Any, Any], dict[str, float]]:
    return lambda reference, variant: measure(np.stack(reference), np.stack(variant))


def _maps(artifact: Artifact) -> list[np.ndarray]:
    return list(artifact.arrays["depth_maps_norm"])


def _vectors(artifact: Artifact) -> list[np.ndarray]:
    return list(artifact.arrays["frame_embeddings"])


def _probabilities(outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    (logits,) = outputs.values()
    return list(softmax(logits.astype(np.float32)))


def _fields(outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    (flow,) = outputs.values()
    return list(flow)


def _one_shot(part: Part) -> dict[str, Upstream]:
    """One shot from the first to the last frame, and no prompts: what the classifier alone decides is left."""
    indices, times_s = part.samples.frame_indices, part.samples.times_s
    shot = {
        "union_shot_ids": np.zeros(int(indices.max()) + 1, dtype=np.int32),
        "shot_start_time_s": times_s[:1],
        "shot_end_time_s": times_s[-1:],
    }
    frames = {"frame_indices": indices, "times_s": times_s}
    return {
        name: Upstream(name, "ok", None, arrays, {})
        for name, arrays in (("cut_detection", shot), ("core_clip", frames))
    }


_ROLES = {
    judged.role: judged
    for judged in (
        Judged(
            "image_encoder",
            "embedding",
            core_clip.SPEC,
            core_clip.run,
            _stacked(parity.embedding_parity),
            of_artifact=_vectors,
        ),
        Judged(
            "object_detector",
            "detector",
            core_object_detections.SPEC,
            core_object_detections.run,
            parity.detector_parity,
            of_artifact=_boxes,
        ),
        Judged(
            "depth",
            "depth",
            core_depth_midas.SPEC,
            core_depth_midas.run,
            _stacked(parity.depth_parity),
            of_artifact=_maps,
            params={"keep_maps": True},
        ),
        Judged(
            "scene_classifier",
            "classifier",
            scene_classification.SPEC,
            scene_classification.run,
            _stacked(parity.classifier_parity),
            of_call=_probabilities,
            upstream=_one_shot,
        ),
        Judged(
            "optical_flow",
            "flow",
            core_optical_flow.SPEC,
            core_optical_flow.run,
            _stacked(parity.flow_parity),
            of_call=_fields,
        ),
    )
}


def judged_by(entry: CatalogueEntry) -> Judged:
    """How the outputs of an entry are compared. Raises `config_invalid` for a role whose component needs more."""
    for role in entry.roles:
        if role in _ROLES:
            return _ROLES[role]
    raise TrendFlowError(
        "config_invalid",
        f"{entry.name} serves {', '.join(entry.roles)}, and parity can be measured for {', '.join(_ROLES)} only.",
        entry=entry.name,
    )


def see(judged: Judged, model: ModelHandle, parts: Sequence[Part]) -> Seen:
    """Run the component with `model` over every part. Raises what the component raises."""
    outputs: list[Any] = []
    scalars = []
    for part in parts:
        listener = None if judged.of_call is None else _Listener(model, judged.of_call)
        artifact = judged.run(
            ComponentInputs(
                video=part.clip.video,
                upstream=judged.upstream(part),
                samples=part.samples,
                models={judged.role: listener or model},
                params=judged.params,
                runner=BatchRunner(model.entry.max_batch_size),
            )
        )
        if listener is not None:
            outputs += listener.heard
        elif judged.of_artifact is not None:
            outputs += judged.of_artifact(artifact)
        names, values = artifact.arrays["feature_names"].tolist(), artifact.arrays["feature_values"].tolist()
        scalars.append(dict(zip(names, values, strict=True)))
    return Seen(outputs, scalars)
