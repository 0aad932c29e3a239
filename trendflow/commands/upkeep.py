"""`trendflow doctor`, `warm-up`, `graph` and `ui`: the deployment itself."""

from __future__ import annotations

import errno
import importlib
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trendflow.commands.console import err, human_bytes, out, table
from trendflow.commands.files import write_output
from trendflow.commands.process import prepare_dagster_home
from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.package_data import data_path

_PACKAGES = ("dagster", "av", "onnxruntime", "cv2", "librosa", "pyloudnorm", "obstore", "yt_dlp", "numpy")


def doctor() -> int:
    """Check everything a run needs and print one line per check. Raises the first failure after printing all."""
    settings = load_settings()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("component graph", lambda: _graph(settings)),
        ("object store", lambda: _store(settings)),
        ("model weights", lambda: _weights(settings)),
        ("model server", lambda: _server(settings)),
        ("free disk", lambda: _disk(settings)),
    ]
    first: TrendFlowError | None = None
    rows = []
    for name, check in checks:
        try:
            rows.append([name, "[green]ok[/]", check()])
        except Exception as exc:  # every check must get its line, whatever breaks
            error = as_typed(exc)
            first = first or error
            rows.append([name, f"[red]{error.error_code}[/]", error.message])
    out.print(table(None, ["check", "state", "finding"], rows))
    if first is not None:
        raise first
    return 0


def _python() -> str:
    return platform.python_version()


def _packages() -> str:
    missing = []
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise TrendFlowError(
            "dependency_missing", f"Packages cannot be imported: {', '.join(missing)}.", kind="package"
        )
    return f"{len(_PACKAGES)} import"


def _graph(settings: Settings) -> str:
    from trendflow.orchestration.deployment import open_deployment

    graph = open_deployment(settings).registry.graph
    return f"{len(graph.components)} components, profiles {', '.join(graph.profiles)}"


def _store(settings: Settings) -> str:
    from trendflow.orchestration.deployment import open_deployment

    store = open_deployment(settings).store  # opening it proves its conditional writes
    where = "the local folder" if store.local_path("probe") is not None else settings.resolved_store_url
    return f"conditional writes proven on {where}"


def warm_up() -> int:
    """Compile what would otherwise be compiled while the first video waits. The compiled code is kept."""
    import librosa
    import numpy as np

    from trendflow.media import worker

    with err.status("compiling numerical code, once"):
        worker.warm_up()  # the media child compiles its own while this process is at work
        librosa.onset.onset_strength(y=np.ones(22050, np.float32), sr=22050)
    return 0


def _weights(settings: Settings) -> str:
    from trendflow.models.inventory import list_models

    listing = list_models(load_catalogue(), settings.models_dir)
    profile = _local_models(settings)
    bad = [row.name for row in listing.entries if row.name in profile and row.digest_state != "present"]
    if bad:
        raise TrendFlowError(
            "weights_missing", f"Run `trendflow models build`; not in order: {', '.join(sorted(bad))}.", models=bad
        )
    return f"{len(profile)} models of profile {settings.profile} verified"


def _local_models(settings: Settings) -> set[str]:
    """The models that this process itself would load."""
    from trendflow.orchestration.deployment import open_deployment

    profile = open_deployment(settings).graph.profile(settings.profile)
    return {name for role, name in profile.models.items() if profile.runtimes.get(role) != "triton"}


def _server(settings: Settings) -> str:
    from trendflow.models.resolve import entry_for_role
    from trendflow.orchestration.deployment import open_deployment

    deployment = open_deployment(settings)
    profile = deployment.graph.profile(settings.profile)
    served = [role for role, runtime in profile.runtimes.items() if runtime == "triton"]
    for role in served:
        deployment.triton.require(entry_for_role(deployment.catalogue, profile.models, profile.runtimes, role))
    return f"{len(served)} roles of profile {settings.profile} ready" if served else "not needed"


def _disk(settings: Settings) -> str:
    ensure_home(settings)
    free = shutil.disk_usage(settings.home).free
    if free < 2e9:
        raise TrendFlowError("storage_unavailable", f"Only {human_bytes(free)} are free below the home folder.")
    return human_bytes(free)


def load_catalogue() -> Any:
    from trendflow.models.catalogue import Catalogue

    return Catalogue.load()


def ui(host: str, port: int) -> int:
    """Start the Dagster web server and daemon and stay in the foreground."""
    settings = load_settings()
    _require_free_port(host, port)
    prepare_dagster_home(settings)
    # Runs start in their own processes, possibly with another working directory.
    os.environ["TRENDFLOW_HOME"] = str(settings.home)
    binary = Path(sys.executable).with_name("dagster")
    if not binary.exists():
        raise TrendFlowError("dependency_missing", "The dagster command is not installed.", kind="package")
    workspace = str(data_path("workspace.yaml"))
    sys.stdout.flush()
    os.execv(str(binary), [str(binary), "dev", "-w", workspace, "-h", host, "-p", str(port)])


def _require_free_port(host: str, port: int) -> None:
    """Raise `config_invalid` unless a server can listen there. Dagster would say so only amid its start-up log."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise TrendFlowError("config_invalid", f"{host!r} is not an address of this machine.") from exc
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As the server does: connections that are still closing do not occupy the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                message = f"Port {port} is in use; choose another with --port."
            else:
                reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
                message = f"Nothing can listen on port {port} of {host!r}: {reason}."
            raise TrendFlowError("config_invalid", message) from exc


def graph(target: Path) -> int:
    """Draw the component graph."""
    from trendflow.contracts.graph import load_graph
    from trendflow.presentation.graph_svg import render_graph

    found = load_graph(load_settings().graph_file or data_path("component_graph.yaml"))
    write_output(target, render_graph(found).encode())
    out.print(str(target), highlight=False, soft_wrap=True)
    return 0
