"""The supervisor with tiny HTTP servers as services: order, repair, failures, logs, locks."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from trendflow.commands.fleet import down
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.fleet import supervisor
from trendflow.fleet.credentials import SECRETS, read_secrets
from trendflow.fleet.files import make_folder
from trendflow.fleet.service import Started, in_order
from trendflow.fleet.state import STATE, Identity, read_state, write_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet
from trendflow.processes import started_ticks_of
from trendflow_tests.fleet.tiny_services import SERVER, conditions, held, kill, pids, web

MakeFleet = Callable[..., Fleet]


def raised(call: Callable[..., object], *arguments: object) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        call(*arguments)
    return caught.value


@contextmanager
def mistaken(built: Fleet, ticks_later: int = 0, **changes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's and has the id that the state file gives the only service, whose own was killed.

    The file says that it started `ticks_later`, and `changes`.
    """
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        built.up()
        state = read_state(built.folder)
        (own,) = state.processes
        kill(own.process.pid)
        ticks = started_ticks_of(process.pid)
        assert ticks is not None
        taken = replace(own, process=Identity(process.pid, ticks + ticks_later))
        write_state(built.folder, replace(state, processes=(taken,), **changes))
        assert conditions(built) == {"store": "dead"}
        yield process


def test_services_start_after_what_they_need_and_end_before_it(fleet: MakeFleet) -> None:
    built = fleet(web("api", "broker", "store"), web("broker"), web("store", "disk"), web("disk"))
    events: list[tuple[str, str]] = []
    built.up(report=lambda service, event: events.append((service, event)))
    started = [service for service, event in events if event == "started"]
    assert sorted(started) == ["api", "broker", "disk", "store"]
    assert started.index("disk") < started.index("store") < started.index("api")
    assert started.index("broker") < started.index("api")
    for name, port in ((name, ports["http"]) for name, ports in read_state(built.folder).ports.items()):
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200, name
    assert built.down() == 4
    endings = (built.folder / "endings").read_text().split()
    assert sorted(endings) == ["api", "broker", "disk", "store"]  # asked politely, each of them
    assert endings.index("api") < endings.index("store") < endings.index("disk")
    assert endings.index("api") < endings.index("broker")


def test_a_service_started_again_later_still_ends_after_what_needs_it(fleet: MakeFleet) -> None:
    built = fleet(web("api", "store"), web("store"))
    built.up()
    kill(pids(built)["store"])
    built.up()
    assert Fleet(built.folder, ()).down() == 2  # by the state alone: what defines the services may be wrong by now
    assert (built.folder / "endings").read_text().split() == ["api", "store"]


def test_only_the_wanted_services_start(fleet: MakeFleet) -> None:
    built = fleet(web("api", "store"), web("store"), web("other"))
    built.up(["api"])
    assert conditions(built) == {"store": "healthy", "api": "healthy", "other": "stopped"}


@pytest.mark.parametrize(
    ("blueprints", "wanted", "said"),
    [
        ([web("a", "b"), web("b", "a")], None, "a → b → a"),
        ([web("a", "b")], None, "'b', which 'a' needs"),
        ([web("a")], ["x"], "no service 'x'"),
        ([web("a"), web("a")], None, "same name"),
    ],
    ids=["cycle", "unknown need", "unknown name", "twice"],
)
def test_impossible_orders_are_refused(blueprints: list, wanted: list[str] | None, said: str) -> None:
    error = raised(in_order, blueprints, wanted)
    assert error.error_code == "config_invalid"
    assert said in error.message


def test_what_the_fleet_does_not_have_any_more_is_ended(fleet: MakeFleet) -> None:
    fleet(web("store"), web("api", "store"), web("second", "store"), replicas={"api": 2}).up()
    smaller = fleet(web("store"), web("api", "store"))
    before = pids(smaller)
    smaller.up(["store"])
    assert pids(smaller) == before  # only what was named is touched
    assert read_state(smaller.folder).replicas == {"api": 2}
    smaller.up()
    assert pids(smaller) == {name: pid for name, pid in before.items() if name != "second"}
    assert (smaller.folder / "endings").read_text().split() == ["second"]


