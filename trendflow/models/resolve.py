"""From roles to models: what a run will use is decided and proven before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import Runtime
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.store import WeightsStore


@dataclass(frozen=True)
class ResolvedModel:
    """One role of a run. `device` is the class, `cpu` or `cuda`."""

    entry: CatalogueEntry
    engine: str
    precision: str
    device: str

    @property
    def used(self) -> ModelUsed:
        return self.entry.model_used(self.device)

    @property
    def runtime(self) -> str:
        return self.entry.runtime

    def as_row(self) -> dict[str, str]:
        """The value of this role in `manifest.run.resolved_models`."""
        return {
            "entry": self.entry.name,
            "runtime": self.runtime,
            "engine": self.engine,
            "precision": self.precision,
            "device": self.device,
        }


def resolve_models(
    catalogue: Catalogue,
    mapping: Mapping[str, str],
    roles_needed: Iterable[str],
    models_dir: Path,
    *,
    runtimes: Mapping[str, Runtime] | None = None,
    require_served: Callable[[CatalogueEntry], None] | None = None,
    production: bool = False,
    executed_here: bool = True,
) -> dict[str, ResolvedModel]:
    """Map each needed role to its entry, with weights verified and the device present.

    `mapping` is the profile's role → entry name, `runtimes` the roles it gives another runtime than the entry's own.
    A model on a server is proven by `require_served`, which raises what `TritonConnection.require` does; its weights
    and its device are the server's. A process that lets others execute the run, not `executed_here`, looks at the
    weights alone: devices, libraries and servers are the worker's. Raises `config_invalid` (role unknown or unmapped,
    entry does not serve the role, test-only weights, a variant without a parity report, or weights whose licence
    forbids production use when `production`), `model_not_found`, `weights_missing`, `device_unavailable`,
    `model_load_failed` (a TensorRT plan that was built elsewhere) or `dependency_missing` (no library or engine, or a
    server that nobody named).
    """
    store = WeightsStore(models_dir)
    resolved: dict[str, ResolvedModel] = {}
    for role in sorted(set(roles_needed)):
        entry = _permitted(catalogue, mapping, runtimes, role, production)
        if executed_here and entry.runtime != "triton":
            _require_device(entry)
        _verify_files(store, entry)
        if executed_here and entry.runtime == "triton":
            _require_server(entry, require_served)
        resolved[role] = ResolvedModel(entry, entry.engine, entry.precision, entry.device_policy)
    return resolved


def planned_models_used(resolved: Mapping[str, ResolvedModel], roles: Iterable[str]) -> tuple[ModelUsed, ...]:
    """What a component with these roles will report, each model once, in the order of the signature.

    Raises `config_invalid` for a role that was not resolved.
    """
    used: set[ModelUsed] = set()
    for role in roles:
        if role not in resolved:
            raise TrendFlowError("config_invalid", f"The role {role!r} was not resolved for this run.", role=role)
        used.add(resolved[role].used)
    return tuple(sorted(used, key=_signature_order))


def _signature_order(model: ModelUsed) -> tuple[str, ...]:
    return (
        model.model_name,
        model.model_version,
        model.weights_digest,
        model.engine,
        model.precision,
        model.device,
        model.runtime,
    )


def entry_for_role(
    catalogue: Catalogue, mapping: Mapping[str, str], runtimes: Mapping[str, Runtime], role: str
) -> CatalogueEntry:
    """The entry a profile maps to a role, on the runtime it names. Raises `config_invalid` and `model_not_found`."""
    offered = catalogue.for_role(role)
    if role not in mapping:
        reason = catalogue.roles[role].without_entry or f"Entries that serve it: {[entry.name for entry in offered]}."
        raise TrendFlowError("config_invalid", f"The profile maps no model to the role {role!r}. {reason}", role=role)
    entry = catalogue[mapping[role]]
    if role not in entry.roles:
        raise TrendFlowError(
            "config_invalid", f"The model {entry.name} does not serve the role {role!r}.", role=role, entry=entry.name
        )
    return entry.on(runtimes.get(role, entry.runtime))


def _permitted(
    catalogue: Catalogue,
    mapping: Mapping[str, str],
    runtimes: Mapping[str, Runtime] | None,
    role: str,
    production: bool,
) -> CatalogueEntry:
    entry = entry_for_role(catalogue, mapping, runtimes or {}, role)
    _require_licence(entry, role, production)
    _require_parity(entry, role)
    return entry


def _verify_files(store: WeightsStore, entry: CatalogueEntry) -> None:
    """Weights on disk are those of the catalogue; of a model on a server only what stays here is looked at."""
    if entry.runtime == "triton":
        store.verify_companions(entry)
    else:
        store.verify(entry)


def _require_device(entry: CatalogueEntry) -> None:
    if entry.engine in ("onnx", "algorithm"):
        from trendflow.models import onnx_runtime

        onnx_runtime.require_device(entry.device_policy)
    elif entry.engine == "torch":
        from trendflow.models import torch_runtime

        torch_runtime.require_device(entry.device_policy)
    elif entry.engine == "tensorrt":
        from trendflow.models import tensorrt_runtime

        tensorrt_runtime.require_plan(entry, entry.device_policy)
    else:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} needs the engine {entry.engine}, which this release does not run.",
            kind="python_package",
            entry=entry.name,
        )


def _require_server(entry: CatalogueEntry, require_served: Callable[[CatalogueEntry], None] | None) -> None:
    if require_served is None:
        raise TrendFlowError(
            "dependency_missing", f"{entry.name} runs on a model server, and none is known here.", kind="triton"
        )
    require_served(entry)


def _require_licence(entry: CatalogueEntry, role: str, production: bool) -> None:
    if entry.is_test_only:
        raise TrendFlowError(
            "config_invalid",
            f"The model {entry.name} has no licence and serves tests only; no profile may map it to {role!r}.",
            role=role,
            entry=entry.name,
        )
    if production and entry.commercial_use == "forbidden":
        raise TrendFlowError(
            "config_invalid",
            f"The licence of {entry.name} ({entry.licence_spdx}) forbids production use as {role!r}.",
            role=role,
            entry=entry.name,
        )


def _require_parity(entry: CatalogueEntry, role: str) -> None:
    """What int8 or a TensorRT plan loses is not known beforehand, so such an entry needs its report."""
    if (entry.precision == "int8" or entry.engine == "tensorrt") and entry.parity_report_digest is None:
        raise TrendFlowError(
            "config_invalid",
            f"The model {entry.name} ({entry.engine} {entry.precision}) has no parity report; no profile may map it to "
            f"{role!r}.",
            role=role,
            entry=entry.name,
        )
