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
from typing import Any

from trendflow import components
from trendflow.components.base import ComponentSpec, Param
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER, ComponentGraph, ComponentNode
from trendflow.contracts.thresholds import THRESHOLDS

_PROCESSORS = ("visual", "audio", "text")

SEGMENTER_SPEC = ComponentSpec(
    name=SEGMENTER,
    producer_version="1.0.0",
    schema_version="segmenter_npz_v1",
    hard=(),
    params={
        "analysis_short_side": Param(320, "Shorter side of the analysed frames in pixels; never upscaled."),
        "analysis_height": Param(None, "Fixed analysis height instead of a short side."),
        "analysis_width": Param(None, "Fixed analysis width instead of a short side."),
        "analysis_fps": Param(None, "Upper bound of the candidate frame rate; default is the source rate."),
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
        """Parameters of a component in a profile, defaults filled in. Raises `config_invalid` on unknown ones."""
        spec = self[component].spec
        given = self.graph.profile(profile).components[component].params
        merged = {name: param.default for name, param in spec.params.items()}
        for name, value in given.items():
            if name not in spec.params:
                raise TrendFlowError("config_invalid", f"Profile {profile!r}: {component} has no parameter {name!r}.")
            default = spec.params[name].default
            if default is not None and value is not None and not _same_type(default, value):
                raise TrendFlowError(
                    "config_invalid",
                    f"Profile {profile!r}: {component}.{name} must be {type(default).__name__}, not {value!r}.",
                )
            merged[name] = value
        return merged

    def config_hash(self, profile: str) -> str:
        """Digest of everything a profile says that can change a result, models apart."""
        found = self.graph.profile(profile)
        return digest_of(
            {
                "components": {
                    name: {
                        "params": self.params(profile, name),
                        "sampling": dict(found.components[name].sampling),
                    }
                    for name in found.components
                },
                "sampling_policy_version": found.sampling_policy_version,
                "prompts_version": found.prompts_version,
                "thresholds_version": found.thresholds_version,
                "policy": dict(found.policy),
            }
        )


def _same_type(default: Any, value: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


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


def load_registry(graph: ComponentGraph) -> Registry:
    """Join graph and code. Raises `config_invalid` naming the component and the graph line on any difference."""
    modules = component_modules()
    specs = {name: module.SPEC for name, module in modules.items()} | {SEGMENTER: SEGMENTER_SPEC}
    for name in sorted(set(specs) - set(graph.components)):
        raise TrendFlowError("config_invalid", f"The component {name} exists in code but not in the graph.")
    entries: dict[str, RegisteredComponent] = {}
    for name, node in graph.components.items():
        if name not in specs:
            raise TrendFlowError("config_invalid", f"component_graph line {node.line}: {name} has no code.")
        _compare(node, specs[name])
        entries[name] = RegisteredComponent(specs[name], node, modules.get(name))
    registry = Registry(graph, entries)
    for name, profile in graph.profiles.items():
        registry.config_hash(name)  # parameters of every profile are checked at load
        if profile.thresholds_version != THRESHOLDS.version:
            raise TrendFlowError(
                "config_invalid",
                f"component_graph line {profile.line}: profile {name!r} asks for {profile.thresholds_version}, "
                f"but the constants of this release are {THRESHOLDS.version}.",
            )
    return registry


def _compare(node: ComponentNode, spec: ComponentSpec) -> None:
    pairs: dict[str, tuple[Any, Any]] = {
        "name": (node.name, spec.name),
        "hard dependencies": (set(node.hard), set(spec.hard)),
        "soft dependencies": (set(node.soft), set(spec.soft)),
        "reads": (set(node.reads), set(spec.reads)),
        "required roles": (set(node.required_roles), set(spec.roles)),
        "optional roles": (set(node.optional_roles), set(spec.optional_roles)),
        "schema_version": (node.schema_version, spec.schema_version),
    }
    for what, (declared, coded) in pairs.items():
        if declared != coded:
            raise TrendFlowError(
                "config_invalid",
                f"component_graph line {node.line}: {node.name}: {what} {_show(declared)} differ from the code's "
                f"{_show(coded)}.",
            )


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