def test_what_is_not_ready_is_told_and_holds_nothing_up(fleet: MakeFleet) -> None:
    facts: dict[str, Any] = {"address": "http://127.0.0.1:1/api", "token_file": Path("/some/token")}
    built = fleet(web("store", readiness=lambda: "not ready: disk", **facts), web("api", "store"))
    built.up()
    rows = {row["service"]: row for row in fleet_status(built.folder, built.blueprints)["services"]}
    assert (rows["store"]["condition"], rows["store"]["reason"]) == ("unhealthy", "not ready: disk")
    assert (rows["store"]["address"], rows["store"]["token_file"]) == (facts["address"], "/some/token")
    assert (rows["api"]["condition"], rows["api"]["address"], rows["api"]["token_file"]) == ("healthy", None, None)
    assert built.troubles() == {}


def test_up_twice_changes_nothing(fleet: MakeFleet) -> None:
    built = fleet(web("store"), web("api", "store"))
    built.up()
    before = pids(built)
    events: list[tuple[str, str]] = []
    built.up(report=lambda service, event: events.append((service, event)))
    assert pids(built) == before
    assert events == [("store", "running"), ("api", "running")]


def test_a_killed_service_is_seen_and_repaired_alone(fleet: MakeFleet) -> None:
    built = fleet(web("store"), web("api", "store"))
    built.up()
    before, ports = pids(built), read_state(built.folder).ports
    kill(before["store"])
    assert conditions(built) == {"store": "dead", "api": "healthy"}
    built.up()
    after = pids(built)
    assert after["api"] == before["api"]
    assert after["store"] != before["store"]
    assert read_state(built.folder).ports == ports
    assert conditions(built) == {"store": "healthy", "api": "healthy"}


