"""The generated model repository, read back with Triton's own protocol buffers."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup
from tritonclient.utils import np_to_triton_dtype

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.store import WeightsStore
from trendflow.models.triton.config import difference
from trendflow.models.triton.repository import config_text, plan_repository, write_repository
from trendflow_tests.models.builders import entry_values, place
from trendflow_tests.triton import STARTER, double_entry, made_here


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


@st.composite
def entries(draw: st.DrawFn) -> CatalogueEntry:
    """Entries with any tensors, batching and device that Triton can serve."""
    batch = draw(st.sampled_from([1, 2, 8, 32]))
    first = "B" if batch > 1 else draw(st.sampled_from(["B", 1]))
    sizes = st.one_of(st.integers(1, 2000), st.sampled_from(["H", "W", "H/4"]))
    dtypes = st.sampled_from(["float32", "float16", "uint8", "int8", "int32", "int64", "bool"])
    names = st.text(st.sampled_from("abz:_.-0\"\\'\n é"), min_size=1, max_size=8)

    def tensors(kind: str) -> list[dict[str, Any]]:
        chosen = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        return [
            {
                "name": name,
                "dtype": draw(dtypes),
                "shape": [first, *draw(st.lists(sizes, min_size=1, max_size=3))],
                "layout": kind,
            }
            for name in chosen
        ]

    values = entry_values(
        max_batch_size=batch,
        inputs=tensors("in"),
        outputs=tensors("out"),
        device_policy=draw(st.sampled_from(["cpu", "cuda"])),
        warmup=draw(st.integers(0, 3)),
    )
    return CatalogueEntry.model_validate(values)


def declared(tensors: Any) -> list[tuple[str, str, list[int]]]:
    """Name, Triton's data type and dimensions without the batch, as the entry has them."""
    return [
        (
            spec.name,
            np_to_triton_dtype(np.dtype(spec.dtype)),
            [dim if isinstance(dim, int) else -1 for dim in spec.shape[1:]],
        )
        for spec in tensors
    ]


def served(tensors: Any) -> list[tuple[str, str, list[int]]]:
    names = [DataType.Name(tensor.data_type).removeprefix("TYPE_") for tensor in tensors]
    return [(tensor.name, name, list(tensor.dims)) for tensor, name in zip(tensors, names, strict=True)]


@given(entries(), st.sampled_from(["python", "onnxruntime", "tensorrt"]))
def test_a_configuration_says_what_the_entry_says(entry: CatalogueEntry, backend: Any) -> None:
    config = parsed(config_text(entry, backend, threads=2))
    assert (config.name, config.backend, config.max_batch_size) == (entry.name, backend, entry.max_batch_size)
    assert served(config.input) == declared(entry.inputs)
    assert served(config.output) == declared(entry.outputs)
    assert list(config.version_policy.specific.versions) == [1]
    (group,) = config.instance_group
    assert ModelInstanceGroup.Kind.Name(group.kind) == {"cpu": "KIND_CPU", "cuda": "KIND_GPU"}[entry.device_policy]
    assert config.HasField("dynamic_batching") == (entry.max_batch_size > 1)
    if entry.max_batch_size > 1:
        assert max(config.dynamic_batching.preferred_batch_size) == entry.max_batch_size
        assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert sum(sample.count for sample in config.model_warmup) == entry.warmup
    for sample in config.model_warmup:
        assert set(sample.inputs) == {spec.name for spec in entry.inputs}
        assert all(dim > 0 for zeros in sample.inputs.values() for dim in zeros.dims)
    assert config.parameters["weights_digest"].string_value == entry.weights_digest
    assert config.parameters["catalogue_version"].string_value == entry.version
    assert difference(entry, config) is None


@pytest.mark.parametrize("name", STARTER)
def test_both_variants_of_a_model_look_the_same_to_a_client(name: str) -> None:
    entry = Catalogue.load()[name]
    wheel, container = (parsed(config_text(entry, backend)) for backend in ("python", "onnxruntime"))
    assert (wheel.backend, container.backend) == ("python", "onnxruntime")
    for config in (wheel, container):
        config.ClearField("backend")
        del config.parameters["intra_op_num_threads" if config is wheel else "intra_op_thread_count"]
    assert wheel == container


