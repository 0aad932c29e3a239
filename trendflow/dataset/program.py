"""Which program turns snapshots and runs into a dataset, as digests: a changed line makes what it made before other.

One digest per step whose result is kept under a key. Each covers the modules that can alter a value of that result, and
nothing of the machine: neither the interpreter, nor paths, nor comments. What of the installation can alter a value is
told by `library_versions`.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.metadata import version
from pathlib import Path

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.source_digest import source_digest
from trendflow.contracts.word_lists import CLICKBAIT

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of the installed program."""

_ONLY_KEEP = ("files.py", "reader.py")
"""Modules of `dataset/table` that write and read what the others made. What is not named here counts."""
_ALSO_BUILD = (
    "dataset/corpus.py",
    "dataset/leakage.py",
    "dataset/leakage_statistics.py",
    "dataset/snapshots/report.py",
    "dataset/snapshots/values.py",
    "components/dataset/_columns.py",
    "components/text/_constants.py",
    "components/text/_hashtags.py",
    "components/text/_lexical.py",
    "components/text/_text_form.py",
    "contracts/manifest.py",
)
_TELL_CHARACTERS = ("emoji", "regex")
_MAKE_TARGETS = ("dataset/parquet.py", "dataset/snapshots/tables.py", "dataset/targets.py")
_ALSO_IMPORT = ("dataset/collector/snapshot_store.py", "dataset/parquet.py")


@cache
def builder_digest() -> str:
    """sha256 over what chooses rows and columns, computes features and targets, guards and describes them."""
    return digest_of({"source": source_digest(builder_files()), "reference": CLICKBAIT.reference})


def library_versions() -> dict[str, str]:
    """What decides which characters of a title are words, emoji or marks: tables of characters, which grow.

    The libraries that reckon and that write files are not among it: they alter no value, and bytes of files are not
    compared (`table.files`).
    """
    return {"unicode": unicodedata.unidata_version, **{name: version(name) for name in _TELL_CHARACTERS}}


@cache
def targets_digest() -> str:
    """sha256 over what reckons targets from snapshots."""
    return source_digest(_files(PACKAGE, _MAKE_TARGETS))


@cache
def importer_digest() -> str:
    """sha256 over what reads snapshots of any form into one."""
    return source_digest(importer_files())


def builder_files(package: Path = PACKAGE) -> list[Path]:
    """The modules behind `builder_digest`."""
    own = [path for path in (package / "dataset/table").glob("*.py") if path.name not in _ONLY_KEEP]
    return [*own, *_files(package, _ALSO_BUILD), *_files(package, _MAKE_TARGETS)]


def importer_files(package: Path = PACKAGE) -> list[Path]:
    """The modules behind `importer_digest`."""
    return [*(package / "dataset/snapshots").glob("*.py"), *_files(package, _ALSO_IMPORT)]


def _files(package: Path, names: tuple[str, ...]) -> list[Path]:
    return [package / name for name in names]