def test_a_service_whose_log_nobody_writes_is_repaired(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    (found,) = read_state(built.folder).processes
    assert found.log_writer is not None
    kill(found.log_writer.pid)
    (row,) = fleet_status(built.folder, built.blueprints)["services"]
    assert (row["condition"], row["reason"]) == ("dead", "the process that writes its log has ended")
    built.up()
    assert started_ticks_of(found.process.pid) != found.process.started_ticks
    assert conditions(built) == {"store": "healthy"}


def test_services_take_an_interrupt_though_their_starter_ignores_it(fleet: MakeFleet) -> None:
    telling = "import signal; print('ignores', signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)\n"
    built = fleet(web("store", program=telling + SERVER))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a background job of a script
    try:
        built.up()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert "ignores False" in (built.folder / "logs" / "store.log").read_text()


def test_what_a_killed_service_left_behind_is_ended_before_the_next_start(fleet: MakeFleet) -> None:
    """The child left the session, as the processes of PostgreSQL do, and ends when it finds its parent gone."""
    orphaning = (
        "import os, sys\n"
        "asks, tells = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.close(tells)\n"
        "    os.read(asks, 1)\n"
        "    print('the child saw the end', flush=True)\n"
        "    os._exit(0)\n"
        "os.close(asks)\n"
    ) + SERVER
    built = fleet(web("store", program=orphaning))
    built.up()
    kill(pids(built)["store"])
    built.up()
    words = (built.folder / "logs" / "store.log").read_text()
    assert words.index("the child saw the end") < words.rindex("store listens")


def test_a_changed_definition_replaces_the_process(fleet: MakeFleet) -> None:
    built = fleet(web("store"), web("api"))
    built.up()
    before = pids(built)
    changed = fleet(web("store", environment={"LEVEL": "2"}), web("api"))
    changed.up()
    after = pids(changed)
    assert after["store"] != before["store"]
    assert after["api"] == before["api"]


def test_a_service_that_dies_leaves_its_last_words(fleet: MakeFleet) -> None:
    broken = "import sys; print('reading', sys.argv[1]); sys.exit('no such disk')"
    built = fleet(web("broker"), web("store", "broker", program=broken, error_code="storage_unavailable"))
    error = raised(built.up)
    assert error.error_code == "storage_unavailable"
    assert error.message == "The service 'store' ended with code 1 while it started: no such disk"
    assert error.detail["log"] == "reading store\nno such disk"
    assert conditions(built) == {"broker": "healthy", "store": "dead"}  # `up` goes on from here
    assert read_state(built.folder).is_up is False


def test_last_words_are_those_of_this_start(fleet: MakeFleet) -> None:
    raised(fleet(web("store", program="import sys; sys.exit('an old story')")).up)
    error = raised(fleet(web("store", program="import os; os._exit(3)")).up)
    assert error.message == "The service 'store' ended with code 3 while it started, without a word."


def test_a_service_that_never_answers_is_named(fleet: MakeFleet) -> None:
    deaf = "import signal; print('thinking', flush=True); signal.pause()"
    error = raised(fleet(web("store", program=deaf, start_limit_s=0.0)).up)
    assert error.error_code == "internal_error"
    assert error.message.startswith("The service 'store' is not healthy after 0 seconds: it does not answer on port")


def test_a_defect_is_told_at_once_and_the_next_up_starts_again(fleet: MakeFleet) -> None:
    ill: dict[str, Any] = {"health": lambda: "it is ill", "defect": lambda: "its disk is gone"}
    built = fleet(web("store", start_limit_s=3600.0, error_code="storage_unavailable", **ill))
    error = raised(built.up)
    assert (error.error_code, error.message) == (
        "storage_unavailable",
        "The service 'store' does not work: its disk is gone.",
    )
    before = pids(built)
    mended = fleet(web("store"))
    mended.up()
    assert pids(mended) == before  # the process of the same definition, which has no defect
    raised(built.up)
    assert pids(built) != before
    trouble = built.troubles()["store"]
    assert (trouble.text, trouble.is_defect) == ("its disk is gone", True)


def test_a_process_whose_start_was_never_written_down_is_ended(fleet: MakeFleet) -> None:
    """Whoever started it was killed between the two. Another service is not mistaken for it."""
    built = fleet(web("store"), web("api"))
    built.up()
    before, state = pids(built), read_state(built.folder)
    write_state(built.folder, state.lacking("store"))
    built.up()
    assert pids(built)["store"] != before["store"]
    assert pids(built)["api"] == before["api"]
    assert started_ticks_of(before["store"]) is None
    assert conditions(built) == {"store": "healthy", "api": "healthy"}
    last = pids(built)
    write_state(built.folder, read_state(built.folder).lacking("store"))
    assert built.down() == 1
    assert [started_ticks_of(pid) for pid in last.values()] == [None, None]


def test_a_program_that_does_not_exist_is_named(fleet: MakeFleet) -> None:
    error = raised(fleet(web("store", command=("/nowhere/program",))).up)
    assert error.error_code == "dependency_missing"
    assert "'store'" in error.message
    assert "/nowhere" not in error.message


def test_a_port_that_was_taken_meanwhile_is_named(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    port = read_state(built.folder).ports["store"]["http"]
    built.down()
    with socket.create_server(("127.0.0.1", port)):
        error = raised(built.up)
    assert error.error_code == "config_invalid"
    assert f"The service 'store' cannot use port {port} for http" in error.message
    built.up()
    assert read_state(built.folder).ports["store"]["http"] == port


def test_a_second_command_is_refused(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    with held(built.folder / ".lock"):
        for command in (built.up, built.down):
            error = raised(command)
            assert error.error_code == "config_invalid"
            assert "Another command" in error.message
        assert conditions(built) == {"store": "healthy"}  # looking is allowed
    built.up()


def test_a_repair_is_waited_for(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    events: list[tuple[str, str]] = []
    with held(built.folder / ".repair.lock") as release:

        def report(service: str, event: str) -> None:
            if event == "waiting for":
                release()
            events.append((service, event))

        assert built.down(report) == 1
    assert events[0] == ("the keeper's repair", "waiting for")


def test_a_repair_that_does_not_finish_is_named(fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_REPAIR_LIMIT_S", 0.0)
    built = fleet()
    make_folder(built.folder)
    with held(built.folder / ".repair.lock"):
        for command in (built.up, built.down):
            error = raised(command)
            assert error.error_code == "timeout"
            assert "The keeper is repairing" in error.message


def test_only_the_process_that_was_seen_is_ended(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    seen = read_state(built.folder).processes[0].process
    kill(seen.pid)
    built.up()
    assert built.end("store", seen) is False
    assert conditions(built) == {"store": "healthy"}
    assert built.end("store", read_state(built.folder).processes[0].process) is True
    assert conditions(built) == {"store": "dead"}


def test_a_foreign_process_with_a_reused_id_is_never_ended(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    with mistaken(built, ticks_later=1) as bystander:
        assert built.down() == 0
        assert started_ticks_of(bystander.pid) is not None  # neither dead nor dying


def test_processes_of_an_earlier_start_of_the_machine_are_forgotten(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    with mistaken(built, boot="an earlier start") as bystander:
        built.up()
        assert started_ticks_of(bystander.pid) is not None
        assert conditions(built) == {"store": "healthy"}


def test_a_fleet_of_another_host_is_left_alone(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    state = read_state(built.folder)
    write_state(built.folder, replace(state, host="elsewhere"))
    for command in (built.up, built.down):
        error = raised(command)
        assert error.error_code == "config_invalid"
        assert "elsewhere" in error.message
    (row,) = fleet_status(built.folder, built.blueprints)["services"]
    assert row["reason"] == "it was started on the host elsewhere"
    write_state(built.folder, state)


def test_a_launcher_of_its_own_starts_a_service(fleet: MakeFleet, home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as server:
        log = home / "own.log"
        log.write_text("ready\n")
        own = Started(server.pid, started_ticks_of(server.pid) or 0, log)
        built = fleet(web("model_server", launcher=lambda: own, health=lambda: None))
        built.up()
        (row,) = fleet_status(built.folder, built.blueprints)["services"]
        assert (row["pid"], row["condition"], row["log"]) == (server.pid, "healthy", str(log))
        assert built.down() == 1
        assert server.wait() == -signal.SIGTERM


def test_secrets_are_generated_once_and_are_private(fleet: MakeFleet) -> None:
    built = fleet(web("store"))
    built.up()
    first = read_secrets(built.folder)
    built.down()
    both = fleet(web("store"), web("api"))
    both.up()
    second = read_secrets(both.folder)
    assert set(first) == {"store.key"}
    assert second["store.key"] == first["store.key"]
    assert len({*second.values()}) == 2
    assert all(len(bytes.fromhex(value)) == 24 for value in second.values())
    for name in (SECRETS, STATE):
        assert stat.S_IMODE((both.folder / name).stat().st_mode) == 0o600
    stored = (both.folder / STATE).read_text()
    assert not any(value in stored for value in second.values())


def test_documents_follow_their_schemas(fleet: MakeFleet) -> None:
    built = fleet(web("store"), web("api"))
    schemas = SchemaRegistry.load()
    raised(fleet(web("api", program="raise SystemExit(1)")).up)
    built.up(["store"])
    stored = json.loads((built.folder / STATE).read_text())
    assert stored == json.loads(json.dumps(asdict(read_state(built.folder))))
    assert validate_document(schemas, "fleet_state_v1", stored) == []
    status = fleet_status(built.folder, built.blueprints)
    assert {row["condition"] for row in status["services"]} == {"healthy", "dead"}
    assert validate_document(schemas, "fleet_status_v1", status) == []


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"schema_version": "fleet_state_v1"}'])
def test_a_damaged_state_file_is_refused(fleet: MakeFleet, content: bytes) -> None:
    built = fleet(web("store"))
    built.up()
    good = (built.folder / STATE).read_bytes()
    (built.folder / STATE).write_bytes(content)
    error = raised(built.up)
    assert error.error_code == "config_invalid"
    assert "state.json" in error.message
    (built.folder / STATE).write_bytes(good)


def test_a_fleet_is_ended_whatever_its_definition_has_become(
    fleet: MakeFleet, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fleet(web("store"))
    built.up()
    (home / "graph.yaml").write_text("components: [")
    monkeypatch.setenv("TRENDFLOW_HOME", str(home))
    monkeypatch.setenv("TRENDFLOW_GRAPH_FILE", str(home / "graph.yaml"))
    monkeypatch.setenv("TRENDFLOW_PROFILE", "no such profile")
    assert down() == 0
    assert conditions(built) == {"store": "stopped"}


def test_down_of_a_fleet_that_never_was_creates_nothing(home: Path) -> None:
    assert Fleet(home / "fleet", [web("store")]).down() == 0
    assert not (home / "fleet").exists()
