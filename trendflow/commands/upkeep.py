"""`trendflow warm-up`, `graph` and `ui`."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from trendflow.commands.console import err, out
from trendflow.commands.files import write_output
from trendflow.commands.process import prepare_dagster_home
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path


def warm_up() -> int:
    """Compile what would otherwise be compiled while the first video waits. The compiled code is kept."""
    import librosa
    import numpy as np

    from trendflow.media import worker

    with err.status("compiling numerical code, once"):
        worker.warm_up()  # the media child compiles its own while this process is at work
        librosa.onset.onset_strength(y=np.ones(22050, np.float32), sr=22050)
    return 0


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
