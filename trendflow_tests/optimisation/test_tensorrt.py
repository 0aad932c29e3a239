"""Decisions around TensorRT plans, with a SIMULATED library, a FAKE GPU, RANDOM weights and SYNTHETIC frames."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import yaml

from trendflow.commands import optimise as command
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.loaded import WrappedHandle
from trendflow.models.plan_identity import PlanIdentity
from trendflow.models.pool import ModelPool
from trendflow.models.resolve import resolve_models
from trendflow.models.tensorrt_runtime import TensorRTHandle
from trendflow.optimisation.catalogue_entry import render_entry
from trendflow.optimisation.pipeline import Candidate, Optimised, Workshop, optimise
from trendflow.optimisation.tensorrt import WORKSPACE_SHARE, PlanBuilder
from trendflow.presentation.model_docs import render_variants
from trendflow_tests.models.builders import catalogue_of, entry_values, place
from trendflow_tests.models.fake_device import FACTS, MEMORY
from trendflow_tests.models.simulated_tensorrt import TIMED, VERSION, HostMemory, Library, install
from trendflow_tests.optimisation.tiny import SIDE, clips, encoder_bytes, placed_encoder

pytest.importorskip("torch")

HERE = PlanIdentity(gpu="Fake GPU 16GB", compute_capability="9.0", driver="580.1", tensorrt=VERSION)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return install(monkeypatch)


@pytest.fixture
def builder(library: Library, tmp_path: Path) -> PlanBuilder:
    return PlanBuilder.here(placed_encoder(tmp_path))


def header_of(plan: bytes) -> dict[str, Any]:
    found = json.loads(plan.partition(b"\n")[0])
    assert isinstance(found, dict)
    return found


def plan_entry(data: bytes, models_dir: Path, identity: PlanIdentity = HERE, **changes: Any) -> CatalogueEntry:
    """A catalogue entry for a plan of the tiny encoder, its file in place."""
    reference = placed_encoder(models_dir)
    values = reference.model_dump() | {
        "name": f"tiny_random_fp16_{identity.tag}",
        "files": [{"path": "model.plan", "sha256": sha256(data).hexdigest(), "bytes": len(data)}],
        "engine": "tensorrt",
        "precision": "fp16",
        "device_policy": "cuda",
        "plan": identity.model_dump(),
        "derived_from": "tiny_random",
        "parity_report_digest": "a" * 64,
    }
    entry = CatalogueEntry.model_validate(values | changes)
    place(models_dir, entry, data)
    return entry


def complaint(call: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


# --- building ---------------------------------------------------------------------------------------------------------


def test_a_simulated_build_takes_every_batch_the_entry_allows_and_types_from_the_graph(
    library: Library, builder: PlanBuilder, tmp_path: Path
) -> None:
    entry = placed_encoder(tmp_path)
    plan, workspace = builder.build(entry, encoder_bytes())
    assert workspace == MEMORY.free_mb * 1e6 * WORKSPACE_SHARE
    image = [3, SIDE, SIDE]
    assert header_of(plan) == {
        "version": VERSION,
        "strongly_typed": True,
        "tf32": False,
        "workspace": workspace,
        "profile": {"images": [[1, *image], [entry.max_batch_size, *image], [entry.max_batch_size, *image]]},
    }


def test_timings_of_a_simulated_build_serve_the_next_one_and_foreign_ones_none(
    builder: PlanBuilder, tmp_path: Path
) -> None:
    entry = placed_encoder(tmp_path)
    builder.build(entry, encoder_bytes())
    assert builder.timing == TIMED + b"one build;"
    builder.build(entry, encoder_bytes())
    assert builder.timing == TIMED + b"one build;one build;"
    for useless in (b"timings of another GPU;", b"damaged"):
        builder.timing = useless
        builder.build(entry, encoder_bytes())
        assert builder.timing == TIMED + b"one build;"


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("Error Code 2: OutOfMemory (no further information)", "out_of_memory", "ran out of memory"),
        ("Error Code 10: could not find any implementation", "model_load_failed", "could not find any implementation"),
    ],
)
def test_a_simulated_build_that_fails_says_why(
    library: Library, builder: PlanBuilder, tmp_path: Path, said: str, code: str, words: str
) -> None:
    library.refuses = said
    error = complaint(lambda: builder.build(placed_encoder(tmp_path), encoder_bytes()))
    assert error.error_code == code
    assert words in error.message
    assert builder.timing == b""


def test_a_file_that_simulated_tensorrt_cannot_read_is_named(builder: PlanBuilder, tmp_path: Path) -> None:
    error = complaint(lambda: builder.build(placed_encoder(tmp_path), b"no model"))
    assert error.error_code == "model_load_failed"
    assert "cannot read tiny_random: Failed to parse the model. (simulated)." in error.message


def test_a_model_with_other_open_sizes_than_the_batch_gets_no_plan(library: Library) -> None:
    entry = Catalogue.load()["centerface_640"]
    builder = PlanBuilder.here(entry)
    shop: Any = type("Shop", (), {"entry": entry})
    error = complaint(lambda: next(builder.candidates(shop)))
    assert error.error_code == "config_invalid"
    assert "takes inputs of any H, W" in error.message


# --- from the reference to the judged plan ----------------------------------------------------------------------------


@pytest.fixture
def made(builder: PlanBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Optimised:
    def version(package: str) -> str:
        # On a host with a GPU the module onnxruntime comes with the distribution onnxruntime-gpu.
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    return optimise(placed_encoder(tmp_path), tmp_path, clips(), builder.candidates)


def test_the_report_on_a_simulated_plan_carries_what_it_was_built_for_and_the_limits_of_fp16(made: Optimised) -> None:
    report = made.report
    assert report["plan"] == {
        "gpu": FACTS.gpu,
        "compute_capability": FACTS.compute_capability,
        "driver": FACTS.driver,
        "tensorrt": VERSION,
    }
    assert report["variant"]["name"] == made.name == f"tiny_random_fp16_{HERE.tag}"
    assert report["variant"]["precision"] == "fp16"
    assert {limit["metric"]: limit["bound"] for limit in report["limits"]} == {
        "cosine_mean": 0.999,
        "cosine_min": 0.995,
    }
    assert all(limit["holds"] for limit in report["limits"])
    assert "batches 1 to 8, workspace 7750 MB" in report["method"]["format"]
    assert report["versions"]["onnxruntime"] == ort.__version__
    initializers = ort.InferenceSession(made.data.partition(b"\n")[2])
    assert [node.type for node in initializers.get_inputs()] == ["tensor(float)"]


def test_where_fp16_misses_a_limit_the_simulated_plan_is_fp32(builder: PlanBuilder, tmp_path: Path) -> None:
    """Weights of the first layer lie above 65 504 and those of the second below 6e-8, where float16 ends."""
    notes: list[str] = []
    made = optimise(placed_encoder(tmp_path, gain=1e9), tmp_path, clips(), builder.candidates, notes.append)
    assert any(f"tiny_random_fp16_{HERE.tag} does not agree: cosine_mean is" in note for note in notes)
    assert made.report["variant"]["precision"] == "fp32"
    assert [limit["bound"] for limit in made.report["limits"]] == [0.9999, 0.9999]
    assert all(limit["holds"] for limit in made.report["limits"])


def test_a_simulated_plan_whose_values_are_not_finite_gives_way_to_the_next(
    builder: PlanBuilder, tmp_path: Path
) -> None:
    class Overflown(WrappedHandle):
        def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            raise TrendFlowError("artifact_validation_failed", "Output 'embeddings' has values that are not finite.")

    def overflowing(shop: Workshop, last: int) -> Iterator[Candidate]:
        for number, candidate in enumerate(builder.candidates(shop)):
            yield replace(candidate, model=Overflown(candidate.model)) if number <= last else candidate

    entry = placed_encoder(tmp_path)
    made = optimise(entry, tmp_path, clips(), lambda shop: overflowing(shop, 0))
    assert made.report["variant"]["precision"] == "fp32"
    error = complaint(lambda: optimise(entry, tmp_path, clips(), lambda shop: overflowing(shop, 1)))
    assert error.error_code == "artifact_validation_failed"


def test_what_is_written_is_an_entry_that_the_catalogue_takes_and_the_pool_runs(
    made: Optimised, tmp_path: Path, library: Library
) -> None:
    reference = placed_encoder(tmp_path)
    published = Optimised(made.name, made.data, {**made.report, "published": True, "reasons": []})
    out = tmp_path / "out"
    command.publish(published, out)
    assert {file.name for file in out.iterdir()} == {
        f"{made.name}{suffix}" for suffix in (".parity.json", ".plan", ".catalogue.yaml")
    }
    values = reference.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    text = yaml.safe_dump({"entries": {"tiny_random": values}}, sort_keys=False)
    text = text.replace("  tiny_random:", "  tiny_random: &tiny_random")
    roles = "version: model_catalogue_v1\nroles: {image_encoder: {used_by: [core_clip]}}\n"
    catalogue = Catalogue.parse(roles + text + (out / f"{made.name}.catalogue.yaml").read_text())
    entry = catalogue[made.name]
    assert (entry.engine, entry.device_policy, entry.plan) == ("tensorrt", "cuda", HERE)
    assert (entry.inputs, entry.outputs, entry.max_batch_size) == (
        reference.inputs,
        reference.outputs,
        reference.max_batch_size,
    )
    place(tmp_path, entry, made.data)
    handle = ModelPool(tmp_path).get(entry)
    images = np.random.default_rng(3).normal(size=(5, 3, SIDE, SIDE)).astype(np.float32)
    expected = ort.InferenceSession(encoder_bytes()).run(None, {"images": images})[0]
    np.testing.assert_allclose(handle.infer({"images": images})["embeddings"], expected, rtol=1e-2, atol=1e-3)
    assert (handle.used.engine, handle.used.precision, handle.device_used) == ("tensorrt", "fp16", "cuda:0")
    assert render_entry(made.report, "0" * 64, "0" * 64).count("plan:") == 1


def test_the_page_of_variants_says_where_a_simulated_plan_runs(made: Optimised, tmp_path: Path) -> None:
    page = render_variants(catalogue_of(placed_encoder(tmp_path)), [made.report])
    assert "on Fake GPU 16GB with driver 580.1 and TensorRT 11.4.0.106, where alone it runs." in page


def test_the_command_keeps_the_timings_for_the_next_build(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = placed_encoder(tmp_path / "models")
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRENDFLOW_MODELS", str(tmp_path / "models"))
    catalogue = catalogue_of(entry)
    monkeypatch.setattr(Catalogue, "load", lambda: catalogue)
    monkeypatch.setattr(command, "_clips", lambda *given: clips())
    kept = tmp_path / "home" / "tensorrt" / f"{HERE.tag}.timings"
    for builds in (1, 2):
        # Whether the simulated plan is faster than the same file in onnxruntime is chance, and not the point.
        with suppress(TrendFlowError):
            command.optimise(entry.name, "tensorrt", [], None, tmp_path / "out")
        assert kept.read_bytes() == TIMED + b"one build;" * builds


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(builder: PlanBuilder, tmp_path: Path) -> bytes:
    return builder.build(placed_encoder(tmp_path), encoder_bytes())[0]


@pytest.mark.parametrize(
    "elsewhere",
    [{"gpu": "Another GPU"}, {"compute_capability": "8.6"}, {"driver": "570.2"}, {"tensorrt": "11.3.0.1"}],
    ids=lambda change: next(iter(change)),
)
def test_a_simulated_plan_of_another_gpu_driver_or_release_is_refused_before_it_is_read(
    plan: bytes, tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    other = HERE.model_copy(update=elsewhere)
    assert other.tag != HERE.tag
    entry = plan_entry(b"not even a plan", tmp_path, other)
    error = complaint(lambda: ModelPool(tmp_path).get(entry))
    assert error.error_code == "model_load_failed"
    assert f"was built for {other} and this is {HERE}" in error.message
    assert "trendflow models optimise tiny_random --to tensorrt" in error.message
    roles = {"image_encoder": entry.name}
    catalogue = catalogue_of(entry)
    assert complaint(lambda: resolve_models(catalogue, roles, roles, tmp_path)).error_code == "model_load_failed"


def test_a_file_that_is_no_plan_is_refused(plan: bytes, tmp_path: Path) -> None:
    entry = plan_entry(b"no plan", tmp_path)
    error = complaint(lambda: ModelPool(tmp_path).get(entry))
    assert (error.error_code, error.message) == ("model_load_failed", f"TensorRT refuses the plan of {entry.name}.")


def test_a_plan_of_other_tensors_than_the_entrys_is_refused(plan: bytes, tmp_path: Path) -> None:
    for changes, words in (
        ({"outputs": [{"name": "other", "dtype": "float32", "shape": ["B", 24], "layout": "NC"}]}, "has the tensors"),
        (
            {"outputs": [{"name": "embeddings", "dtype": "float32", "shape": ["B", 25], "layout": "NC"}]},
            "has 'embeddings' as float32",
        ),
        (
            {"outputs": [{"name": "embeddings", "dtype": "float16", "shape": ["B", 24], "layout": "NC"}]},
            "its entry says float16",
        ),
    ):
        entry = plan_entry(plan, tmp_path, embedding_dim=None, **changes)
        error = complaint(lambda entry=entry: ModelPool(tmp_path).get(entry))
        assert error.error_code == "model_spec_invalid"
        assert words in error.message


def zeros(batch: int) -> dict[str, np.ndarray]:
    return {"images": np.zeros((batch, 3, SIDE, SIDE), np.float32)}


def test_memory_that_a_simulated_plan_lacks_is_out_of_memory_and_a_smaller_batch_runs(
    library: Library, plan: bytes, tmp_path: Path
) -> None:
    handle = ModelPool(tmp_path).get(plan_entry(plan, tmp_path))
    library.fits = 3
    error = complaint(lambda: handle.infer(zeros(4)))
    assert (error.error_code, error.detail["batch"]) == ("out_of_memory", 4)
    assert HostMemory.released == [0], "memory is given back when nothing of the batch is left"
    assert handle.infer(zeros(3))["embeddings"].shape == (3, 24)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", "device_unavailable"),
        ("Error Code 3: API Usage Error", "model_spec_invalid"),
    ],
)
def test_failures_of_a_simulated_plan_have_the_names_of_the_project(
    library: Library, plan: bytes, tmp_path: Path, said: str, code: str
) -> None:
    handle = ModelPool(tmp_path).get(plan_entry(plan, tmp_path))
    library.fails = said
    assert complaint(lambda: handle.infer(zeros(1))).error_code == code
    library.fails = None
    assert complaint(lambda: handle.infer(zeros(9))).error_code == "model_spec_invalid"  # beyond max_batch_size
    handle.close()
    assert complaint(lambda: handle.infer(zeros(1))).error_code == "model_load_failed"


# --- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": None}, "says what it was built for"),
        ({"engine": "onnx"}, "says what it was built for"),
        ({"name": "tiny_plan"}, "ends with"),
        ({"device_policy": "cpu"}, "runs on cuda only"),
        (
            {"source": {"kind": "url", "locator": "https://example.org/{revision}/{path}", "revision": "1.0"}},
            "never downloaded",
        ),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_an_entry_for_a_plan_says_what_it_was_built_for(changes: dict[str, Any], words: str) -> None:
    good = entry_values(
        name=f"tiny_{HERE.tag}", engine="tensorrt", device_policy="cuda", plan=HERE.model_dump(), precision="fp16"
    )
    assert CatalogueEntry.model_validate(good).plan == HERE
    with pytest.raises(ValueError, match=words):
        CatalogueEntry.model_validate(good | changes)


# --- this machine -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="what a host without a GPU says")
def test_without_a_gpu_nothing_is_built_and_one_sentence_says_so(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRENDFLOW_MODELS", str(models_dir))
    error = complaint(lambda: command.optimise("nanodet_m_416", "tensorrt", [], None, tmp_path / "out"))
    assert error.error_code == "device_unavailable"
    assert "is built on the GPU that will run it, and none can be used here" in error.message
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_extra_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    error = complaint(lambda: PlanBuilder.here(Catalogue.load()["nanodet_m_416"]))
    assert error.error_code == "dependency_missing"
    assert "pip install trendflow[tensorrt]" in error.message


def test_a_handle_is_loaded_by_the_pool_alone(plan: bytes, tmp_path: Path) -> None:
    entry = plan_entry(plan, tmp_path)
    pool = ModelPool(tmp_path)
    assert isinstance(pool.get(entry), TensorRTHandle)
    assert pool.get(entry, "cuda:0") is pool.get(entry, "cuda"), "one load for the two names of one device"
