"""The int8 variants that ship: that they are what their entries and parity reports say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from trendflow.components.base import ComponentInputs, FrameSamples, VideoInfo
from trendflow.components.visual import core_clip
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool
from trendflow.optimisation.parity import LIMITS
from trendflow.optimisation.report import PARITY, read_report, stored_reports
from trendflow.presentation.model_docs import render_variants

VARIANTS = [entry.name for entry in Catalogue.load() if entry.precision == "int8"]
NOT_INHERITED = {
    *("name", "status", "files", "source", "precision", "derived_from", "parity_report_digest", "notes"),
}


class _Frames:
    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self._frames[union_indices]


def _embeddings(pool: ModelPool, entry: CatalogueEntry, frames: np.ndarray) -> np.ndarray:
    samples = FrameSamples(np.arange(len(frames), dtype=np.int32), np.arange(len(frames), dtype=float), _Frames(frames))
    video = VideoInfo(float(len(frames)), frames.shape[2], frames.shape[1], 1.0, 1.0)
    inputs = ComponentInputs(video, {}, samples=samples, models={"image_encoder": pool.get(entry)})
    return core_clip.run(inputs).arrays["frame_embeddings"]


def test_there_is_an_int8_variant() -> None:
    assert "efficientnet_lite0_224_int8" in VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_report_its_entry_pins_and_the_report_allows_it(catalogue: Catalogue, name: str) -> None:
    entry = catalogue[name]
    data = (data_path("models") / PARITY / f"{name}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry.parity_report_digest
    report = read_report(data, SchemaRegistry.load())
    reference = catalogue[str(entry.derived_from)]
    assert report["variant"]["weights_digest"] == entry.weights_digest
    assert report["reference"]["weights_digest"] == reference.weights_digest
    assert report["published"]
    assert report["speed"]["speedup"] > 1
    assert sum(video["calibration_frames"] for video in report["videos"]) >= 200
    assert sum(video["held_out_frames"] for video in report["videos"]) >= 256
    for limit in LIMITS[report["kind"], report["variant"]["precision"]]:
        assert limit.holds(report["metrics"][limit.metric])
    assert max(report["scalars"]["moved_std"].values()) <= 0.1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_facts_of_its_reference(catalogue: Catalogue, name: str) -> None:
    entry = catalogue[name]
    reference = catalogue[str(entry.derived_from)]
    fields = CatalogueEntry.model_fields
    assert {name for name in fields if getattr(entry, name) != getattr(reference, name)} <= NOT_INHERITED
    assert entry.weights_digest != reference.weights_digest


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_holds_most_of_its_weights_in_int8(catalogue: Catalogue, name: str) -> None:
    entry = catalogue[name]
    graph = onnx.load(data_path("models") / entry.source.locator).graph
    layers = [node for node in graph.node if node.op_type == "Conv"]
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    quantised = [
        node
        for node in layers
        if node.input[1] in makers
        and makers[node.input[1]].op_type == "DequantizeLinear"
        and kinds[makers[node.input[1]].input[0]] == onnx.TensorProto.INT8
        and makers[node.input[0]].op_type == "DequantizeLinear"
    ]
    report = read_report((data_path("models") / PARITY / f"{name}.json").read_bytes(), SchemaRegistry.load())
    assert len(layers) == report["method"]["layers"]
    assert len(layers) - len(quantised) == len(report["method"]["layers_in_float"])
    assert len(quantised) > len(layers) / 2


def test_the_int8_image_encoder_agrees_on_frames_of_a_video(
    catalogue: Catalogue, pool: ModelPool, sample_frames: np.ndarray
) -> None:
    frames = sample_frames[4:, ::2, ::2]  # behind the part of this video that calibrated
    variant = catalogue["efficientnet_lite0_224_int8"]
    reference = _embeddings(pool, catalogue[str(variant.derived_from)], frames)
    found = _embeddings(pool, variant, frames)
    agreement = np.diag(cosine_similarity(reference, found))
    assert agreement.mean() >= 0.99
    assert agreement.min() >= 0.97
    assert not np.array_equal(reference, found)


def test_the_page_of_variants_is_current(catalogue: Catalogue, repo_root: Path) -> None:
    page = (repo_root / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == render_variants(catalogue, stored_reports(SchemaRegistry.load()))
