"""Reading a dataset, and holding its files against each other before anything rests on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.leakage import AUDIT_FILE, require_audit
from trendflow.dataset.table.columns import ColumnProvenance, read_provenance
from trendflow.dataset.table.description import SCHEMA_VERSION
from trendflow.dataset.table.feature_spec import SPEC_FILE, FeatureSpec
from trendflow.dataset.table.files import METADATA_FILE, PROVENANCE_FILE, TABLE_FILE


@dataclass(frozen=True)
class Dataset:
    """A dataset as it lies in its folder, every file of which has the digest that the metadata state."""

    folder: Path
    table: pa.Table
    metadata: Mapping[str, Any]
    spec: FeatureSpec
    provenance: tuple[ColumnProvenance, ...]

    @classmethod
    def read(cls, folder: Path, schemas: SchemaRegistry | None = None) -> Dataset:
        """Read and verify a dataset.

        Raises `dependency_missing` when `folder` holds none, `artifact_validation_failed` when a file is missing,
        changed, or contradicts the others.
        """
        metadata = _metadata(folder, schemas or SchemaRegistry.load())
        files = {name: _verified(folder, name, digest) for name, digest in metadata["files"].items()}
        try:
            table = pq.read_table(pa.BufferReader(files[TABLE_FILE]))
            provenance = tuple(read_provenance(pq.read_table(pa.BufferReader(files[PROVENANCE_FILE]))))
            spec = FeatureSpec.from_document(yaml.safe_load(files[SPEC_FILE]))
            audit = json.loads(files[AUDIT_FILE])
        except (KeyError, OSError, ValueError, yaml.YAMLError) as exc:  # pa.ArrowInvalid is a ValueError
            raise _broken("a file is not what its name says") from exc
        require_audit(audit)
        found = cls(folder, table, metadata, spec, provenance)
        found._require_consistent()
        return found

    @property
    def fingerprint(self) -> str:
        return str(self.metadata["dataset_fingerprint"])

    @property
    def synthetic(self) -> bool:
        """Whether any of it was invented; then all that is made of it says so."""
        return bool(self.metadata["synthetic"])

    @property
    def mixed(self) -> bool:
        """Whether its rows were computed by several programs; such a dataset may be looked at, not trained on."""
        return bool(self.metadata["mixed"])

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Scalar features, sorted: numbers with NaN, and categories as strings with null, where unknown."""
        return tuple(found.column for found in self.provenance if found.column not in self.embeddings)

    @cached_property
    def embeddings(self) -> tuple[str, ...]:
        """Features that are vectors, sorted."""
        names = (found.column for found in self.provenance)
        return tuple(name for name in names if pa.types.is_fixed_size_list(self.table.schema.field(name).type))

    @property
    def categorical(self) -> tuple[str, ...]:
        """Features that are categories, sorted."""
        return self.spec.categorical

    def family_of(self, column: str) -> str:
        """One of `columns.FAMILIES`. Raises KeyError for a column that is no feature."""
        return self._families[column]

    @cached_property
    def _families(self) -> Mapping[str, str]:
        return {found.column: found.family for found in self.provenance}

    def _require_consistent(self) -> None:
        marks = {key.decode(): value.decode() for key, value in (self.table.schema.metadata or {}).items()}
        if marks.get("dataset_fingerprint") != self.fingerprint or self.table.num_rows != self.metadata["n_rows"]:
            raise _broken("table and metadata are of different datasets")
        for mark, holds in (("synthetic", self.synthetic), ("mixed", self.mixed)):
            if marks.get(mark) != str(holds).lower():
                raise _broken(f"table and metadata disagree on whether it is {mark}")
        if self.spec.hash != self.metadata["feature_spec_hash"]:
            raise _broken("the feature spec is not the one it was built with")
        if missing := {found.column for found in self.provenance} - set(self.table.column_names):
            raise _broken(f"the table lacks the feature {min(missing)}")


def _metadata(folder: Path, schemas: SchemaRegistry) -> dict[str, Any]:
    try:
        document = json.loads((folder / METADATA_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise TrendFlowError(
            "dependency_missing", f"The folder {folder.name!r} holds no dataset.", kind="dataset"
        ) from exc
    except (OSError, ValueError) as exc:
        raise _broken("its metadata cannot be read") from exc
    problems = validate_document(schemas, SCHEMA_VERSION, document)
    if problems:
        raise _broken(problems[0])
    return dict(document)


def _verified(folder: Path, name: str, digest: str) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as exc:
        raise _broken(f"{name} cannot be read") from exc
    if sha256_hex(data) != digest:
        raise _broken(f"{name} is not the file that was written")
    return data


def _broken(why: str) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", f"The dataset is not in order: {why.rstrip('.')}.")
