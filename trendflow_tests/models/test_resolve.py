"""Role → entry → what a run will report, decided before anything runs."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.keys import model_signature
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.resolve import ResolvedModel, planned_models_used, resolve_models
from trendflow_tests.models.builders import catalogue_of, entry_for, place

DATA = b"weights"
MAPPING = {"image_encoder": "tiny"}


def _entry(models_dir: Path, **overrides: Any) -> CatalogueEntry:
    entry = entry_for(DATA, **overrides)
    place(models_dir, entry, DATA)
    return entry


def _code(catalogue: Catalogue, mapping: dict[str, str], roles: set[str], models_dir: Path, **flags: bool) -> str:
    with pytest.raises(TrendFlowError) as caught:
        resolve_models(catalogue, mapping, roles, models_dir, **flags)
    return caught.value.error_code


def test_the_mapping_decides_and_only_needed_roles_are_resolved(tmp_path: Path) -> None:
    entry = _entry(tmp_path)
    resolved = resolve_models(catalogue_of(entry), MAPPING | {"depth": "absent"}, {"image_encoder"}, tmp_path)
    assert set(resolved) == {"image_encoder"}
    assert resolved["image_encoder"].as_row() == {
        "runtime": "inprocess",
        "entry": "tiny",
        "engine": "onnx",
        "precision": "fp32",
        "device": "cpu",
    }


def test_a_model_on_a_server_is_proven_there_and_not_here(tmp_path: Path) -> None:
    """Neither its weights nor its device need to be on this machine; files beside the model do."""
    entry = entry_for(DATA, device_policy="cuda")
    asked: list[CatalogueEntry] = []
    resolved = resolve_models(
        catalogue_of(entry),
        MAPPING,
        {"image_encoder"},
        tmp_path,
        runtimes={"image_encoder": "triton"},
        require_served=asked.append,
    )
    assert [(found.name, found.runtime) for found in asked] == [("tiny", "triton")]
    assert resolved["image_encoder"].as_row()["runtime"] == "triton"
    (used,) = planned_models_used(resolved, ["image_encoder"])
    assert used == replace(entry.model_used("cuda"), runtime="triton")

    with pytest.raises(TrendFlowError, match="model server"):
        resolve_models(catalogue_of(entry), MAPPING, {"image_encoder"}, tmp_path, runtimes={"image_encoder": "triton"})
    minilm = Catalogue.load()["minilm_l6"]
    with pytest.raises(TrendFlowError, match=r"tokenizer\.json"):
        resolve_models(
            Catalogue.load(),
            {"text_encoder": minilm.name},
            {"text_encoder"},
            tmp_path,
            runtimes={"text_encoder": "triton"},
            require_served=asked.append,
        )


def test_a_role_without_entry_is_refused_with_the_reason(catalogue: Catalogue, tmp_path: Path) -> None:
    name, reason = next((name, role.without_entry) for name, role in catalogue.roles.items() if role.without_entry)
    with pytest.raises(TrendFlowError, match=re.escape(str(reason))) as caught:
        resolve_models(catalogue, {}, {name}, tmp_path)
    assert caught.value.error_code == "config_invalid"


def test_every_bad_mapping_has_its_code(tmp_path: Path) -> None:
    good = catalogue_of(_entry(tmp_path))
    assert _code(good, {"image_encoder": "clip"}, {"image_encoder"}, tmp_path) == "model_not_found"
    assert _code(good, {"depth": "tiny"}, {"depth"}, tmp_path) == "config_invalid"
    assert _code(good, {"smell": "tiny"}, {"smell"}, tmp_path) == "config_invalid"


def test_absent_weights_are_found_before_the_run(tmp_path: Path) -> None:
    assert _code(catalogue_of(entry_for(DATA)), MAPPING, {"image_encoder"}, tmp_path) == "weights_missing"


def test_weights_without_a_licence_are_never_mapped(tmp_path: Path) -> None:
    catalogue = catalogue_of(_entry(tmp_path, licence_spdx="NONE", commercial_use="forbidden"))
    assert _code(catalogue, MAPPING, {"image_encoder"}, tmp_path) == "config_invalid"


def test_forbidden_weights_are_refused_in_production_only(tmp_path: Path) -> None:
    catalogue = catalogue_of(_entry(tmp_path, licence_spdx="CC-BY-NC-ND-4.0", commercial_use="forbidden"))
    assert resolve_models(catalogue, MAPPING, {"image_encoder"}, tmp_path)
    assert _code(catalogue, MAPPING, {"image_encoder"}, tmp_path, production=True) == "config_invalid"


def test_a_variant_needs_the_report_on_what_it_loses(tmp_path: Path) -> None:
    bare = catalogue_of(_entry(tmp_path, precision="int8"))
    with pytest.raises(TrendFlowError, match="has no parity report") as caught:
        resolve_models(bare, MAPPING, {"image_encoder"}, tmp_path)
    assert caught.value.error_code == "config_invalid"
    proven = catalogue_of(_entry(tmp_path, precision="int8", parity_report_digest="a" * 64))
    assert resolve_models(proven, MAPPING, {"image_encoder"}, tmp_path)["image_encoder"].precision == "int8"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this host can run CUDA")
def test_a_cuda_entry_on_a_host_without_cuda_stops_the_run(tmp_path: Path) -> None:
    catalogue = catalogue_of(_entry(tmp_path, device_policy="cuda"))
    assert _code(catalogue, MAPPING, {"image_encoder"}, tmp_path) == "device_unavailable"


def test_who_only_accepts_runs_needs_no_device_and_no_server_but_the_weights(tmp_path: Path) -> None:
    """No runtime executes this engine, on whichever device: every look at what is here would fail."""
    entry = _entry(tmp_path, engine="tflite", device_policy="cuda")
    catalogue = catalogue_of(entry)
    assert _code(catalogue, MAPPING, {"image_encoder"}, tmp_path) == "dependency_missing"
    accepting = partial(resolve_models, catalogue, executed_here=False)
    assert accepting(MAPPING, {"image_encoder"}, tmp_path)["image_encoder"].entry == entry
    served = accepting(MAPPING, {"image_encoder"}, tmp_path, runtimes={"image_encoder": "triton"})
    assert served["image_encoder"].runtime == "triton"
    for mapping, models_dir, code in (
        (MAPPING, tmp_path / "empty", "weights_missing"),
        ({}, tmp_path, "config_invalid"),
        ({"image_encoder": "absent"}, tmp_path, "model_not_found"),
    ):
        with pytest.raises(TrendFlowError, match=code):
            accepting(mapping, {"image_encoder"}, models_dir)


def test_planned_models_are_unique_and_in_signature_order(tmp_path: Path) -> None:
    both = _entry(tmp_path, name="both", roles=["face_detector", "face_landmarks"])
    first = _entry(tmp_path, name="a_first")
    mapping = {"face_detector": "both", "face_landmarks": "both", "image_encoder": "a_first"}
    resolved = resolve_models(catalogue_of(both, first), mapping, mapping, tmp_path)
    planned = planned_models_used(resolved, ["face_landmarks", "face_detector", "image_encoder"])
    assert planned == (first.model_used("cpu"), both.model_used("cpu"))
    assert planned_models_used(resolved, []) == ()
    with pytest.raises(TrendFlowError, match="config_invalid"):
        planned_models_used(resolved, ["depth"])


def _signature(entry: CatalogueEntry) -> str:
    resolved = {"image_encoder": ResolvedModel(entry, entry.engine, entry.precision, entry.device_policy)}
    return model_signature(planned_models_used(resolved, resolved))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": "1.1"},
        {"files": [{"path": "model.onnx", "sha256": "1" * 64, "bytes": 1}]},
        {"runtime": "triton"},
        {"engine": "torch", "architecture": "efficientnet_lite0"},
        {"precision": "fp16"},
        {"device_policy": "cuda"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_what_makes_results_changes_the_signature(change: dict[str, Any]) -> None:
    assert _signature(entry_for(DATA, **change)) != _signature(entry_for(DATA))


@pytest.mark.parametrize(
    "change",
    [{"max_batch_size": 1}, {"deadline_ms": 1}, {"warmup": 3}, {"gpu_memory_per_task_mb": 9}, {"cpu_rss_peak_mb": 9}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_how_work_is_cut_and_timed_changes_no_signature(change: dict[str, Any]) -> None:
    assert _signature(entry_for(DATA, **change)) == _signature(entry_for(DATA))


@pytest.mark.parametrize("engine", ["tflite", "ctranslate2"])
def test_an_engine_that_no_runtime_executes_is_found_before_the_run(tmp_path: Path, engine: str) -> None:
    catalogue = catalogue_of(_entry(tmp_path, engine=engine))
    assert _code(catalogue, MAPPING, {"image_encoder"}, tmp_path) == "dependency_missing"


def test_what_is_planned_is_what_the_loaded_model_reports(catalogue: Catalogue, models_dir: Path, pool: Any) -> None:
    mapping = {"face_detector": "centerface_640", "face_landmarks": "facemesh_192"}
    resolved = resolve_models(catalogue, mapping, mapping, models_dir)
    reported = {pool.get(model.entry).used for model in resolved.values()}
    assert set(planned_models_used(resolved, mapping)) == reported
