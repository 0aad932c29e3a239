"""What importing costs: light packages stay light, so that a command answers at once and workers start fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "dagster", "av", "librosa", "onnxruntime", "cv2", "scipy", "numba", "pandas", "yt_dlp"}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running `code`."""
    report = (
        "\nimport sys, json; sys.stderr.write('\\n' + json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_probe_sees_a_heavy_import() -> None:
    assert "cv2" in modules_after("import cv2")


@pytest.mark.parametrize(
    "package", ["trendflow", "trendflow.contracts", "trendflow.components.base", "trendflow.config"]
)
def test_light_packages_load_nothing_heavy(package: str) -> None:
    walk = (
        f"import importlib, pkgutil; p = importlib.import_module({package!r}); "
        "[importlib.import_module(f'{p.__name__}.{m.name}') for m in "
        "(pkgutil.iter_modules(p.__path__) if p.__name__ == 'trendflow.contracts' else ())]"
    )
    assert modules_after(walk) & HEAVY == set()


def test_component_modules_load_no_framework() -> None:
    """Workers import every component to read its declaration; none may drag a model framework along."""
    code = "from trendflow.components.registry import component_modules; component_modules()"
    assert modules_after(code) & HEAVY == set()


def test_the_media_child_can_be_started_before_anything_heavy_is_loaded() -> None:
    """Its start overlaps with the imports of the process that starts it; heavy imports of its own would undo that."""
    assert modules_after("import trendflow.commands.process, trendflow.media.worker") & HEAVY == set()


def test_help_does_not_load_the_asset_graph() -> None:
    code = (
        "import sys; sys.argv = ['trendflow', '--help']\n"
        "from trendflow.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "pass"
    )
    assert modules_after(code) & HEAVY == set()
