"""The model catalogue: one immutable entry per set of weights, engine and precision.

The file is data (`models/catalogue.yaml`). A file that is no catalogue at all is `config_invalid`; an entry that
contradicts itself or the rules is `model_spec_invalid`. Both name the line to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.vocab import Runtime
from trendflow.contracts.yaml_text import SafeLoader, error_line
from trendflow.models.plan_identity import PlanIdentity
from trendflow.models.recipes import COPY
from trendflow.models.sources import Frozen, Sha256, Source, Version, WeightsFile
from trendflow.models.tensors import TensorSpec

CATALOGUE_VERSION = "model_catalogue_v1"
ALGORITHM_DIGEST = "none"
NO_LICENCE = "NONE"
"""`licence_spdx` of weights whose owner states no licence; such entries serve tests only."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
HttpsUrl = Annotated[str, StringConstraints(pattern=r"^https://\S+$")]


class ModelFacts(Frozen):
    """What is true of a model whatever file holds its weights.

    `preprocessing` and `postprocessing` are facts for the component that uses the role: geometry, interpolation,
    colour order, mean and std on the 0..255 scale, thresholds, strides.

    `checkpoint` is the sha256 of the published checkpoint that a tower was taken from: vectors of two towers have a
    common space only when they share it.
    """

    name: Name
    roles: tuple[Name, ...] = Field(min_length=1)
    licence_spdx: str = Field(min_length=1)
    licence_url: HttpsUrl
    commercial_use: Literal["allowed", "restricted", "forbidden"]
    attribution: str = Field(min_length=1)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: dict[str, Any]
    postprocessing: dict[str, Any]
    embedding_dim: int | None = Field(None, ge=1)
    checkpoint: Sha256 | None = None
    class_names: tuple[str, ...] = ()
    class_groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    label_vocab_version: str | None = None
    unit: str
    notes: str | None = None

    @model_validator(mode="after")
    def _tensors_consistent(self) -> Self:
        for group in (self.inputs, self.outputs):
            if len({tensor.name for tensor in group}) != len(group):
                raise ValueError("a tensor name occurs twice")
        widths = {tensor.shape[-1] for tensor in self.outputs if tensor.shape}
        if self.embedding_dim is not None and self.embedding_dim not in widths:
            raise ValueError("embedding_dim is the width of no output")
        if self.class_names and len(self.class_names) not in widths:
            raise ValueError("class_names is as long as no output is wide")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names: a class occurs twice")
        grouped = [name for members in self.class_groups.values() for name in members]
        if self.class_groups and sorted(grouped) != sorted(self.class_names):
            raise ValueError("class_groups must put every class into exactly one group")
        return self


class UnpinnedModel(ModelFacts):
    """A model that is known and prepared for, but that cannot be loaded yet; `reason` says what is missing.

    Its facts can be tested with random weights; no profile can map it. `upstream` is where the weights are published.
    """

    upstream: HttpsUrl
    reason: str = Field(min_length=1)


