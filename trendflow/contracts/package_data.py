"""Where the files that belong to the program are: in a checkout at its top level, in a wheel inside the package."""

from __future__ import annotations

from pathlib import Path

from trendflow.contracts.errors import TrendFlowError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(name: str) -> Path:
    """The shipped file or folder `name` (`component_graph.yaml`, `schemas`, `models`, `samples`, …).

    Raises `dependency_missing` when the installation lacks it.
    """
    # A wheel carries `_data`; an editable install has the checkout around the package instead.
    bundled = _PACKAGE / "_data"
    path = (bundled if bundled.is_dir() else _PACKAGE.parent) / name
    if not path.exists():
        raise TrendFlowError("dependency_missing", f"This installation lacks {name!r}.", kind="package_data", name=name)
    return path