def test_a_repository_holds_versions_weights_and_code_and_is_the_same_every_time(
    models_dir: Path, tmp_path: Path
) -> None:
    chosen = [Catalogue.load()[name] for name in STARTER]
    store = WeightsStore(models_dir)
    first = write_repository(chosen, store, tmp_path / "a")
    again = write_repository(reversed(chosen), store, tmp_path / "b")
    assert first.models == tuple(sorted(STARTER))
    assert first.digest == again.digest
    trees = [
        {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (first.path, again.path)
    ]
    assert trees[0] == trees[1]
    assert set(trees[0]) == {
        f"{name}/{file}" for name in STARTER for file in ("config.pbtxt", "1/model.onnx", "1/model.py")
    }
    weights = (models_dir / chosen[0].folder / "model.onnx").read_bytes()
    assert trees[0][f"{chosen[0].name}/1/model.onnx"] == weights


def test_what_stood_in_the_target_is_replaced_and_containers_need_no_code(models_dir: Path, tmp_path: Path) -> None:
    entry, store = Catalogue.load()["facemesh_192"], WeightsStore(models_dir)
    target = tmp_path / "repository"
    (target / "old_model" / "1").mkdir(parents=True)
    written = write_repository([entry], store, target, containers=True)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        "facemesh_192/1/model.onnx",
        "facemesh_192/config.pbtxt",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repository"], "nothing temporary stays"
    assert written.digest != write_repository([entry], store, target).digest


def test_a_digest_follows_the_weights_and_the_tuning(tmp_path: Path) -> None:
    entry, data = double_entry("double")
    path = tmp_path / "models" / entry.folder / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    store = WeightsStore(tmp_path / "models")
    digests = {write_repository([entry], store, tmp_path / "r", threads=threads).digest for threads in (1, 2)}
    assert len(digests) == 2


def test_a_plan_is_what_would_be_written_and_writes_nothing(tmp_path: Path) -> None:
    entry, data = double_entry("double")
    place(tmp_path / "models", entry, data)
    store = WeightsStore(tmp_path / "models")
    planned = plan_repository([entry], store, tmp_path / "repository", threads=2)
    assert not (tmp_path / "repository").exists()
    assert planned == write_repository([entry], store, tmp_path / "repository", threads=2)


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_old_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FAULT is injected into the last of the renames."""
    entry, data = double_entry("double")
    place(tmp_path / "models", entry, data)
    (tmp_path / "repository" / "old").mkdir(parents=True)
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.name == "repository" and path.parent != tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(TrendFlowError) as error:
        write_repository([entry], WeightsStore(tmp_path / "models"), tmp_path / "repository")
    assert error.value.error_code == "storage_unavailable"
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "repository"]


def test_weights_of_this_machine_are_named_by_their_own_digest(tmp_path: Path) -> None:
    """The catalogue knows only what they are made from."""
    entry, data = made_here()
    store = WeightsStore(tmp_path)
    (tmp_path / "candidate").write_bytes(data)
    store.prepare(entry, entry.files[0])
    store.accept(entry, entry.files[0], tmp_path / "candidate")
    config = parsed(plan_repository([entry], store, tmp_path / "repository").contents[0].config)
    assert config.parameters["model_sha256"].string_value == hashlib.sha256(data).hexdigest()
    assert difference(entry, config) is None


def test_absent_weights_leave_the_old_repository(tmp_path: Path) -> None:
    entry, _ = double_entry("double")
    (tmp_path / "repository" / "old").mkdir(parents=True)
    with pytest.raises(TrendFlowError) as error:
        write_repository([entry], WeightsStore(tmp_path / "models"), tmp_path / "repository")
    assert error.value.error_code == "weights_missing"
    assert (tmp_path / "repository" / "old").is_dir()


@pytest.mark.parametrize(
    ("shape", "batch"), [(["N", 4], 8), ([1, 4], 8), ([2, 4], 1), (["B"], 8), (["B", "B"], 8)], ids=str
)
def test_a_model_without_a_batch_axis_cannot_be_served(shape: list[Any], batch: int) -> None:
    entry, _ = double_entry(
        "double",
        max_batch_size=batch,
        inputs=[{"name": "x", "dtype": "float32", "shape": shape, "layout": "?"}],
    )
    with pytest.raises(TrendFlowError, match="no batch axis") as error:
        config_text(entry, "python")
    assert error.value.error_code == "model_spec_invalid"


def test_an_engine_needs_a_backend(tmp_path: Path) -> None:
    entry, data = double_entry("plan")
    entry = entry.model_copy(update={"engine": "tensorrt"})
    path = tmp_path / "models" / entry.folder / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    store = WeightsStore(tmp_path / "models")
    with pytest.raises(TrendFlowError) as error:
        write_repository([entry], store, tmp_path / "repository")
    assert error.value.error_code == "dependency_missing"
    write_repository([entry], store, tmp_path / "repository", containers=True)
    assert (tmp_path / "repository" / "plan" / "1" / "model.plan").read_bytes() == data


def test_the_server_runs_the_release_of_onnxruntime_that_this_project_pins(repo_root: Path) -> None:
    pins = [
        re.findall(r"^onnxruntime==(.+)$", (repo_root / name).read_text(), re.MULTILINE)
        for name in ("constraints.txt", "requirements-triton.txt")
    ]
    assert pins[0] == pins[1]
    assert len(pins[0]) == 1
