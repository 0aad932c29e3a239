"""Real servers of a fleet that can be killed and come back with their data."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trendflow.fleet.environment import write_dagster_home
from trendflow.fleet.launch import stop_process
from trendflow.fleet.service import Blueprint, Site
from trendflow.fleet.state import read_state
from trendflow.fleet.supervisor import Fleet


class Servers:
    """A running fleet of these servers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.site: Site = fleet.up(settle=write_dagster_home)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the server is gone."""
        (found,) = (each for each in read_state(self._fleet.folder).processes if each.service == name)
        stop_process(replace(found, stop_signal=signal.SIGKILL))

    def revive(self) -> None:
        """Start what was killed, with the ports and data it had; returns when it is healthy."""
        self._fleet.up()


@contextmanager
def running(*blueprints: Blueprint) -> Iterator[Servers]:
    """Servers that end with the block, data and all."""
    # Not below pytest's folder, which only this user may enter: root's database would be kept in /var/lib.
    with tempfile.TemporaryDirectory(prefix="trendflow-faults-") as folder:
        Path(folder).chmod(0o755)
        fleet = Fleet(Path(folder) / "fleet", blueprints)
        try:
            yield Servers(fleet)
        finally:
            state = read_state(fleet.folder)
            for found in state.processes:
                # A polite stop takes SeaweedFS 15 s, and its data are thrown away anyway.
                stop_process(replace(found, stop_signal=signal.SIGKILL))
            for port in state.ports.get("seaweedfs", {}).values():
                for name in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # it gives no other place for them
                    name.unlink()
