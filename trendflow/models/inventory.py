"""What the catalogue offers and what of it is on this machine: the data behind `trendflow models list|verify`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool
from trendflow.models.profile_models import Draft, ProfileModels, drafts, profile_models
from trendflow.models.store import FileState, WeightsStore


@dataclass(frozen=True)
class EntryRow:
    """One entry. `digest_state` is the worst state among its files, `bytes` 0 where the size is not known.

    `command` brings its files here; None when there is nothing to bring.
    """

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
    command: str | None


@dataclass(frozen=True)
class RoleRow:
    """One role. `entries` is empty exactly when `reason` says why."""

    role: str
    used_by: tuple[str, ...]
    entries: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class UnpinnedRow:
    """A model that is prepared for but cannot be loaded, with the reason."""

    name: str
    roles: tuple[str, ...]
    upstream: str
    reason: str


@dataclass(frozen=True)
class Inventory:
    """`profiles` and `drafts` are empty when no graph was given."""

    entries: tuple[EntryRow, ...]
    roles: tuple[RoleRow, ...]
    unpinned: tuple[UnpinnedRow, ...]
    profiles: tuple[ProfileModels, ...]
    drafts: tuple[Draft, ...]


@dataclass(frozen=True)
class Verification:
    """Outcome for one entry; `error_code` and `problem` are None when it loads and matches its entry."""

    name: str
    version: str
    digest_state: FileState
    error_code: str | None
    problem: str | None


def list_models(catalogue: Catalogue, models_dir: Path, graph: ComponentGraph | None = None) -> Inventory:
    """All entries with the state of their files, all roles with the reason where none serves them, the models that
    cannot be loaded, and with a graph what each of its profiles runs and leaves out."""
    store = WeightsStore(models_dir)
    return Inventory(
        entries=tuple(_entry_row(entry, store) for entry in catalogue),
        roles=tuple(
            RoleRow(name, role.used_by, tuple(entry.name for entry in catalogue.for_role(name)), role.without_entry)
            for name, role in catalogue.roles.items()
        ),
        unpinned=tuple(
            UnpinnedRow(model.name, model.roles, model.upstream, model.reason) for model in catalogue.unpinned.values()
        ),
        profiles=profile_models(graph, catalogue, models_dir) if graph is not None else (),
        drafts=drafts(graph, catalogue) if graph is not None else (),
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
        bytes=store.entry_bytes(entry),
        digest_state=store.entry_state(entry),
        command=_command(entry),
    )


def _command(entry: CatalogueEntry) -> str | None:
    if not entry.files:
        return None
    return f"trendflow models {'pull' if entry.source.kind == 'url' else 'build'} {entry.name}"
