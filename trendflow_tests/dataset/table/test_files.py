"""The files of a dataset: whole or not there, and refused as soon as they contradict each other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table import files
from trendflow.dataset.table.build import BuiltDataset
from trendflow.dataset.table.files import (
    METADATA_FILE,
    TABLE_FILE,
    dataset_files,
    fetch_dataset,
    store_dataset,
    write_dataset,
)
from trendflow.dataset.table.reader import Dataset
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import column, store_run
from trendflow_tests.dataset.table.corpora import SCHEMAS, SPEC, build, corpus_snapshots, video


@pytest.fixture
def built(tmp_path: Path) -> BuiltDataset:
    results = ResultStore(ObjectStore.open("memory://"))
    for number in range(3):
        store_run(results, {"a": float(number)}, video=video(number))
    return build(corpus_snapshots(tmp_path, range(3)), results)


def test_what_is_written_is_read(tmp_path: Path, built: BuiltDataset) -> None:
    folder = write_dataset(built, tmp_path / "datasets", SCHEMAS)
    assert folder == tmp_path / "datasets" / built.version
    found = Dataset.read(folder, SCHEMAS)
    assert found.table.equals(built.table) or repr(found.table.to_pylist()) == repr(built.table.to_pylist())
    assert found.feature_names == tuple(sorted([column("a"), *SPEC.metadata_fields]))
    assert found.categorical == ("category_id", "language")
    assert (found.embeddings, found.synthetic, found.mixed) == ((), False, False)
    assert (found.family_of(column("a")), found.family_of("views_0")) == ("visual", "metadata")
    assert found.spec.hash == SPEC.hash
    assert pq.read_schema(folder / TABLE_FILE).metadata[b"dataset_fingerprint"].decode() == found.fingerprint
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.parquet",
        "dataset_metadata.json",
        "feature_spec.yaml",
        "import_report.json",
        "leakage_report.json",
        "provenance.parquet",
        "refused.json",
        "target_report.json",
    ]


def test_writing_again_changes_nothing(tmp_path: Path, built: BuiltDataset) -> None:
    folder = write_dataset(built, tmp_path, SCHEMAS)
    before = (folder / METADATA_FILE).read_bytes()
    assert write_dataset(built, tmp_path, SCHEMAS) == folder
    assert (folder / METADATA_FILE).read_bytes() == before
    for name in ("refused.json", TABLE_FILE):
        (folder / name).write_bytes(b"PAR1")
        with pytest.raises(TrendFlowError, match=f"{re.escape(name)} differs"):
            write_dataset(built, tmp_path, SCHEMAS)
        (folder / name).write_bytes(dataset_files(built, SCHEMAS)[name])
    assert write_dataset(built, tmp_path, SCHEMAS) == folder


@pytest.mark.parametrize("name", [TABLE_FILE, "provenance.parquet"])
def test_tables_that_another_release_of_the_library_wrote_are_the_same(
    tmp_path: Path, built: BuiltDataset, name: str
) -> None:
    folder = write_dataset(built, tmp_path, SCHEMAS)
    ours = (folder / name).read_bytes()
    table = pq.read_table(folder / name)
    pq.write_table(table, folder / name, compression="none", version="1.0")
    assert (folder / name).read_bytes() != ours
    assert write_dataset(built, tmp_path, SCHEMAS) == folder
    pq.write_table(table.slice(1), folder / name)
    with pytest.raises(TrendFlowError, match=f"{re.escape(name)} differs"):
        write_dataset(built, tmp_path, SCHEMAS)


def test_an_interrupted_writing_leaves_nothing(
    tmp_path: Path, built: BuiltDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.fsync, []

    def fails_late(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fails_late)
    with pytest.raises(TrendFlowError) as caught:
        write_dataset(built, tmp_path / "datasets", SCHEMAS)
    assert caught.value.error_code == "storage_unavailable"
    assert list((tmp_path / "datasets").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, built: BuiltDataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrendFlowError) as caught:
        write_dataset(built, tmp_path / "file", SCHEMAS)
    assert caught.value.error_code == "config_invalid"


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return change


def _metadata(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / METADATA_FILE).read_bytes())
        (folder / METADATA_FILE).write_text(json.dumps({**document, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "code", "why"),
    [
        (_drop(METADATA_FILE), "dependency_missing", "holds no dataset"),
        (_drop(TABLE_FILE), "artifact_validation_failed", "cannot be read"),
        (_flip(TABLE_FILE), "artifact_validation_failed", "not the file that was written"),
        (_flip("provenance.parquet"), "artifact_validation_failed", "not the file that was written"),
        (_flip("feature_spec.yaml"), "artifact_validation_failed", "not the file that was written"),
        (_flip("refused.json"), "artifact_validation_failed", "not the file that was written"),
        (_metadata(dataset_fingerprint="0" * 64), "artifact_validation_failed", "different datasets"),
        (_metadata(synthetic=True), "artifact_validation_failed", "whether it is synthetic"),
        (_metadata(mixed=True), "artifact_validation_failed", "whether it is mixed"),
        (_metadata(feature_spec_hash="0" * 64), "artifact_validation_failed", "feature spec"),
        (_metadata(n_rows=4), "artifact_validation_failed", "different datasets"),
        (_metadata(n_rows=-1), "artifact_validation_failed", "n_rows"),
        (_metadata(more=1), "artifact_validation_failed", "more"),
    ],
)
def test_a_dataset_that_is_not_in_order_is_refused(
    tmp_path: Path, built: BuiltDataset, damage: Callable[[Path], None], code: str, why: str
) -> None:
    folder = write_dataset(built, tmp_path, SCHEMAS)
    damage(folder)
    with pytest.raises(TrendFlowError, match=why) as caught:
        Dataset.read(folder, SCHEMAS)
    assert caught.value.error_code == code


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"passed": False}, "findings"),
        ({"verdicts": {}}, "verdicts"),
        ({"schema_version": "leakage_audit_v2"}, "schema_version"),
        ({"more": 1}, "more"),
    ],
)
def test_a_leakage_report_of_another_form_is_refused(
    tmp_path: Path, built: BuiltDataset, change: dict[str, object], why: str
) -> None:
    folder = write_dataset(built, tmp_path, SCHEMAS)
    report = json.dumps({**json.loads(built.reports["leakage_report.json"]), **change}).encode()
    (folder / "leakage_report.json").write_bytes(report)
    digests = json.loads((folder / METADATA_FILE).read_bytes())["files"]
    _metadata(files={**digests, "leakage_report.json": sha256_hex(report)})(folder)
    with pytest.raises(TrendFlowError, match=rf"no leakage_audit_v1.*{why}") as caught:
        Dataset.read(folder, SCHEMAS)
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_store_gives_back_what_it_got_and_nothing_half_copied(tmp_path: Path, built: BuiltDataset) -> None:
    folder = write_dataset(built, tmp_path, SCHEMAS)
    store = ObjectStore.open("memory://")
    prefix = store_dataset(folder, store)
    assert prefix == f"datasets/{built.version}"
    fetched = fetch_dataset(store, prefix, tmp_path / "other")
    assert Dataset.read(fetched, SCHEMAS).metadata == Dataset.read(folder, SCHEMAS).metadata
    store.put(f"{prefix}/{METADATA_FILE}", b'{"files"')
    with pytest.raises(TrendFlowError) as damaged:
        fetch_dataset(store, prefix, tmp_path / "third")
    assert damaged.value.error_code == "artifact_validation_failed"
    store.delete(f"{prefix}/{METADATA_FILE}")
    with pytest.raises(ObjectNotFound):
        fetch_dataset(store, prefix, tmp_path / "third")
