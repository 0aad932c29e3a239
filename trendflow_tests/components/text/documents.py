"""Synthetic documents and a bench that runs the text component on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, Upstream, VideoInfo
from trendflow.components.text import text_processor
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.video_document import Transcript, TranscriptSegment, VideoDocument
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.schema_check import schema_problems


def transcript(*segments: tuple[float, float, str] | tuple[float, float, str, float]) -> Transcript:
    return Transcript("platform", "2026-01-01T00:00:00Z", tuple(TranscriptSegment(*segment) for segment in segments))


def features(artifact: Artifact) -> dict[str, float]:
    return dict(zip(artifact.arrays["feature_names"].tolist(), artifact.arrays["feature_values"].tolist(), strict=True))


def differing(first: dict[str, float], second: dict[str, float]) -> set[str]:
    """Names of the features that differ; NaN equals NaN."""
    return {name for name in first if not np.array_equal(first[name], second[name], equal_nan=True)}


@dataclass(frozen=True)
class Bench:
    """Runs the component with one text encoder and holds every result against its schema."""

    encoder: ModelHandle

    def inputs(
        self, document: VideoDocument | None, *, duration_s: float = 60.0, coverage: float = 1.0
    ) -> ComponentInputs:
        segmenter = Upstream("segmenter", "ok", None, feature_arrays({"audio_coverage_ratio": coverage}), {})
        return ComponentInputs(
            video=VideoInfo(duration_s, 320, 180, 25.0, 25.0),
            upstream={"segmenter": segmenter},
            document=document,
            models={"text_encoder": self.encoder},
        )

    def run(self, document: VideoDocument, **facts: float) -> Artifact:
        artifact = text_processor.run(self.inputs(document, **facts))
        assert schema_problems(text_processor, artifact) == []
        return artifact

    def features(self, document: VideoDocument, **facts: float) -> dict[str, float]:
        return features(self.run(document, **facts))

    def title(self, title: str) -> dict[str, float]:
        """The title features of a title alone, without their common prefix."""
        found = self.features(VideoDocument(title=title))
        prefix = "tp_lex_title_"
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