class CatalogueEntry(ModelFacts):
    """One set of weights in one engine and one precision, with everything needed to run and to judge it.

    `parameters` are the settings of an algorithm; a model carries its own in its file. Only weights for torch need an
    `architecture`, the code that uses them; other files hold their graph. Only a TensorRT plan has a `plan`: what it
    was built for.
    """

    version: Version
    status: Literal["candidate", "model_trial", "model_core", "analytical", "deprecated"]
    files: tuple[WeightsFile, ...]
    source: Source
    runtime: Runtime
    engine: Literal["onnx", "torch", "tensorrt", "ctranslate2", "tflite", "algorithm"]
    precision: Literal["fp32", "fp16", "int8"]
    device_policy: Literal["cpu", "cuda"]
    max_batch_size: int = Field(ge=1)
    deadline_ms: int = Field(ge=1)
    warmup: int = Field(ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    architecture: Name | None = None
    plan: PlanIdentity | None = None
    gpu_memory_per_task_mb: int = Field(ge=0)
    cpu_rss_peak_mb: int = Field(ge=0)
    input_buckets: tuple[str, ...] = ()
    derived_from: str | None = None
    parity_report_digest: Sha256 | None = None

    @cached_property
    def weights_digest(self) -> str:
        """sha256 of canonical JSON {path: sha256}; `none` for an algorithm.

        A file made from a pinned download has no sha256 beforehand; the identity of source and recipe stands for it.
        """
        if not self.files:
            return ALGORITHM_DIGEST
        return digest_of(
            {file.path: self.source.built_identity if file.is_built_from_source else file.sha256 for file in self.files}
        )

    @property
    def folder(self) -> str:
        """Folder of the entry below the models directory; a new version never overwrites an old one."""
        return f"{self.name}/{self.version}"

    @property
    def is_servable(self) -> bool:
        """Whether a Triton server can execute it at all."""
        return self.engine in ("onnx", "tensorrt")

    def on(self, runtime: Runtime) -> Self:
        """The same weights, executed by another runtime; that is a different model for every signature."""
        return self if runtime == self.runtime else self.model_copy(update={"runtime": runtime})

    @property
    def is_test_only(self) -> bool:
        return self.licence_spdx == NO_LICENCE

    def model_used(self, device: str) -> ModelUsed:
        """How this entry enters `models_used` when run on `device` (`cpu`, `cuda` or `cuda:<n>`)."""
        return ModelUsed(
            model_name=self.name,
            model_version=self.version,
            weights_digest=self.weights_digest,
            runtime=self.runtime,
            engine=self.engine,
            precision=self.precision,
            device=device.partition(":")[0],
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("files: a path occurs twice")
        if bool(self.files) == (self.engine == "algorithm") or (self.source.kind == "algorithm") == bool(self.files):
            raise ValueError("an algorithm has no files and everything else has some")
        if self.parameters and self.engine != "algorithm":
            raise ValueError("parameters: only an algorithm has any")
        if (self.architecture is not None) != (self.engine == "torch"):
            raise ValueError("architecture: an entry for torch, and no other, names one")
        self._check_plan()
        from_source = [file.is_built_from_source for file in self.files]
        downloaded_to_convert = self.source.kind == "url" and self.source.recipe != COPY
        if from_source != [downloaded_to_convert and index == 0 for index in range(len(self.files))]:
            raise ValueError("the first file, and no other, is 'from_source' exactly when a download is converted")
        copied = set() if self.source.kind == "url" and self.source.recipe == COPY else set(self.files[1:])
        if set(self.source.companions) != {file.path for file in copied}:
            raise ValueError("source.companions must name every file besides the first that is copied, and no other")
        if self.is_test_only and self.commercial_use != "forbidden":
            raise ValueError("commercial_use: weights without a licence are forbidden")
        if self.engine != "algorithm" and not (self.inputs and self.outputs):
            raise ValueError("a model needs inputs and outputs")
        return self

    def _check_plan(self) -> None:
        if (self.plan is not None) != (self.engine == "tensorrt"):
            raise ValueError("plan: an entry for TensorRT, and no other, says what it was built for")
        if self.plan is None:
            return
        if not self.name.endswith(self.plan.tag):
            raise ValueError(f"plan: the name of an entry for this GPU ends with {self.plan.tag!r}")
        if self.device_policy != "cuda":
            raise ValueError("device_policy: a TensorRT plan runs on cuda only")
        if self.source.kind != "repository":  # a plan holds compiled code, and what was built elsewhere does not run
            raise ValueError("source: a TensorRT plan is never downloaded")


M = TypeVar("M", bound=ModelFacts)


class Role(Frozen):
    """What components ask for. `without_entry` says why the catalogue offers nothing."""

    used_by: tuple[str, ...] = Field(min_length=1)
    without_entry: str | None = None


class Catalogue:
    """All entries by name, all roles, and the models that wait for their weights to be pinned."""

    def __init__(
        self,
        entries: Mapping[str, CatalogueEntry],
        roles: Mapping[str, Role],
        unpinned: Mapping[str, UnpinnedModel] | None = None,
    ) -> None:
        self.entries = dict(entries)
        self.roles = dict(roles)
        self.unpinned = dict(unpinned or {})

    def __getitem__(self, name: str) -> CatalogueEntry:
        """Raises `model_not_found`."""
        if name not in self.entries:
            raise TrendFlowError("model_not_found", f"The catalogue has no entry {name!r}.", entry=name)
        return self.entries[name]

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self.entries.values())

    def for_role(self, role: str) -> list[CatalogueEntry]:
        """Entries that serve a role. Raises `config_invalid` on a role nobody declared."""
        if role not in self.roles:
            raise TrendFlowError("config_invalid", f"The model role {role!r} is unknown.", role=role)
        return [entry for entry in self if role in entry.roles]

    @classmethod
    def load(cls, path: Path | None = None) -> Catalogue:
        """The catalogue at `path`, or the one that ships with the program."""
        path = path or data_path("models") / "catalogue.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as exc:
            raise TrendFlowError("config_invalid", f"The model catalogue {path.name!r} cannot be read.") from exc
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        """Raises `config_invalid` (no catalogue) or `model_spec_invalid` (a bad entry), with the line."""
        try:
            loader = SafeLoader(text)
            node = loader.get_single_node()
            document = None if node is None else loader.construct_document(node)
        except yaml.YAMLError as exc:
            raise _config_invalid("not valid YAML", error_line(exc, text)) from exc
        if not isinstance(document, dict) or node is None:
            raise _config_invalid("the file must hold a mapping", 1)
        if document.get("version") != CATALOGUE_VERSION:
            raise _config_invalid(f"'version' must be {CATALOGUE_VERSION!r}", _line(node, ("version",)))
        unknown = set(document) - {"version", "roles", "entries", "unpinned"}
        if unknown:
            first = sorted(map(str, unknown))[0]
            raise _config_invalid(f"unknown key {first!r}", _line(node, (first,)))
        for key in ("roles", "entries", "unpinned"):
            if not isinstance(document.get(key, {} if key == "unpinned" else None), dict):
                raise _config_invalid(f"'{key}' must be a mapping", _line(node, (key,)))
        roles = _roles(document["roles"], node)
        entries = _entries(document["entries"], roles, node)
        unpinned = _models(document.get("unpinned", {}), "unpinned", UnpinnedModel, roles, node)
        if twice := sorted(set(unpinned) & set(entries)):
            raise _spec_invalid(twice[0], "has weights and is unpinned at once", _line(node, ("unpinned", twice[0])))
        for name, role in roles.items():
            offered = any(name in entry.roles for entry in entries.values())
            if offered == (role.without_entry is not None):
                problem = f"role {name!r} needs 'without_entry' exactly when no entry serves it"
                raise _config_invalid(problem, _line(node, ("roles", name)))
        return cls(entries, roles, unpinned)


def _roles(section: Mapping[str, Any], node: yaml.Node) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for name, value in section.items():
        try:
            roles[name] = Role.model_validate(value)
        except ValidationError as exc:
            where, problem = _first_problem(exc)
            line = _line(node, ("roles", name, *where))
            raise _config_invalid(f"role {name!r}: {_dotted(where)}{problem}", line) from exc
    return roles


def _entries(section: Mapping[str, Any], roles: Mapping[str, Role], node: yaml.Node) -> dict[str, CatalogueEntry]:
    entries = _models(section, "entries", CatalogueEntry, roles, node)
    for name, entry in entries.items():
        if entry.derived_from is not None and entry.derived_from not in entries:
            line = _line(node, ("entries", name, "derived_from"))
            raise _spec_invalid(name, f"derived_from names the unknown entry {entry.derived_from!r}", line)
    return entries


def _models(
    section: Mapping[str, Any], key: str, kind: type[M], roles: Mapping[str, Role], node: yaml.Node
) -> dict[str, M]:
    """The models of one section of the file, each checked on its own."""
    models: dict[str, M] = {}
    for name, value in section.items():
        at: tuple[str | int, ...] = (key, name)
        if not isinstance(value, dict) or "name" in value:
            raise _spec_invalid(name, "must be a mapping without 'name'; its key is the name", _line(node, at))
        try:
            model = kind.model_validate({**value, "name": name})
        except ValidationError as exc:
            where, problem = _first_problem(exc)
            raise _spec_invalid(name, f"{_dotted(where)}{problem}", _line(node, (*at, *where))) from exc
        for role in model.roles:
            if role not in roles:
                raise _spec_invalid(name, f"unknown role {role!r}", _line(node, (*at, "roles")))
        models[name] = model
    return models


def _first_problem(exc: ValidationError) -> tuple[tuple[str | int, ...], str]:
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    return first["loc"], re.sub(r"^Value error, ", "", first["msg"])


def _dotted(where: tuple[str | int, ...]) -> str:
    return ".".join(map(str, where)) + ": " if where else ""


def _line(node: yaml.Node, path: tuple[str | int, ...]) -> int:
    """Line (from 1) of the deepest part of `path` that exists in the document."""
    line = node.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _config_invalid(problem: str, line: int) -> TrendFlowError:
    return TrendFlowError("config_invalid", f"Model catalogue line {line}: {problem}.", line=line)


def _spec_invalid(entry: str, problem: str, line: int) -> TrendFlowError:
    message = f"Model catalogue line {line}: entry {entry!r}: {problem}."
    return TrendFlowError("model_spec_invalid", message, entry=entry, line=line)
