"""The int8 variants that ship: that they are what their entries and parity reports say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from trendflow.components.base import ComponentInputs, FrameSamples, VideoInfo
from trendflow.components.visual import core_clip, core_object_detections
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


def _inputs(pool: ModelPool, entry: CatalogueEntry, frames: np.ndarray) -> ComponentInputs:
    samples = FrameSamples(np.arange(len(frames), dtype=np.int32), np.arange(len(frames), dtype=float), _Frames(frames))
    video = VideoInfo(float(len(frames)), frames.shape[2], frames.shape[1], 1.0, 1.0)
    return ComponentInputs(video, {}, samples=samples, models={entry.roles[0]: pool.get(entry)})


def _embeddings(pool: ModelPool, entry: CatalogueEntry, frames: np.ndarray) -> np.ndarray:
    return core_clip.run(_inputs(pool, entry, frames)).arrays["frame_embeddings"]


def test_the_profile_for_the_cpu_can_choose_an_image_encoder_and_an_object_detector() -> None:
    assert {"efficientnet_lite0_224_int8", "nanodet_m_416_int8"} <= set(VARIANTS)


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
def test_a_variant_computes_in_int8_all_but_the_layers_that_its_report_names(catalogue: Catalogue, name: str) -> None:
    entry = catalogue[name]
    graph = onnx.load(data_path("models") / entry.source.locator).graph
    layers = [node for node in graph.node if node.op_type == "Conv"]
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    quantised = [
        node.name
        for node in layers
        if node.input[1] in makers
        and makers[node.input[1]].op_type == "DequantizeLinear"
        and kinds[makers[node.input[1]].input[0]] == onnx.TensorProto.INT8
        and makers[node.input[0]].op_type == "DequantizeLinear"
    ]
    report = read_report((data_path("models") / PARITY / f"{name}.json").read_bytes(), SchemaRegistry.load())
    assert len(layers) == report["method"]["layers"]
    assert {node.name for node in layers} - set(quantised) == set(report["method"]["layers_in_float"])
    assert quantised
    assert entry.files[0].bytes <= int(catalogue[str(entry.derived_from)].files[0].bytes or 0)


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


def test_the_int8_object_detector_finds_what_its_reference_finds(
    catalogue: Catalogue, pool: ModelPool, sample_frames: np.ndarray
) -> None:
    frames = sample_frames[4:, ::2, ::2]  # behind the part of this video that calibrated
    variant = catalogue["nanodet_m_416_int8"]
    reference, found = (
        core_object_detections.run(_inputs(pool, entry, frames)).arrays
        for entry in (catalogue[str(variant.derived_from)], variant)
    )
    np.testing.assert_array_equal(found["person_count"], reference["person_count"])
    people = [arrays["boxes"][arrays["class_ids"] == 0] for arrays in (reference, found)]
    assert len(people[0]) == reference["person_count"].sum() > 0
    np.testing.assert_allclose(people[1], people[0], atol=8)  # of 640 pixels


def test_the_page_of_variants_is_current(catalogue: Catalogue, repo_root: Path) -> None:
    page = (repo_root / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == render_variants(catalogue, stored_reports(SchemaRegistry.load()))
