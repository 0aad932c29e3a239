"""The schema registry and the validators used both at run time and in continuous integration.

Two kinds of files lie under `schemas/`: machine schemas of artifacts (`vp_schema_v1`, one per `schema_version`) and
JSON Schema documents (draft 2020-12) for the JSON files of a run. Readers accept exactly the versions they list;
nothing converts silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema_arrays import check_arrays
from trendflow.contracts.schema_meta import check_meta
from trendflow.contracts.schema_types import TOTAL_FRAMES, ArtifactSchema, parse_artifact_schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

DOCUMENT_URN = "urn:trendflow:"
MAX_DOCUMENT_PROBLEMS = 20
MAX_RULE_LENGTH = 160


class SchemaRegistry:
    """All schemas of one folder. Iterates over the artifact schemas by version."""

    def __init__(
        self, directory: Path, artifacts: Mapping[str, ArtifactSchema], documents: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.directory = directory
        self._artifacts = dict(artifacts)
        self.documents = dict(documents)
        self._validators: dict[str, Validator] = {}

    @classmethod
    def load(cls, directory: Path | None = None) -> SchemaRegistry:
        """Read `directory`, by default the schemas shipped with the program.

        Raises `config_invalid` for a file that is no schema or whose name differs from its version.
        """
        directory = data_path("schemas") if directory is None else directory
        artifacts: dict[str, ArtifactSchema] = {}
        documents: dict[str, Mapping[str, Any]] = {}
        for path in sorted(directory.glob("*.json")):
            if path.name.endswith(".lock.json"):
                continue
            document = _read_json(path)
            if "schema_system_version" in document:
                schema = parse_artifact_schema(document)
                artifacts[schema.schema_version] = schema
                name = schema.schema_version
            else:
                name = str(document.get("$id", "")).removeprefix(DOCUMENT_URN)
                documents[name] = document
            if name != path.stem:
                raise TrendFlowError("config_invalid", f"The schema file {path.name} declares itself as {name!r}.")
        return cls(directory, artifacts, documents)

    def __iter__(self) -> Iterator[ArtifactSchema]:
        return iter(self._artifacts.values())

    def __contains__(self, schema_version: object) -> bool:
        return schema_version in self._artifacts

    def get(self, schema_version: str) -> ArtifactSchema:
        """The schema of an artifact version. Raises `artifact_validation_failed` for an unknown one."""
        if schema_version not in self._artifacts:
            raise TrendFlowError("artifact_validation_failed", f"The schema {schema_version!r} is unknown.")
        return self._artifacts[schema_version]

    def document_validator(self, name: str) -> Validator:
        """Compiled validator of a JSON document. Raises `config_invalid` for an unknown name."""
        if name not in self.documents:
            raise TrendFlowError("config_invalid", f"The document schema {name!r} is unknown.")
        if name not in self._validators:
            # Imported here: workers that only handle arrays never pay for these libraries.
            import referencing
            from jsonschema import Draft202012Validator

            resources = [
                (document["$id"], referencing.Resource.from_contents(document)) for document in self.documents.values()
            ]
            store: referencing.Registry[Any] = referencing.Registry().with_resources(resources)
            self._validators[name] = Draft202012Validator(self.documents[name], registry=store)
        return self._validators[name]


def validate_artifact(
    registry: SchemaRegistry,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    *,
    total_frames: int | None = None,
) -> list[str]:
    """Everything that is wrong with an artifact, one sentence each; an empty list means valid.

    `total_frames` is the size of the union that `frame_indices` point into; without it the value in `meta` counts,
    and without both the upper bound of indices is not checked.
    """
    version = meta.get("schema_version")
    if not isinstance(version, str) or version not in registry:
        return [f"The schema {version!r} is unknown."]
    schema = registry.get(version)
    problems = check_meta(schema, arrays, meta)
    if meta.get("status") == "error":
        return problems + (["An error artifact must hold nothing but meta."] if arrays else [])
    stated = meta.get(TOTAL_FRAMES)
    if stated is not None and (not isinstance(stated, int) or stated < 0):
        return [*problems, "total_frames is not a number of frames."]
    if total_frames is not None and stated is not None and stated != total_frames:
        problems.append(f"total_frames is {stated!r} in meta but the union has {total_frames}.")
    return problems + check_arrays(schema, arrays, stated if total_frames is None else total_frames)


def require_valid(
    registry: SchemaRegistry,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    *,
    total_frames: int | None = None,
) -> None:
    """Raise `artifact_validation_failed` with all problems in its detail unless the artifact is valid."""
    problems = validate_artifact(registry, arrays, meta, total_frames=total_frames)
    if problems:
        raise TrendFlowError(
            "artifact_validation_failed",
            f"An artifact does not match {meta.get('schema_version')!r}: {problems[0]}",
            problems=problems,
        )


def validate_document(registry: SchemaRegistry, name: str, document: Any) -> list[str]:
    """Problems of a JSON document (`manifest_v1`, `run_request_v1`, …), at most 20, each with its place.

    Raises `config_invalid` when no such schema exists.
    """
    errors = sorted(registry.document_validator(name).iter_errors(document), key=lambda error: error.json_path)
    return [f"{error.json_path}: {_sentence(error)}." for error in errors[:MAX_DOCUMENT_PROBLEMS]]


def _sentence(error: ValidationError) -> str:
    # The library quotes the offending value, which may be a whole list or a private URL; the rule says enough.
    if error.validator in ("required", "additionalProperties"):
        return error.message
    rule = json.dumps(error.validator_value, ensure_ascii=False)
    return (
        f"breaks the rule {error.validator!r}: {rule if len(rule) <= MAX_RULE_LENGTH else rule[:MAX_RULE_LENGTH] + '…'}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise TrendFlowError("config_invalid", f"The schema file {path.name} is not valid JSON.") from exc
    if not isinstance(document, dict):
        raise TrendFlowError("config_invalid", f"The schema file {path.name} must hold a JSON object.")
    return document
