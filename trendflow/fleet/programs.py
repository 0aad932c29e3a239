"""Where the server programs are that installed packages carry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.fleet.files import make_folder

EXTRA = "fleet"


def program(distribution: str, name: str) -> Path:
    """The program `name` of an installed distribution; its files are asked, for each keeps it elsewhere.

    Raises `dependency_missing` when the package is not installed or has no such program for this machine.
    """
    return _located(_program_file(distribution, name))


@dataclass(frozen=True)
class ProgramCopy:
    """A distribution's programs for users who may not enter the Python environment.

    The files below folders named in `needed` are copied, at the same places relative to each other, for programs find
    their libraries so. `root` belongs to the copy alone; each version has its own folder there.
    """

    distribution: str
    needed: Collection[str]
    root: Path

    def program(self, name: str) -> Path:
        """Where `install` puts a program. Raises what the function `program` does."""
        return self._folder() / _program_file(self.distribution, name)

    def install(self) -> None:
        """Make the copy, unless a whole one is there; those of other versions go. Nothing of it may be running.

        Raises `dependency_missing` like `program`, `storage_unavailable` when space is missing, `config_invalid` for a
        place that cannot be written.
        """
        folder, sources = self._folder(), self._sources()
        # Sizes tell what a power cut or a cleaner of temporary folders took away.
        if all(_size(folder / file) == _size(source) for file, source in sources.items()):
            return
        try:
            if self.root.exists():
                shutil.rmtree(self.root)
            made = self.root / "new"
            for file, source in sources.items():
                target = made / file
                for parent in reversed(target.parents):
                    if parent.is_relative_to(self.root) and not parent.exists():
                        make_folder(parent, 0o755)
                shutil.copyfile(source, target)
                target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
            made.rename(folder)
        except OSError as exc:
            raise unwritable(exc, "The folder of the fleet") from exc

    def _folder(self) -> Path:
        return self.root / metadata.version(self.distribution)

    def _sources(self) -> dict[Path, Path]:
        """The installed files by their places in the copy."""
        found = _files(self.distribution)
        return {Path(file): _located(file) for file in found if not set(self.needed).isdisjoint(file.parts[:-1])}


def _files(distribution: str) -> list[metadata.PackagePath]:
    try:
        return metadata.files(distribution) or []
    except metadata.PackageNotFoundError as exc:
        raise TrendFlowError(
            "dependency_missing",
            f"The package {distribution} is not installed; install trendflow[{EXTRA}].",
            kind="package",
            package=distribution,
        ) from exc


def _program_file(distribution: str, name: str) -> metadata.PackagePath:
    for file in _files(distribution):
        if file.name == name and _located(file).exists():
            return file
    raise TrendFlowError(
        "dependency_missing",
        f"The package {distribution} has no program {name!r} for this machine.",
        kind="package",
        package=distribution,
    )


def _located(file: metadata.PackagePath) -> Path:
    return Path(str(file.locate())).resolve()


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
