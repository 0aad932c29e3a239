"""What the catalogue offers and what of it is on this machine: the data behind `trendflow models list|verify`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool
from trendflow.models.store import FileState, WeightsStore


@dataclass(frozen=True)
class EntryRow:
    """One entry. `digest_state` is the worst state among its files."""

    name: str
    version: str
    roles: tuple[str, ...]
    status: str
    engine: str
    precision: str
    device_policy: str
    licence_spdx: str
    commercial_use: str
    weights_digest: str
    bytes: int
    digest_state: FileState


@dataclass(frozen=True)
class RoleRow:
    """One role. `entries` is empty exactly when `reason` says why."""

    role: str
    used_by: tuple[str, ...]
    entries: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class Inventory:
    entries: tuple[EntryRow, ...]
    roles: tuple[RoleRow, ...]


@dataclass(frozen=True)
class Verification:
    """Outcome for one entry; `error_code` and `problem` are None when it loads and matches its entry."""

    name: str
    version: str
    digest_state: FileState
    error_code: str | None
    problem: str | None


def list_models(catalogue: Catalogue, models_dir: Path) -> Inventory:
    """All entries with the state of their files, and all roles with the reason where none serves them."""
    store = WeightsStore(models_dir)
    return Inventory(
        entries=tuple(_entry_row(entry, store) for entry in catalogue),
        roles=tuple(
            RoleRow(name, role.used_by, tuple(entry.name for entry in catalogue.for_role(name)), role.without_entry)
            for name, role in catalogue.roles.items()
        ),
    )


def verify_models(catalogue: Catalogue, models_dir: Path, names: Iterable[str] | None = None) -> list[Verification]:
    """Check digests and load each entry, so that its tensors are held against the catalogue.

    Problems are rows, not exceptions; only an unknown name raises (`model_not_found`).
    """
    chosen = list(catalogue) if names is None else [catalogue[name] for name in names]
    store, pool = WeightsStore(models_dir), ModelPool(models_dir)
    rows = []
    try:
        for entry in chosen:
            error: TrendFlowError | None = None
            try:
                pool.get(entry)
            except TrendFlowError as exc:
                error = exc
            rows.append(
                Verification(
                    name=entry.name,
                    version=entry.version,
                    digest_state=store.entry_state(entry),
                    error_code=error.error_code if error else None,
                    problem=error.message if error else None,
                )
            )
    finally:
        pool.close()
    return rows


def _entry_row(entry: CatalogueEntry, store: WeightsStore) -> EntryRow:
    return EntryRow(
        name=entry.name,
        version=entry.version,
        roles=entry.roles,
        status=entry.status,
        engine=entry.engine,
        precision=entry.precision,
        device_policy=entry.device_policy,
        licence_spdx=entry.licence_spdx,
        commercial_use=entry.commercial_use,
        weights_digest=entry.weights_digest,
        bytes=sum(file.bytes for file in entry.files),
        digest_state=store.entry_state(entry),
    )
