"""`trendflow models`: what there is, whether the weights are in order, and how they get here."""

from __future__ import annotations

from pathlib import Path

from trendflow.commands.console import err, human_bytes, out, table
from trendflow.commands.files import write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue

_STATES = {"present": "green", "missing": "yellow", "mismatch": "red"}


def list_models() -> int:
    """Print entries with the state of their files, and every role with what serves it."""
    from trendflow.models.inventory import list_models as inventory

    found = inventory(Catalogue.load(), load_settings().models_dir)
    rows = [
        [
            entry.name,
            ", ".join(entry.roles),
            f"{entry.engine} {entry.precision}",
            entry.licence_spdx,
            entry.commercial_use,
            human_bytes(entry.bytes),
            f"[{_STATES[entry.digest_state]}]{entry.digest_state}[/]",
        ]
        for entry in found.entries
    ]
    columns = ["entry", "roles", "engine", "licence", "commercial use", "size", "weights"]
    out.print(table("models", columns, rows, right=("size",)))
    roles = [[row.role, ", ".join(row.entries), row.reason or "", ", ".join(row.used_by)] for row in found.roles]
    out.print(table("roles", ["role", "entries", "why there is none", "used by"], roles))
    return 0


def verify(names: list[str]) -> int:
    """Check digests and load each model. Raises the error of the first that is not in order."""
    from trendflow.models.inventory import verify_models

    found = verify_models(Catalogue.load(), load_settings().models_dir, names or None)
    rows = [
        [
            row.name,
            row.version,
            "[green]ok[/]" if row.error_code is None else f"[red]{row.error_code}[/]",
            row.problem or "",
        ]
        for row in found
    ]
    out.print(table(None, ["entry", "version", "state", "finding"], rows))
    for row in found:
        if row.error_code is not None:
            raise TrendFlowError(row.error_code, row.problem or "The model is not in order.")
    return 0


def build(names: list[str]) -> int:
    """Make the weights from what ships with the project and from installed packages."""
    from trendflow.models.build import build_models

    folder = load_settings().models_dir
    with err.status("building models"):
        built = build_models(
            Catalogue.load(), folder, names or None, lambda row: err.print(f"{row.entry} {row.version}: {row.action}")
        )
    out.print(f"{len(built)} models, {human_bytes(sum(row.bytes for row in built))}")
    return 0


def pull(names: list[str]) -> int:
    """Download weights that are pinned to an address. The only command that reaches a network for models."""
    from trendflow.models.pull import pull_models

    pulled = pull_models(Catalogue.load(), load_settings().models_dir, names or None)
    if not pulled:
        out.print("The catalogue names no weights that have to be downloaded.")
    for row in pulled:
        out.print(f"{row.entry} {row.version}: {row.action}")
    return 0


def licences(target: Path | None) -> int:
    """Write the licence inventory, or print it."""
    from trendflow.models.licences import render_licences

    text = render_licences(Catalogue.load())
    if target is None:
        out.print(text, highlight=False, markup=False)
    else:
        write_output(target, text.encode())
    return 0
