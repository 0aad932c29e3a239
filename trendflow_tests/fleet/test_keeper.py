"""The keeper with tiny HTTP servers as services, and a clock that the tests set."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from trendflow.fleet.keeper import NAME, Keeper
from trendflow.fleet.keeper import keeper as keeper_blueprint
from trendflow.fleet.launch import stop_process
from trendflow.fleet.service import Blueprint, Health, Site
from trendflow.fleet.state import read_state, write_state
from trendflow.fleet.supervisor import Fleet, Repair
from trendflow_tests.fleet.tiny_services import SERVER, conditions, held, kill, pids, web

MakeFleet = Callable[..., Fleet]

# Ends at once when its folder says so.
FRAIL = "import os, sys\nif os.path.exists('broken'): sys.exit('broken')\n" + SERVER


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def keep(built: Fleet, clock: Clock | None = None) -> Keeper:
    return Keeper(built.folder, lambda: built, clock or Clock())


def look_until(keeper: Keeper, done: Callable[[], bool]) -> list[str]:
    """Which services the keeper started again, in that order, until `done`."""
    started: list[str] = []
    while not done():
        started += keeper.look().services
    return started


def await_end(built: Fleet, service: str) -> None:
    found = read_state(built.folder).process(service)
    assert found is not None
    os.waitid(os.P_PID, found.process.pid, os.WEXITED | os.WNOWAIT)


def test_a_killed_service_is_replaced_and_the_others_are_left_alone(
    fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    built = fleet(web("store"), web("api", "store"))
    built.up()
    before = pids(built)
    keeper = keep(built)
    assert keeper.look() == Repair(is_up=True)
    assert pids(built) == before
    kill(before["store"])
    with caplog.at_level(logging.ERROR):
        started = look_until(keeper, lambda: conditions(built)["store"] == "healthy")
    assert started == ["store"]
    assert "ALARM: the service store had ended" in caplog.text
    assert pids(built)["store"] != before["store"]
    assert pids(built)["api"] == before["api"]


def test_what_is_needed_comes_first(fleet: MakeFleet) -> None:
    built = fleet(web("api", "store"), web("store"))
    built.up()
    for pid in pids(built).values():
        kill(pid)
    started = look_until(keep(built), lambda: conditions(built) == {"store": "healthy", "api": "healthy"})
    assert started == ["store", "api"]


def test_a_service_that_ends_again_and_again_is_given_more_and_more_time(fleet: MakeFleet) -> None:
    built = fleet(web("store", program=FRAIL))
    built.up()
    (built.folder / "store" / "broken").touch()
    kill(pids(built)["store"])
    clock = Clock()
    keeper = keep(built, clock)
    assert set(keeper.look().services) == {"store"}
    waits = []
    for _ in range(8):
        await_end(built, "store")
        began = clock.now
        while not keeper.look().services:
            clock.now += 1.0
        waits.append(clock.now - began)
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_a_service_that_recovered_starts_from_the_shortest_wait(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    clock = Clock()
    keeper = keep(built, clock)
    for hour in (1, 2):
        kill(pids(built)["store"])
        look_until(keeper, lambda: conditions(built)["store"] == "healthy")
        kill(pids(built)["store"])
        assert keeper.look().services == {}  # it was started a moment ago
        clock.now += 5.0
        look_until(keeper, lambda: conditions(built)["store"] == "healthy")
        clock.now = 1000.0 + hour * 3600.0


def test_a_service_that_cannot_start_is_told_and_tried_again(
    fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    built = fleet(web("store"), web("other"))
    built.up()
    clock = Clock()
    keeper = keep(built, clock)
    port = read_state(built.folder).ports["store"]["http"]
    for found in read_state(built.folder).processes:
        stop_process(found)  # and wait until its port is free
    with socket.create_server(("127.0.0.1", port)), caplog.at_level(logging.ERROR):
        repaired = keeper.look().services
    assert repaired["store"] is not None
    assert repaired["store"].error_code == "config_invalid"
    assert repaired["other"] is None  # nobody waits for the one in trouble
    assert f"cannot use port {port}" in caplog.text
    clock.now += 5.0
    assert look_until(keeper, lambda: conditions(built)["store"] == "healthy") == ["store"]


def hanging(name: str, *needs: str) -> Blueprint:
    """A service that its health check calls ill while the file `<name> hangs` is there."""
    plain = web(name, *needs)

    def health(site: Site) -> Health:
        return lambda: "it hangs" if (site.folder / f"{name} hangs").exists() else None

    return replace(plain, build=lambda site: replace(plain.build(site), health=health(site)))


def test_a_service_that_hangs_is_replaced_but_not_for_what_it_needs(
    fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    built = fleet(hanging("store"), hanging("api", "store"))
    built.up()
    before = pids(built)
    for name in before:
        (built.folder / f"{name} hangs").touch()
    clock = Clock()
    keeper = keep(built, clock)
    keeper.look()
    clock.now += 599.0
    keeper.look()
    assert pids(built) == before
    clock.now += 31.0
    keeper.look()  # ends the store: the api cannot work without it, and is not to blame
    (built.folder / "store hangs").unlink()
    assert keeper.look().services == {"store": None}
    assert pids(built)["api"] == before["api"]
    clock.now += 31.0
    keeper.look()
    clock.now += 601.0
    with caplog.at_level(logging.ERROR):
        keeper.look()
    assert "ALARM: the service api hangs and is ended: it hangs" in caplog.text
    assert keeper.look().services == {"api": None}


def test_what_took_the_place_of_a_hanging_service_is_given_its_own_time(fleet: MakeFleet) -> None:
    built = fleet(hanging("store"))
    built.up()
    sign = built.folder / "store hangs"
    sign.touch()
    clock = Clock()
    keeper = keep(built, clock)
    keeper.look()
    kill(pids(built)["store"])
    sign.unlink()
    built.up()  # by hand
    sign.touch()
    before = pids(built)
    for _ in range(2):
        clock.now += 599.0
        keeper.look()
    assert pids(built) == before
    assert conditions(built) == {"store": "unhealthy"}
    clock.now += 31.0
    keeper.look()
    assert conditions(built) == {"store": "dead"}


def defective(name: str) -> Blueprint:
    """A service with a defect as long as its folder holds the file `defect`; starting it does not mend that."""
    plain = web(name)

    def check(site: Site) -> Health:
        return lambda: "its disk is gone" if (site.service_folder(name) / "defect").exists() else None

    return replace(plain, build=lambda site: replace(plain.build(site), health=check(site), defect=check(site)))


def test_a_defect_is_not_waited_for_but_no_more_often_than_a_service_is_started(
    fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    built = fleet(defective("store"))
    built.up()
    before = pids(built)
    sign = built.folder / "store" / "defect"
    sign.touch()
    clock = Clock()
    keeper = keep(built, clock)
    with caplog.at_level(logging.ERROR):
        keeper.look()
    assert "ALARM: the service store does not work and is ended: its disk is gone" in caplog.text
    assert keeper.look().services == {"store": None}
    again = pids(built)
    assert again != before
    for _ in range(2):  # the second time it may be started again, and not before
        clock.now += 31.0
        keeper.look()
        assert keeper.look().services == {"store": None}
        clock.now += 5.0
    before = pids(built)
    keeper.look()
    assert pids(built) == before
    sign.unlink()
    assert conditions(built) == {"store": "healthy"}


def test_the_keeper_does_not_end_itself(fleet: MakeFleet) -> None:
    built = fleet(hanging(NAME))
    built.up()
    (built.folder / f"{NAME} hangs").touch()
    clock = Clock()
    keeper = keep(built, clock)
    keeper.look()
    clock.now += 10_000.0
    keeper.look()
    assert conditions(built) == {NAME: "unhealthy"}


def test_a_keeper_is_known_by_its_process_whatever_the_clock_says(fleet: MakeFleet) -> None:
    looking = (
        "import os, sys, threading\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from trendflow.fleet.keeper import Keeper\n"
        "from trendflow.fleet.supervisor import Fleet\n"
        "folder = Path(os.environ['KEPT'])\n"
        "Keeper(folder, lambda: Fleet(folder, ())).run(threading.Event())\n"
    )
    built = fleet(keeper_blueprint((sys.executable, "-c", looking), lambda site: {"KEPT": str(site.folder)}, ()))
    built.up()
    state = read_state(built.folder)
    (own,) = state.processes
    write_state(built.folder, replace(state, processes=(replace(own, started_at="2999-01-01T00:00:00.000Z"),)))
    assert conditions(built) == {NAME: "healthy"}
    other = replace(own, process=replace(own.process, started_ticks=own.process.started_ticks + 1))
    write_state(built.folder, replace(state, processes=(other,)))
    health = built.blueprints[0].build(Site(built.folder, {}, {})).health
    assert health() == "it has not looked yet"
    write_state(built.folder, state)


def test_the_keeper_stays_out_of_a_command_at_work(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    with held(built.folder / ".repair.lock"):
        kill(pids(built)["store"])
        assert keep(built).look() == Repair(is_up=True)
        assert conditions(built) == {"store": "dead"}


def test_a_fleet_that_was_ended_is_not_kept(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    built.down()
    keep(built).run(threading.Event())  # returns by itself
    assert conditions(built) == {"store": "stopped"}


def test_a_keeper_that_is_told_to_end_does(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    stop = threading.Event()
    stop.set()
    keep(built).run(stop)
    assert conditions(built) == {"store": "healthy"}
