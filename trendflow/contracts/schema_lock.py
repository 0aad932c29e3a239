"""Locks that make a forgotten version bump fail: schema contents per version, component sources per version.

`versions.lock.json` holds a digest of the normative part of every schema, `producers.lock.json` the digest of the
source behind every `producer_version`. Both are written by `trendflow schemas lock` and reviewed like code.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_rules import check_artifact_schema
from trendflow.contracts.schema_types import SCHEMA_SYSTEM_VERSION
from trendflow.contracts.source_digest import source_digest

VERSIONS_LOCK = "versions.lock.json"
PRODUCERS_LOCK = "producers.lock.json"

Sources = Mapping[str, tuple[str, Iterable[Path]]]
"""Component name → its `producer_version` and the source files that decide its values."""

# What only explains, and who reads it, may be improved at any time.
_EXPLANATORY = frozenset({"description", "title", "$comment", "consumers"})
# Below these keys stand names chosen by the schema's author, and a field may well be called `title`.
_NAMES = frozenset({"fields", "features", "properties", "$defs"})


def normative(document: Any, *, names: bool = False) -> Any:
    """A schema document without what merely explains it. `names`: the keys of `document` are names, not keywords."""
    if isinstance(document, Mapping):
        return {
            key: normative(value, names=not names and key in _NAMES)
            for key, value in document.items()
            if names or key not in _EXPLANATORY
        }
    if isinstance(document, list):
        return [normative(value) for value in document]
    return document


def schema_digests(registry: SchemaRegistry) -> dict[str, str]:
    """Schema or document name → digest of its normative part."""
    documents = {**registry.documents, **{schema.schema_version: schema.document for schema in registry}}
    return {name: digest_of(normative(document)) for name, document in sorted(documents.items())}


def check_schemas(registry: SchemaRegistry) -> list[str]:
    """Everything wrong with the schemas of a registry: their format, their rules and their lock."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    problems: list[str] = []
    for name, document in registry.documents.items():
        try:
            Draft202012Validator.check_schema(document)
        except SchemaError as exc:
            problems.append(f"{name} is no JSON Schema: {exc.json_path}: {exc.message}.")
    form = registry.document_validator(SCHEMA_SYSTEM_VERSION)
    for schema in registry:
        errors = sorted(form.iter_errors(schema.document), key=lambda error: error.json_path)
        problems += [f"{schema.schema_version}: {error.json_path}: {error.message}." for error in errors]
        problems += check_artifact_schema(schema)
    return problems + _check_versions(schema_digests(registry), _read_lock(registry.directory / VERSIONS_LOCK))


def _check_versions(current: Mapping[str, str], locked: Mapping[str, str]) -> list[str]:
    problems = []
    for name in sorted({*current, *locked}):
        if name not in current:
            problems.append(f"The schema {name} is locked but its file is gone; stored artifacts still refer to it.")
        elif name not in locked:
            problems.append(f"The schema {name} is not locked; run `trendflow schemas lock`.")
        elif current[name] != locked[name]:
            problems.append(f"The schema {name} changed without a version bump; give the change a new version.")
    return problems


def lock_schemas(registry: SchemaRegistry, unreleased: Collection[str] = ()) -> list[str]:
    """Add new schemas to the lock and return what was written.

    A locked schema that changed is refused with `config_invalid`, unless `unreleased` names it: no artifact of that
    version has left this machine. Only then may its entry also disappear with its file.
    """
    path = registry.directory / VERSIONS_LOCK
    current, locked = schema_digests(registry), _read_lock(path)
    touched = sorted(name for name in {*current, *locked} if current.get(name) != locked.get(name))
    refused = [name for name in touched if name in locked and name not in unreleased]
    if refused:
        raise TrendFlowError(
            "config_invalid",
            f"The released schemas {refused} changed; give each change a new version.",
            schemas=refused,
        )
    _write_lock(path, current)
    return touched


def check_sources(components: Sources, directory: Path) -> list[str]:
    """Components whose source differs from what their `producer_version` was pinned to in `directory`."""
    pins = _read_lock(directory / PRODUCERS_LOCK)
    problems = []
    for name, (version, files) in sorted(components.items()):
        pin = pins.get(name)
        if pin is None or pin["producer_version"] != version:
            problems.append(f"The source of {name} {version} is not pinned; run `trendflow schemas lock`.")
        elif pin["source_sha256"] != source_digest(files):
            problems.append(f"The source of {name} changed but its producer_version is still {version}; raise it.")
    problems += [f"The lock pins {name}, which is no component." for name in sorted(set(pins) - set(components))]
    return problems


def lock_sources(components: Sources, directory: Path, unreleased: Collection[str] = ()) -> list[str]:
    """Pin the sources of new `producer_version`s and return the components whose pin changed.

    A changed source under a pinned version is refused with `config_invalid` unless `unreleased` names the component.
    """
    path = directory / PRODUCERS_LOCK
    pins = _read_lock(path)
    current = {
        name: {"producer_version": version, "source_sha256": source_digest(files)}
        for name, (version, files) in components.items()
    }
    touched = sorted(name for name in {*current, *pins} if current.get(name) != pins.get(name))
    refused = [name for name in touched if _same_version(pins.get(name), current.get(name)) and name not in unreleased]
    if refused:
        raise TrendFlowError(
            "config_invalid", f"The source of {refused} changed under a pinned producer_version.", components=refused
        )
    _write_lock(path, current)
    return touched


def _same_version(pin: Mapping[str, str] | None, current: Mapping[str, str] | None) -> bool:
    return pin is not None and current is not None and pin["producer_version"] == current["producer_version"]


def _read_lock(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise TrendFlowError("config_invalid", f"The lock file {path.name} is not valid JSON.") from exc
    return dict(lock)


def _write_lock(path: Path, lock: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(sorted(lock.items())), indent=2) + "\n", encoding="utf-8")
