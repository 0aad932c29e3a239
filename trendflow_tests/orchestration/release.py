"""Another release of the program: a copy of its tree in which the code of components was changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# What a checkout holds around the packages and the program reads there.
_DATA = ("component_graph.yaml", "dagster.yaml", "workspace.yaml", "models", "samples")
_NO_CODE = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Release:
    """Processes that are started in the folder `tree`, and those that they start, run its code."""

    tree: Path

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace the one place in a module of `trendflow/components` that reads `old`."""
        path = self.tree / "trendflow" / "components" / module
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{module} holds {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its `trendflow`."""
        return subprocess.run(
            [sys.executable, "-m", "trendflow", *arguments], cwd=self.tree, capture_output=True, text=True
        )


def copy_release(folder: Path) -> Release:
    """A copy of this tree, to be changed, beside what the folder holds already."""
    for package in ("trendflow", "training", "schemas"):
        shutil.copytree(REPO / package, folder / package, ignore=_NO_CODE)
    for name in _DATA:
        (folder / name).symlink_to(REPO / name)
    return Release(folder)
