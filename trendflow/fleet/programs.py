"""Where the server programs are that installed packages carry."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError

EXTRA = "fleet"


def program(distribution: str, name: str) -> Path:
    """The program `name` of an installed distribution; its files are asked, for each keeps it elsewhere.

    Raises `dependency_missing` when the package is not installed or has no such program for this machine.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as exc:
        raise TrendFlowError(
            "dependency_missing",
            f"The package {distribution} is not installed; install trendflow[{EXTRA}].",
            kind="package",
            package=distribution,
        ) from exc
    for file in files:
        if file.name == name:
            found = Path(str(file.locate())).resolve()
            if found.exists():
                return found
    raise TrendFlowError(
        "dependency_missing",
        f"The package {distribution} has no program {name!r} for this machine.",
        kind="package",
        package=distribution,
    )
