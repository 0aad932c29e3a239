"""The digests of the program: every module that can alter a value counts, and nothing else does."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trendflow.contracts.source_digest import source_digest
from trendflow.dataset.program import PACKAGE, builder_digest, builder_files, importer_files

# What a counted module takes from here reads, stores or asks; it puts no value into a table.
STORES_OR_ASKS = {
    "trendflow.dataset.collector.channel_statistics",
    "trendflow.dataset.collector.quota",
    "trendflow.dataset.collector.schedule",
    "trendflow.dataset.program",
    "trendflow.dataset.table.reader",
    # They compute feature vectors, which are inputs with digests of their own.
    "trendflow.components.base",
    "trendflow.components.visual._summary",
}
_WATCHED = ("trendflow.dataset.", "trendflow.components.")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the program below another folder."""
    for part in ("dataset", "components", "contracts"):
        shutil.copytree(PACKAGE / part, tmp_path / "copy" / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def plant(path: Path) -> None:
    """Let the module do something else than before."""
    path.write_text(f"{path.read_text(encoding='utf-8')}\nPLANTED = 1\n", encoding="utf-8")


@pytest.mark.parametrize("files", [builder_files, importer_files])
def test_all_that_a_counted_module_takes_is_counted(files: Callable[[], list[Path]]) -> None:
    counted = {path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in files()}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(_WATCHED):
                name = str(node.module)
                assert name in STORES_OR_ASKS or name.removeprefix("trendflow.") in counted, f"{path.name}: {name}"


@pytest.mark.parametrize(
    "module",
    [
        "dataset/table/first_sight.py",
        "dataset/table/selection.py",
        "dataset/targets.py",
        "dataset/leakage.py",
        "components/text/_lexical.py",
    ],
)
def test_a_changed_builder_is_another_program(copied: Path, module: str) -> None:
    before = source_digest(builder_files(copied))
    plant(copied / module)
    assert source_digest(builder_files(copied)) != before


def test_a_new_module_is_another_program(copied: Path) -> None:
    before = source_digest(builder_files(copied))
    (copied / "dataset/table/more.py").write_text("FACTOR = 2\n", encoding="utf-8")
    assert source_digest(builder_files(copied)) != before


def test_a_changed_reader_of_csv_is_another_importer(copied: Path) -> None:
    before, table = source_digest(importer_files(copied)), source_digest(builder_files(copied))
    plant(copied / "dataset/snapshots/long_table.py")
    assert source_digest(importer_files(copied)) != before
    assert source_digest(builder_files(copied)) == table, "its tables are inputs, by their own digests"


def test_folder_comments_and_files_that_only_keep_do_not_matter(copied: Path) -> None:
    expected = source_digest(builder_files())
    for path in builder_files(copied):
        path.write_text(f"# a comment\n{path.read_text(encoding='utf-8')}\n\n", encoding="utf-8")
    plant(copied / "dataset/table/files.py")
    assert source_digest(builder_files(copied)) == expected


def test_the_digest_is_the_same_every_time() -> None:
    first = builder_digest()
    builder_digest.cache_clear()
    assert builder_digest() == first
