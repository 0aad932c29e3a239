"""Reports to the journal that fail at any write are made again, and count once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration import recorder
from trendflow.orchestration.recorder import RunRecorder
from trendflow_tests.state.runs import PATH, BreakingStore, begun, memory, states_in


def row_of(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "status": "ok",
        "artifacts": [{"path": f"{name}/{name}.npz"}],
        "cache_hit": False,
        "warnings": ["low_valid_ratio"],
    }


def report(store: BreakingStore, at: int) -> int:
    """All that may be said of two components, one of which needs two attempts. Returns how many writes that takes."""
    manager = begun(states_in(store))
    reports, first = RunRecorder(), store.writes
    store._at = first + at
    writer = reports.begin(manager, "worker-1")
    reports.started("segmenter")
    reports.retry_scheduled("segmenter", "timeout", 1.0)
    reports.started("segmenter")
    reports.finished(row_of("segmenter"), "computed")
    reports.started("core_clip")
    reports.finished(row_of("core_clip"), "computed")
    for name in ("cut_detection", "loudness_extractor"):
        reports.skipped(name, "not wanted")
    reports.end(writer, None)
    return store.writes - first


@pytest.mark.parametrize("before", [True, False], ids=["it did not happen", "its answer was lost"])
def test_at_every_write(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_WAITS", (0.0, 0.0, 0.0))
    outage = TrendFlowError("storage_unavailable", "As the test wants it.")
    writes = report(BreakingStore(memory(), -1, outage, before=before), -(10**6))
    assert writes > 20
    for point in range(writes):
        store = memory()
        report(BreakingStore(store, -1, outage, before=before), point)
        view = states_in(store).read_run(PATH)
        assert view is not None
        assert (view.run["status"], view.run["retry_count"]) == ("success", 1), point
        found = {name: (row["status"], row["retry_count"]) for name, row in view.components.items()}
        assert found["segmenter"] == ("success", 1), point
        assert found["core_clip"] == ("success", 0), point
        events = states_in(store).events(PATH)
        moves = Counter((event.type, event.subject, event.source, event.to) for event in events)
        again = ("component_status", "segmenter", "waiting", "running")
        assert moves.pop(again) == 2, point
        told = {move: count for move, count in moves.items() if move[0].endswith("_status") and count > 1}
        assert told.keys() <= {("processor_status", "segmenter", "waiting", "running")}, point
