"""When runs are expected to end. All costs are SYNTHETIC."""

from __future__ import annotations

import httpx
import pytest

from trendflow.contracts.costs import estimates
from trendflow.contracts.errors import TrendFlowError
from trendflow.service.estimates import COSTS_AGE_SEC, Estimates, typical_seconds
from trendflow_tests.contracts.cost_rows import row
from trendflow_tests.service.deployment import begin_log, begun_run, body, client, make_parts, served
from trendflow_tests.state.runs import COMPONENTS
from trendflow_tests.submission.desks import Deployment

COSTS = estimates(
    [
        row(1, 100.0, units=40),
        row(2, 50.0, units=40, producer_version="1.1.0"),  # the newer code takes half as long
        row(3, 7.0, units=40, component_part="substep:decode"),
        row(1, 6000.0, units=1, component="segmenter"),
    ]
)
"""2 s for core_clip and 6 s for the segmenter."""


def expecting(workers: int | None = 2) -> Estimates:
    return Estimates(lambda: COSTS, lambda: workers, lambda profile: COMPONENTS)


def test_the_newest_series_counts_and_phases_do_not() -> None:
    assert typical_seconds(COSTS) == {"core_clip": 2.0, "segmenter": 6.0}
    assert expecting().run_sec("starter") == 8.0
    assert Estimates(list, lambda: 2, lambda profile: COMPONENTS).run_sec("starter") is None


@pytest.mark.parametrize(
    ("workers", "running", "position", "waits"),
    [(2, 0, 1, 0), (2, 0, 2, 0), (2, 1, 2, 4), (2, 2, 1, 4), (2, 2, 4, 16), (1, 5, 1, 8)],
)
def test_free_workers_begin_at_once_and_busy_ones_in_turn(
    workers: int, running: int, position: int, waits: int
) -> None:
    found = expecting(workers).starts_at("2026-01-02T00:00:00.000Z", position, running, 8.0)
    assert found == f"2026-01-02T00:00:{waits:02d}.000Z"


@pytest.mark.parametrize(("workers", "run_sec"), [(None, 8.0), (0, 8.0), (2, None)])
def test_without_workers_or_costs_nothing_is_known(workers: int | None, run_sec: float | None) -> None:
    assert expecting(workers).starts_at("2026-01-02T00:00:00.000Z", 1, 0, run_sec) is None


def test_costs_are_read_again_when_they_are_old_and_an_outage_keeps_them() -> None:
    seconds, reads = [0.0], []

    def read() -> list:
        reads.append(seconds[0])
        if len(reads) == 2:
            raise TrendFlowError("storage_unavailable", "The store is away.")
        return COSTS

    found = Estimates(read, lambda: 1, lambda profile: COMPONENTS, now=lambda: seconds[0])
    for moment in (0.0, COSTS_AGE_SEC - 1, COSTS_AGE_SEC, 2 * COSTS_AGE_SEC):
        seconds[0] = moment
        assert found.component_sec()["segmenter"] == 6.0
    assert reads == [0.0, COSTS_AGE_SEC, 2 * COSTS_AGE_SEC]


def finish(api: httpx.Client, run_id: str) -> str | None:
    found: str | None = api.get(f"/api/v1/runs/{run_id}/status").json()["estimated_finish"]
    return found


def test_the_status_tells_it_from_the_queue_to_the_end() -> None:
    behind = Deployment()
    with served(make_parts(behind, estimates=expecting(workers=1))) as address, client(address) as api:
        first, second = (api.post("/api/v1/process", json=body(video)).json()["run_id"] for video in (1, 2))
        assert finish(api, first) is None  # level 1 does not know it yet, so it has no place
        messages = {run_id: behind.inbox.message_of(run_id) for run_id in (first, second)}
        behind.clock.seconds = 20
        running = begun_run(behind, messages[first])
        begin_log(behind, messages[second])
        # Nothing is finished of the first one, which takes 8 s; the second one waits as long.
        assert finish(api, first) == "2026-01-02T00:00:28.000Z"
        assert finish(api, second) == "2026-01-02T00:00:36.000Z"
        behind.clock.seconds = 26
        running.component_started("segmenter")
        running.component_finished("segmenter", "success", ["segmenter/segmenter.npz"])
        assert finish(api, first) == "2026-01-02T00:00:28.000Z"


def test_a_run_without_a_log_is_estimated_by_its_profile() -> None:
    behind = Deployment()
    with served(make_parts(behind, estimates=expecting(workers=1))) as address, client(address) as api:
        run_id = api.post("/api/v1/process", json=body()).json()["run_id"]
        queue, _ = behind.level1()
        behind.clock.seconds = 20
        queue.step()
        assert finish(api, run_id) == "2026-01-02T00:00:28.000Z"
