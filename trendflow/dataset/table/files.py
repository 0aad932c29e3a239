"""The files of a dataset: written whole or not at all, in a folder of its own name; copied to a store marker last."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.parquet import parquet_bytes, table_digest
from trendflow.dataset.table.build import BuiltDataset
from trendflow.dataset.table.description import SCHEMA_VERSION
from trendflow.dataset.table.feature_spec import SPEC_FILE
from trendflow.storage.object_store import ObjectStore

TABLE_FILE, PROVENANCE_FILE, METADATA_FILE = "dataset.parquet", "provenance.parquet", "dataset_metadata.json"
STORE_ROOT = "datasets"


def write_dataset(built: BuiltDataset, parent: Path, schemas: SchemaRegistry) -> Path:
    """Write a dataset as the folder `parent/<dataset_version>` and return it.

    A folder of that name holds the same dataset, since the name is made of the fingerprint; it stays as it is. Whoever
    looks sees the whole folder or none. Raises `config_invalid` when `parent` cannot be written and
    `storage_unavailable` when the disk is full.
    """
    contents = dataset_files(built, schemas)
    target = parent / built.version
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if (target / METADATA_FILE).is_file():
            _require_same(target, built, contents)
            return target
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".tmp-dataset-"))
        try:
            for name, data in contents.items():
                _write(temporary / name, data)
            temporary.chmod(0o755)
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as exc:
        typed = as_typed(exc)
        if typed.error_code == "storage_unavailable":
            raise typed from exc
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise TrendFlowError("config_invalid", f"The folder for datasets cannot be written: {reason}.") from exc
    return target


def dataset_files(built: BuiltDataset, schemas: SchemaRegistry) -> dict[str, bytes]:
    """All files of a dataset in the order they are to be written, the metadata last.

    Raises `artifact_validation_failed` when the metadata break their own schema.
    """
    files = {
        TABLE_FILE: parquet_bytes(built.table),
        PROVENANCE_FILE: parquet_bytes(built.provenance),
        SPEC_FILE: built.spec.to_yaml(),
        **built.reports,
    }
    metadata = {**built.metadata, "files": {name: sha256_hex(data) for name, data in sorted(files.items())}}
    problems = validate_document(schemas, SCHEMA_VERSION, metadata)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"The dataset metadata are not in order: {problems[0]}")
    files[METADATA_FILE] = _json(metadata)
    return files


def store_dataset(folder: Path, store: ObjectStore) -> str:
    """Copy a written dataset to `datasets/<dataset_version>/` of a store and return that key; the metadata go last.

    A dataset without its metadata does not exist for a reader, so an interrupted copy is none.
    """
    prefix = f"{STORE_ROOT}/{folder.name}"
    if store.exists(f"{prefix}/{METADATA_FILE}"):
        return prefix
    names = sorted(path.name for path in folder.iterdir() if path.name != METADATA_FILE)
    for name in (*names, METADATA_FILE):
        store.put_file(f"{prefix}/{name}", folder / name)
    return prefix


def fetch_dataset(store: ObjectStore, prefix: str, parent: Path) -> Path:
    """Copy a dataset of a store to `parent/<dataset_version>`, unless it is there, and return that folder.

    Raises `ObjectNotFound` when the store holds no whole dataset under `prefix`, `artifact_validation_failed` when its
    metadata cannot be read.
    """
    target = parent / prefix.rpartition("/")[2]
    if (target / METADATA_FILE).is_file():
        return target
    try:
        names = tuple(json.loads(store.get(f"{prefix}/{METADATA_FILE}"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"The metadata of {prefix} cannot be read.") from exc
    for name in (*names, METADATA_FILE):
        store.get_file(f"{prefix}/{name}", target / name)
    return target


def _require_same(target: Path, built: BuiltDataset, contents: Mapping[str, bytes]) -> None:
    """A file of this fingerprint that differs means that the build is not deterministic, or the files were changed.

    Tables are held against each other by their values: another release of the library writes other bytes of them.
    """
    tables = {TABLE_FILE: built.table, PROVENANCE_FILE: built.provenance}
    for name in (name for name in contents if name != METADATA_FILE):  # which says when it was made
        path = target / name
        if not path.is_file() or not (
            path.read_bytes() == contents[name] or (name in tables and _holds(path, tables[name]))
        ):
            raise TrendFlowError(
                "artifact_validation_failed",
                f"The dataset {target.name} is there already and its {name} differs; it was damaged or changed.",
            )


def _holds(path: Path, table: pa.Table) -> bool:
    """Whether a Parquet file is this table, whichever library wrote it; False for one that cannot be read."""
    try:
        found = pq.read_table(pa.BufferReader(path.read_bytes()))
    except (pa.ArrowInvalid, OSError):
        return False
    return found.schema.metadata == table.schema.metadata and table_digest(found) == table_digest(table)


def _publish(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not (target / METADATA_FILE).is_file():  # else another build of the same dataset was faster
            raise


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
