"""Files of any accepted form into one `SnapshotSet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.json_shards import read_json_shard
from trendflow.dataset.snapshots.long_table import read_csv, read_parquet
from trendflow.dataset.snapshots.observations import Observations
from trendflow.dataset.snapshots.tables import SnapshotSet

READERS: Mapping[str, Callable[[BinaryIO, str, Observations], None]] = {
    ".json": read_json_shard,
    ".parquet": read_parquet,
    ".csv": read_csv,
}

Opener = Callable[[Path], BinaryIO]


def import_snapshots(files: Sequence[Path], open_file: Opener | None = None) -> SnapshotSet:
    """Read all files; the same files in any order give the same set.

    `open_file` opens one for reading in place of `Path.open`, to follow the progress.

    Raises `config_invalid` for a folder and for a file of an unknown kind, `dependency_missing` for one that is not
    there, `input_constraint_violated` for a CSV whose quotes are not in order, and `artifact_validation_failed` for one
    that cannot be read: nothing is imported then.
    """
    into = Observations()
    add_files(files, into, open_file)
    return into.finish()


def add_files(files: Sequence[Path], into: Observations, open_file: Opener | None = None) -> None:
    """Add the snapshots of all files; errors as `import_snapshots`."""
    unknown = [path.name for path in files if path.suffix.lower() not in READERS]
    if unknown:
        raise TrendFlowError(
            "config_invalid", f"{unknown[0]!r} is no snapshot file; snapshots come in {', '.join(READERS)}."
        )
    for path in sorted(files):
        try:
            file = (open_file or _open)(path)
        except FileNotFoundError as exc:
            raise TrendFlowError("dependency_missing", f"There is no file {path.name!r}.", kind="file") from exc
        except IsADirectoryError as exc:
            raise TrendFlowError("config_invalid", f"{path.name!r} is a folder; name the files in it.") from exc
        except OSError as exc:
            raise TrendFlowError(
                "config_invalid", f"The file {path.name!r} cannot be opened.", errno=exc.errno
            ) from exc
        with file:
            READERS[path.suffix.lower()](file, path.name, into)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
