"""What a model is judged by: the component that uses it, its outputs in that component's artifact, its scalars.

A model runs only as its component runs it, so preprocessing, batching and decoding are those of production.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.visual import core_clip, core_depth_midas, core_object_detections
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.optimisation import parity
from trendflow.optimisation.clips import Part
from trendflow.optimisation.parity import Boxes, Kind


@dataclass(frozen=True)
class Judged:
    """How a role is judged. `measure(reference, variant)` compares the outputs of all frames."""

    role: str
    kind: Kind
    spec: ComponentSpec
    run: Callable[[ComponentInputs], Artifact]
    outputs: Callable[[Artifact], Sequence[Any]]
    measure: Callable[[Any, Any], dict[str, float]]
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a model made of some frames: one output per frame, and the scalars of its component per video."""

    outputs: list[Any]
    scalars: list[dict[str, float]]


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


_ROLES = {
    judged.role: judged
    for judged in (
        Judged(
            "image_encoder",
            "embedding",
            core_clip.SPEC,
            core_clip.run,
            _vectors,
            _stacked(parity.embedding_parity),
            {},
        ),
        Judged(
            "object_detector",
            "detector",
            core_object_detections.SPEC,
            core_object_detections.run,
            _boxes,
            parity.detector_parity,
            {},
        ),
        Judged(
            "depth",
            "depth",
            core_depth_midas.SPEC,
            core_depth_midas.run,
            _maps,
            parity.depth_parity,
            {"keep_maps": True},
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
        artifact = judged.run(
            ComponentInputs(
                video=part.clip.video,
                upstream={},
                samples=part.samples,
                models={judged.role: model},
                params=judged.params,
                runner=BatchRunner(model.entry.max_batch_size),
            )
        )
        outputs += judged.outputs(artifact)
        names, values = artifact.arrays["feature_names"].tolist(), artifact.arrays["feature_values"].tolist()
        scalars.append(dict(zip(names, values, strict=True)))
    return Seen(outputs, scalars)
