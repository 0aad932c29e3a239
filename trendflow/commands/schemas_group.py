"""`trendflow schemas …` and `components …`: parsing only; nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

schemas_app = typer.Typer(help="The machine schemas of everything that is stored.", no_args_is_help=True)
components_app = typer.Typer(help="The components: what they measure and how.", no_args_is_help=True)


@components_app.command("docs")
def components_docs(
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file to write.")] = Path(
        "docs/components.md"
    ),
) -> None:
    """Write the reference page of all components."""
    from trendflow.commands.components import docs

    raise typer.Exit(docs(output))


@schemas_app.command("list")
def schemas_list() -> None:
    """List the artifact schemas."""
    from trendflow.commands.schemas import list_schemas

    raise typer.Exit(list_schemas())


@schemas_app.command("check")
def schemas_check() -> None:
    """Fail when a schema or a component changed without a new version."""
    from trendflow.commands.schemas import check

    raise typer.Exit(check())


@schemas_app.command("docs")
def schemas_docs(
    name: Annotated[str | None, typer.Argument(help="A schema version to print.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the pages of all schemas.")] = None,
) -> None:
    """Render the human page of one schema, or of all."""
    from trendflow.commands.schemas import docs

    raise typer.Exit(docs(output, name))


@schemas_app.command("lock")
def schemas_lock(
    unreleased: Annotated[
        list[str] | None,
        typer.Option("--unreleased", help="A schema or component whose pinned version never left this machine."),
    ] = None,
) -> None:
    """Pin new schema versions and producer versions."""
    from trendflow.commands.schemas import lock

    raise typer.Exit(lock(unreleased or []))
