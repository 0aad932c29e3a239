"""TCP ports on the loopback interface for servers that this program starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from trendflow.contracts.errors import TrendFlowError

HOST = "127.0.0.1"


def choose_ports(owner: str, wanted: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each purpose in `wanted`, all of them free now; None takes any free one.

    Raises `config_invalid`, naming `owner` and the purpose, for a port that is not free.
    """
    chosen = {}
    with ExitStack() as stack:  # all are held until all are chosen, so that none is given twice
        for purpose, port in wanted.items():
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port or 0))
            except OSError as exc:
                reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
                raise TrendFlowError(
                    "config_invalid",
                    f"{owner} cannot use port {port} for {purpose}: {reason}.",
                    port=port,
                    service=purpose,
                ) from exc
            chosen[purpose] = int(probe.getsockname()[1])
    return chosen


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
