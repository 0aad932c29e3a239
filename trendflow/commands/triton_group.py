"""`trendflow triton …`: parsing only, like `trendflow.cli`; nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

triton_app = typer.Typer(help="The model server: models executed outside the worker processes.", no_args_is_help=True)

Profile = Annotated[str | None, typer.Option(help="Profile of component_graph.yaml.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port on loopback; default is a free one.")]


@triton_app.command("up")
def triton_up(
    profile: Profile = None, http_port: Port = None, grpc_port: Port = None, metrics_port: Port = None
) -> None:
    """Start a Triton server with the models of a profile. The first time it installs the server, without root."""
    from trendflow.commands.triton import up

    raise typer.Exit(up(profile, {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}))


@triton_app.command("down")
def triton_down() -> None:
    """End the server that `up` started."""
    from trendflow.commands.triton import down

    raise typer.Exit(down())


@triton_app.command("status")
def triton_status() -> None:
    """Say where the server is and which models are ready."""
    from trendflow.commands.triton import status

    raise typer.Exit(status())


@triton_app.command("repository")
def triton_repository(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write; what is there is replaced.")],
    profile: Profile = None,
) -> None:
    """Write the model repository of a profile for Triton's container images."""
    from trendflow.commands.triton import repository

    raise typer.Exit(repository(output, profile))
