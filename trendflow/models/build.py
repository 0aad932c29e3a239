"""`trendflow models build`: puts weights that came with the program or with packages into the models directory.

No network is used. What is built is a pure function of pinned source bytes, and the result must have the digest the
catalogue pins, else it is thrown away.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.recipes import RECIPES, require_packages
from trendflow.models.sources import Source, WeightsFile
from trendflow.models.store import WeightsStore


@dataclass(frozen=True)
class Built:
    """What happened to one entry: `present` (was right already), `built`, or `skipped` (weights are pulled)."""

    entry: str
    version: str
    action: Literal["present", "built", "skipped"]
    bytes: int


def build_models(
    catalogue: Catalogue,
    models_dir: Path,
    names: Iterable[str] | None = None,
    progress: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Build the named entries, or all. Entries that are in place are left alone.

    Raises `model_not_found` (unknown name), `dependency_missing` (package absent or of another version),
    `weights_missing` (source or result is not the pinned file), `config_invalid` (a folder that cannot be written).
    """
    store = WeightsStore(models_dir)
    chosen = list(catalogue) if names is None else [catalogue[name] for name in names]
    report = []
    for entry in chosen:
        row = _build(entry, store)
        report.append(row)
        if progress is not None:
            progress(row)
    return report


def _build(entry: CatalogueEntry, store: WeightsStore) -> Built:
    size = store.entry_bytes(entry)
    if store.entry_state(entry) == "present":
        return Built(entry.name, entry.version, "present", size)
    if entry.source.kind == "url":
        return Built(entry.name, entry.version, "skipped", size)
    model, *companions = entry.files
    source = entry.source
    require_packages(entry.name, source.recipe)
    made = RECIPES[source.recipe].make(_source_bytes(entry, source.member, source.sha256 or model.sha256))
    with store.placing(entry, model) as temporary:
        temporary.write_bytes(made)
    for file in companions:
        place_companion(entry, file, store)
    return Built(entry.name, entry.version, "built", size)


def place_companion(entry: CatalogueEntry, file: WeightsFile, store: WeightsStore) -> None:
    """Copy a further file of an entry from its package or the shipped folder. Raises `weights_missing`."""
    with store.placing(entry, file) as temporary:
        temporary.write_bytes(_source_bytes(entry, entry.source.companions[file.path], file.sha256))


def _source_bytes(entry: CatalogueEntry, member: str | None, expected: str) -> bytes:
    """A pinned file that is on this machine: a member of a package, or of the shipped folder (default: `locator`)."""
    source = entry.source
    shipped = data_path("models") / (member or source.locator)
    path = _package_file(entry, source, member) if source.kind == "package" else shipped
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise TrendFlowError(
            "weights_missing", f"The source of {entry.name} is absent from {source.locator}.", entry=entry.name
        ) from exc
    if hashlib.sha256(data).hexdigest() != expected:
        raise TrendFlowError(
            "weights_missing",
            f"The source of {entry.name} in {source.locator} is not the file the catalogue pins.",
            entry=entry.name,
            expected_sha256=expected,
        )
    return data


def _package_file(entry: CatalogueEntry, source: Source, member: str | None) -> Path:
    """The member inside an installed package; the package is not imported, so none of its code runs."""
    try:
        distribution = importlib.metadata.distribution(source.locator)
    except importlib.metadata.PackageNotFoundError as exc:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} is built from the package {source.locator}=={source.revision}, which is not installed.",
            kind="python_package",
            package=source.locator,
        ) from exc
    if distribution.version != source.revision:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} is built from {source.locator}=={source.revision}, but {distribution.version} is installed.",
            kind="python_package",
            package=source.locator,
        )
    return Path(str(distribution.locate_file(member or "")))
