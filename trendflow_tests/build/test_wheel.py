"""A wheel is complete: it runs without the checkout beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

# The wheel is built once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("wheel")

SHIPPED = (
    "component_graph.yaml",
    "workspace.yaml",
    "dagster.yaml",
    "schemas",
    "models",
    "requirements-triton.txt",
    "samples",
)


@pytest.fixture(scope="module")
def unpacked(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = next(WheelBuilder(str(repo_root)).build(directory=str(folder), versions=["standard"]))
    zipfile.ZipFile(built).extractall(folder / "site")
    return folder / "site"


def test_every_module_travels(unpacked: Path, repo_root: Path) -> None:
    in_checkout = {path.relative_to(repo_root) for path in (repo_root / "trendflow").rglob("*.py")}
    in_wheel = {path.relative_to(unpacked) for path in (unpacked / "trendflow").rglob("*.py")}
    assert in_checkout == in_wheel


def test_data_files_are_found_without_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from trendflow.contracts.package_data import data_path\n"
        "for name in sys.argv[2:]: print(data_path(name))"
    )
    command = [sys.executable, "-c", code, str(unpacked), *SHIPPED]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert [Path(line) for line in found] == [unpacked / "trendflow" / "_data" / name for name in SHIPPED]


def test_data_files_equal_those_of_the_checkout(unpacked: Path, repo_root: Path) -> None:
    bundled = unpacked / "trendflow" / "_data"
    for path in (path for path in bundled.rglob("*") if path.is_file()):
        assert path.read_bytes() == (repo_root / path.relative_to(bundled)).read_bytes(), path.name


def test_the_command_and_the_licence_are_declared(unpacked: Path) -> None:
    (info,) = unpacked.glob("trendflow-*.dist-info")
    assert "trendflow = trendflow.cli:main" in (info / "entry_points.txt").read_text()
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()


def test_an_unknown_data_file_is_refused() -> None:
    from trendflow.contracts.errors import TrendFlowError
    from trendflow.contracts.package_data import data_path

    with pytest.raises(TrendFlowError) as caught:
        data_path("no_such_file.yaml")
    assert caught.value.error_code == "dependency_missing"
