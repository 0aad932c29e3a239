"""`trendflow models`: what there is, whether the weights are in order, and how they get here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.commands.console import err, human_bytes, out, table
from trendflow.commands.files import write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue

if TYPE_CHECKING:
    from trendflow.models.inventory import Inventory
    from trendflow.models.profile_models import ProfileModels

_STATES = {"present": "green", "missing": "yellow", "mismatch": "red"}


def list_models(as_json: bool = False) -> int:
    """Print entries with the state of their files, what each profile maps and leaves out, and what nothing serves."""
    from trendflow.contracts.graph import load_graph
    from trendflow.models.inventory import list_models as inventory

    settings = load_settings()
    graph = load_graph(settings.graph_file or data_path("component_graph.yaml"))
    found = inventory(Catalogue.load(), settings.models_dir, graph)
    if as_json:
        out.print_json(data=asdict(found))
        return 0
    _print_entries(found)
    for profile in found.profiles:
        _print_profile(profile)
    _print_gaps(found)
    return 0


def _print_entries(found: Inventory) -> None:
    rows = [
        [
            entry.name,
            ", ".join(entry.roles),
            f"{entry.engine} {entry.precision}",
            entry.licence_spdx,
            entry.commercial_use,
            human_bytes(entry.bytes) if entry.bytes else "",
            _state(entry.digest_state),
        ]
        for entry in found.entries
    ]
    out.print(table("models", ["entry", "role", "engine", "licence", "use", "size", "weights"], rows, right=("size",)))
    commands = {entry.command.rpartition(" ")[0] for entry in found.entries if entry.command}
    for command in sorted(commands):
        names = [
            entry.name
            for entry in found.entries
            if entry.digest_state != "present" and entry.command == f"{command} {entry.name}"
        ]
        if names:
            out.print(f"missing ones come with: {command} {' '.join(names)}", markup=False, highlight=False)
    out.print()


def _print_profile(profile: ProfileModels) -> None:
    rows = [
        [
            use.role,
            use.entry or f"none: {use.reason}",
            _state(use.digest_state) if use.digest_state else "",
            ", ".join(use.used_by),
        ]
        for use in profile.roles
    ]
    out.print(table(f"profile {profile.name}", ["role", "model", "weights", "used by"], rows))
    if profile.left_out:
        out.print()
        left_out = [[row.component, row.reason] for row in profile.left_out]
        out.print(table(f"profile {profile.name} leaves out", ["component", "why"], left_out))
    out.print()


def _print_gaps(found: Inventory) -> None:
    if found.drafts:
        rows = [
            [draft.name, draft.extends, ", ".join(draft.without_code), ", ".join(draft.without_model)]
            for draft in found.drafts
        ]
        columns = ["profile", "extends", "components without code", "roles without a model"]
        out.print(table("drafted profiles, which no run can use", columns, rows))
        out.print()
    if found.unpinned:
        rows = [[row.name, ", ".join(row.roles), row.reason] for row in found.unpinned]
        out.print(table("models that cannot be loaded yet", ["model", "role", "why"], rows))
        out.print()
    roles = [[row.role, row.reason, ", ".join(row.used_by)] for row in found.roles if row.reason]
    out.print(table("roles that no model serves", ["role", "why", "used by"], roles))


def _state(state: str) -> str:
    return f"[{_STATES[state]}]{state}[/]"


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
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from trendflow.models.pull import pull_models

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        tasks = {}

        def show(entry: str, done: int, total: int | None) -> None:
            if entry not in tasks:
                tasks[entry] = progress.add_task(entry)
            progress.update(tasks[entry], completed=done, total=total)

        catalogue = Catalogue.load()
        pulled = pull_models(catalogue, load_settings().models_dir, names or None, show)
    for row in pulled:
        action: str = row.action
        if action == "skipped":
            made = f"its weights come with 'trendflow models build {row.entry}'"
            action = f"nothing to download, {made if catalogue[row.entry].files else 'it has no weights'}"
        out.print(f"{row.entry} {row.version}: {action}", markup=False, highlight=False, soft_wrap=True)
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


def variants_page(target: Path) -> int:
    """Write the page of model variants."""
    from trendflow.contracts.schema import SchemaRegistry
    from trendflow.optimisation.report import stored_reports
    from trendflow.presentation.model_docs import render_variants

    write_output(target, render_variants(Catalogue.load(), stored_reports(SchemaRegistry.load())).encode())
    out.print(str(target), highlight=False, soft_wrap=True)
    return 0
