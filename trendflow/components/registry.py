"""Finds the component modules and holds the graph against them.

Code and `component_graph.yaml` must say the same; every difference is `config_invalid` at load.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trendflow import components
from trendflow.components.base import ComponentSpec, Declaration, Param
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER, ComponentGraph, ComponentNode, Profile, frame_budget
from trendflow.contracts.graph_checks import POLICY_FLAGS, fault
from trendflow.contracts.graph_nodes import ALL, Node
from trendflow.contracts.prompt_bank import NO_BANK, PROMPTS
from trendflow.contracts.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from trendflow.contracts.schema import SchemaRegistry
    from trendflow.models.catalogue import Catalogue

_PROCESSORS = ("visual", "audio", "text", "dataset")
_SHOT_BOUNDARY = "shot_boundary"
_PROMPT_ENCODER = "prompt_encoder"

SEGMENTER_SPEC = ComponentSpec(
    name=SEGMENTER,
    producer_version="1.0.0",
    schema_version="segmenter_npz_v1",
    hard=(),
    params={
        "analysis_short_side": Param(320, "Shorter side of the analysed frames in pixels; never upscaled."),
        "analysis_height": Param(None, "Fixed analysis height instead of a short side.", int, nullable=True),
        "analysis_width": Param(None, "Fixed analysis width instead of a short side.", int, nullable=True),
        "analysis_fps": Param(
            None, "Upper bound of the candidate frame rate; default is the source rate.", float, nullable=True
        ),
        "audio_sample_rate": Param(22050, "Rate of audio.wav in Hz."),
        "av_drift_max_sec": Param(10.0, "Audio and video ends may differ by this much."),
        "dense_thumbnails": Param(False, "Keep a 48x27 thumbnail of every source frame."),
    },
)
"""The Segmenter reads media and is therefore no pure component, but it declares itself like one."""


@dataclass(frozen=True)
class RegisteredComponent:
    """A component as the wrapper uses it. `module` is None for the Segmenter."""

    spec: ComponentSpec
    node: ComponentNode
    module: ModuleType | None


class Registry:
    """All components of the graph with their code."""

    def __init__(self, graph: ComponentGraph, entries: Mapping[str, RegisteredComponent]) -> None:
        self.graph = graph
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> RegisteredComponent:
        if name not in self._entries:
            raise TrendFlowError("config_invalid", f"No component is named {name!r}.")
        return self._entries[name]

    def __iter__(self) -> Any:
        return iter(self._entries.values())

    def params(self, profile: str, component: str) -> dict[str, Any]:
        """Parameters of a component in a profile, defaults filled in.

        Raises `config_invalid` with the graph line for an unknown parameter and for a value of the wrong type.
        """
        declared = self[component].spec.params
        entry = self.graph.profile(profile).components[component]
        merged = {name: param.default for name, param in declared.items()}
        for name, value in entry.params.items():
            line = entry.param_lines.get(name, entry.line)
            if name not in declared:
                raise fault(line, f"profile {profile!r}: {component} has no parameter {name!r}.")
            param = declared[name]
            if not param.accepts(value):
                kind = f"{param.value_type.__name__}{' or null' if param.nullable else ''}"
                raise fault(line, f"profile {profile!r}: {component}.{name} must be {kind}, not {value!r}.")
            merged[name] = param.normalised(value)
        return merged

    def dense_thumbnails(self, profile: str) -> bool:
        """Whether the Segmenter keeps dense thumbnails: on request, or because a shot boundary model reads them."""
        return self.params(profile, SEGMENTER)["dense_thumbnails"] or (
            _SHOT_BOUNDARY in self.graph.profile(profile).models
        )

    def config_hash(self, profile: str) -> str:
        """Digest of everything graph and profile say that can change a result, models apart.

        Effective values are hashed, so a default written out equals a default left out.
        """
        found = self.graph.profile(profile)
        return digest_of(
            {
                "components": {
                    name: {"params": self.params(profile, name), "sampling": self._sampling(found, name)}
                    for name in found.components
                },
                # Which model serves the role is covered by the model signature, what the role turns on is not.
                "dense_thumbnails_effective": self.dense_thumbnails(profile),
                "sampling_policy_version": found.sampling_policy_version,
                "prompts_version": found.prompts_version,
                "thresholds_version": found.thresholds_version,
                "policy": {flag: found.policy.get(flag, False) for flag in POLICY_FLAGS},
            }
        )

    def declarations(self, profile: str, component: str, schemas: SchemaRegistry) -> dict[str, Declaration]:
        """What is declared of each dependency of `component` that the profile enables."""
        found: dict[str, Declaration] = {}
        for name in self.graph.active_deps(profile, component):
            spec = self[name].spec
            schema = schemas.get(spec.schema_version)
            found[name] = Declaration(schema, spec.producer_version, self.graph.source_kind(profile, name))
        return found

    def _sampling(self, profile: Profile, component: str) -> dict[str, Any] | None:
        node = self.graph.components[component]
        if node.sampling is None:
            return None
        return {
            "budget": frame_budget(node, profile.components[component]),
            "group": node.sampling.group,
            "parent": node.sampling.parent,
            "family": node.sampling.family,
        }


def component_modules() -> dict[str, ModuleType]:
    """Component name → module, for every public module below `trendflow.components.<processor>`."""
    found: dict[str, ModuleType] = {}
    for processor in _PROCESSORS:
        package = importlib.import_module(f"{components.__name__}.{processor}")
        for info in pkgutil.iter_modules(package.__path__):
            if info.name.startswith("_"):
                continue
            found[info.name] = importlib.import_module(f"{package.__name__}.{info.name}")
    return found


def load_registry(
    graph: ComponentGraph, schemas: SchemaRegistry | None = None, catalogue: Catalogue | None = None
) -> Registry:
    """Join graph and code. Raises `config_invalid` naming the component and the graph line on any difference.

    With `schemas`, every artifact's schema must exist and belong to its component. With `catalogue`, every role must
    be declared there and every model a profile names must exist and serve its role.
    """
    modules = component_modules()
    specs = {name: module.SPEC for name, module in modules.items()} | {SEGMENTER: SEGMENTER_SPEC}
    for name in sorted(set(specs) - set(graph.components)):
        raise TrendFlowError("config_invalid", f"The component {name} exists in code but not in the graph.")
    entries: dict[str, RegisteredComponent] = {}
    for name, node in graph.components.items():
        if name not in specs:
            raise fault(node.line, f"{name} has no code.")
        _compare(node, specs[name])
        if schemas is not None:
            _check_schemas(node, schemas)
        entries[name] = RegisteredComponent(specs[name], node, modules.get(name))
    if catalogue is not None:
        for declared in (*graph.components.values(), *graph.drafts.components.values()):
            _check_roles(declared, catalogue)
    registry = Registry(graph, entries)
    for name, profile in graph.profiles.items():
        registry.config_hash(name)  # parameters of every profile are checked at load
        if profile.thresholds_version != THRESHOLDS.version:
            raise fault(
                profile.line,
                f"profile {name!r} asks for {profile.thresholds_version}, but the constants of this release are "
                f"{THRESHOLDS.version}.",
            )
        _check_prompts(profile)
        if catalogue is not None:
            _check_models(profile, catalogue)
    return registry


def _check_prompts(profile: Profile) -> None:
    if profile.prompts_version not in (NO_BANK, PROMPTS.version):
        raise fault(
            profile.line,
            f"profile {profile.name!r} asks for {profile.prompts_version}, but the prompt bank of this release is "
            f"{PROMPTS.version}.",
        )
    if _PROMPT_ENCODER in profile.models and profile.prompts_version == NO_BANK:
        line = profile.model_lines.get(_PROMPT_ENCODER, profile.line)
        raise fault(line, f"profile {profile.name!r} maps {_PROMPT_ENCODER} but has no prompt bank (prompts_version).")


def _check_schemas(node: ComponentNode, schemas: SchemaRegistry) -> None:
    declared = [("schema_version", node.schema_version)]
    declared += [("extra_artifacts", version) for version in node.extra_artifacts.values()]
    for key, version in declared:
        line = node.lines.get(key, node.line)
        if version not in schemas:
            raise fault(line, f"{node.name}: the schema {version} does not exist.")
        producer = schemas.get(version).producer
        if producer != node.name:
            raise fault(line, f"{node.name}: the schema {version} belongs to {producer}.")


def _check_roles(node: Node, catalogue: Catalogue) -> None:
    for role in node.roles:
        if role not in catalogue.roles:
            raise fault(node.lines.get("roles", node.line), f"{node.name}: the catalogue has no role {role!r}.")


def _check_models(profile: Profile, catalogue: Catalogue) -> None:
    for role, name in profile.models.items():
        line = profile.model_lines.get(role, profile.line)
        if role not in catalogue.roles:
            raise fault(line, f"profile {profile.name!r}: the catalogue has no role {role!r}.")
        if name not in catalogue.entries:
            raise fault(line, f"profile {profile.name!r}: the catalogue has no model {name!r}.")
        if role not in catalogue.entries[name].roles:
            raise fault(line, f"profile {profile.name!r}: the model {name} does not serve the role {role!r}.")
        if profile.runtimes.get(role) == "triton" and not catalogue.entries[name].is_servable:
            raise fault(line, f"profile {profile.name!r}: a Triton server cannot execute the model {name}.")


def _compare(node: ComponentNode, spec: ComponentSpec) -> None:
    facts: list[tuple[str, str, Any, Any]] = [
        ("name", "name", node.name, spec.name),
        ("hard dependencies", "deps", set(node.hard), set(spec.hard)),
        ("soft dependencies", "deps", ALL if node.soft_is_all else set(node.soft), _names(spec.soft)),
        ("reads", "reads", set(node.reads), set(spec.reads)),
        ("required roles", "roles", set(node.required_roles), set(spec.roles)),
        ("optional roles", "roles", set(node.optional_roles), set(spec.optional_roles)),
        ("schema_version", "schema_version", node.schema_version, spec.schema_version),
    ]
    for what, key, declared, coded in facts:
        if declared != coded:
            line = node.lines.get(key, node.line)
            raise fault(line, f"{node.name}: {what} {_show(declared)} differ from the code's {_show(coded)}.")


def _names(soft: tuple[str, ...] | str) -> set[str] | str:
    return soft if isinstance(soft, str) else set(soft)


def _show(value: Any) -> str:
    return str(sorted(value)) if isinstance(value, set) else repr(value)


def source_files(name: str, module: ModuleType | None) -> list[Path]:
    """The files whose change demands a new `producer_version` of a component.

    Its module and the private helper modules (`_name.py`) it imports, directly or through each other. The Segmenter
    owns all of `trendflow.media`.
    """
    if module is None:
        package = importlib.import_module("trendflow.media")
        return sorted(Path(package.__path__[0]).glob("*.py"))
    files: set[Path] = set()
    pending = [Path(str(module.__file__))]
    while pending:
        path = pending.pop()
        if path not in files:
            files.add(path)
            pending += _helpers(path)
    return sorted(files)


def _helpers(path: Path) -> list[Path]:
    """Private helper modules that a file imports. Read from the syntax, so that imported constants count too."""
    root = Path(components.__path__[0])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(components.__name__):
            continue
        inside = str(node.module).removeprefix(components.__name__).strip(".").split(".")
        places = [root.joinpath(*inside)] + [root.joinpath(*inside, alias.name) for alias in node.names]
        found += [place.with_suffix(".py") for place in places if place.name.startswith("_")]
    return [place for place in found if place.is_file()]
