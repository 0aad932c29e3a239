"""TorchScript archives are read without being run. Small modules with random weights, no trained model."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.checkpoint import read_checkpoint

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "trendflow" / "models" / "read_checkpoint.py"


class Inner(torch.nn.Module):
    """Attributes of every kind that a TorchScript pickle writes besides tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.rates, self.flags, self.table = [1, 2], [0.5], [True], {"a": 1}
        self.label, self.nothing = "text", None
        self.linear = torch.nn.Linear(5, 3)
        self.register_buffer("count", torch.tensor(77))
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.rates[0] + self.sizes[0] + self.table["a"] + float(self.flags[0]) + len(self.label)


class Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = Inner()
        self.blocks = torch.nn.ModuleList([torch.nn.LayerNorm(3) for _ in range(2)])
        self.short = torch.nn.Parameter(torch.randn(2, 3).half())
        # A view: the storage holds more than the tensor, in another order.
        self.view = torch.nn.Parameter(torch.randn(4, 6)[1:3, ::2].t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        for block in self.blocks:
            x = block(x)
        return x + self.short.sum() + self.view.sum()


@pytest.fixture(scope="module")
def module() -> Any:
    return Outer()


@pytest.fixture(scope="module")
def archive(module: Any) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def rewritten(archive: bytes, member: str, content: bytes) -> bytes:
    """The archive with other content of one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith(member) else source.read(name))
    return buffer.getvalue()


def test_an_archive_gives_the_tensors_of_its_module(module: Any, archive: bytes) -> None:
    found, expected = read_checkpoint(archive), module.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_a_traced_module_reads_like_a_scripted_one(module: Any, archive: bytes) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 5)), buffer)
    traced, scripted = read_checkpoint(buffer.getvalue()), read_checkpoint(archive)
    assert set(traced) == set(scripted)
    for name, values in scripted.items():
        np.testing.assert_array_equal(traced[name], values)


def test_reading_an_archive_needs_no_torch(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(archive)
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['x', 'a.pt', 'a.npz'];"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with np.load(tmp_path / "a.npz") as arrays:
        assert "inner.linear.weight" in arrays.files


class Exploit:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_an_archive_that_runs_code_is_refused(archive: bytes, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    hostile = rewritten(archive, "/data.pkl", pickle.dumps(Exploit(marker)))
    with pytest.raises(TrendFlowError, match="model_load_failed"):
        read_checkpoint(hostile)
    assert not marker.exists()


def test_the_program_of_an_archive_does_not_matter(archive: bytes) -> None:
    """What is inside `code/` is not even parsed."""
    assert set(read_checkpoint(rewritten(archive, ".py", b"this is no program"))) == set(read_checkpoint(archive))


def test_a_tensor_larger_than_its_storage_is_refused() -> None:
    root = torch.nn.Module()
    root.register_buffer("repeated", torch.zeros(1).expand(1 << 10))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(root), buffer)
    with pytest.raises(TrendFlowError, match="model_load_failed"):
        read_checkpoint(buffer.getvalue())


def test_a_tensor_beyond_its_storage_is_refused(archive: bytes) -> None:
    with pytest.raises(TrendFlowError, match="model_load_failed"):
        read_checkpoint(rewritten(archive, "/data/0", b"\0\0\0\0"))
