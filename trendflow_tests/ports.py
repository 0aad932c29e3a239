"""Loopback TCP ports that belong to one test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody listens on, kept from everybody else inside the block.

    A port that was only found to be free may be gone before it is used: the kernel gives it to the next connection of
    any process. A bound socket keeps it. Connections to it are refused, and a server that sets SO_REUSEADDR, as servers
    do, can listen there all the same.
    """
    with ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
        yield [int(holder.getsockname()[1]) for holder in holders]
