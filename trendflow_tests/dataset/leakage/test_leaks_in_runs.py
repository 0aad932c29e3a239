"""Leaks planted into the feature vectors of stored runs: a build that reads them has to stop, or to leave them out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table import build as building
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import column, store_run
from trendflow_tests.dataset.table.corpora import START, build, corpus_snapshots, snapshot_rows, video

ENOUGH = 210  # rows for the alarm of the targets
OF_TEXT = {"prov_source_kind": "document", "prov_observed_at": "captured_at"}


def noise(number: int) -> float:
    return float(number * 7919 % 211)


def corpus(value: Callable[[int], float], count: int, name: str = "warmth", **options: Any) -> ResultStore:
    """Runs with one honest column and a planted one."""
    results = ResultStore(ObjectStore.open("memory://"))
    for number in range(count):
        store_run(results, {"a": noise(number), name: value(number)}, video=video(number), **options)
    return results


def findings(folder: Path, results: ResultStore, count: int) -> dict[str, set[str]]:
    """Column → nets that stopped the build."""
    with pytest.raises(TrendFlowError) as caught:
        build(corpus_snapshots(folder, range(count)), results)
    assert caught.value.error_code == "leakage_violation"
    nets: dict[str, set[str]] = {}
    for finding in caught.value.detail["findings"]:
        nets.setdefault(finding["column"], set()).add(finding["net"])
    return nets


def counted(number: int, day: int) -> float:
    """Views of a video on that day, from the rows its snapshots are made of."""
    return float(snapshot_rows(number)[(0, 7, 14, 21).index(day)]["views"])


PLANTED: Mapping[str, Callable[[int], float]] = {
    "a renamed target": lambda number: math.log1p(counted(number, 14) - counted(number, 0)),
    "a target turned round": lambda number: -3.0 * (counted(number, 21) - counted(number, 0)),
    "a later counter": lambda number: counted(number, 21),
}


@pytest.mark.parametrize("leak", PLANTED)
def test_what_only_the_future_knows_stops_the_build(tmp_path: Path, leak: str) -> None:
    """Its name is innocent and its provenance says media: only what it tells of the outcome gives it away."""
    results = corpus(PLANTED[leak], ENOUGH)
    assert findings(tmp_path, results, ENOUGH) == {column("warmth"): {"statistics"}}


def test_the_same_corpus_without_a_leak_is_built(tmp_path: Path) -> None:
    built = build(corpus_snapshots(tmp_path, range(ENOUGH)), corpus(lambda number: counted(number, 0), ENOUGH))
    assert built.table.num_rows == ENOUGH
    assert column("warmth") in built.table.column_names


@pytest.mark.parametrize(
    ("name", "provenance"),
    [("warmth", {"prov_source_kind": "comments"}), ("comment_sentiment", {}), ("top_comments_length", OF_TEXT)],
)
def test_a_feature_of_comments_stops_the_build(tmp_path: Path, name: str, provenance: dict[str, str]) -> None:
    results = corpus(noise, 3, name, provenance=provenance)
    caught = findings(tmp_path, results, 3)
    assert caught[column(name)] == {"source"}


@pytest.mark.parametrize("clock", ["finished_at", "views_0"])
def test_a_feature_of_no_known_clock_stops_the_build(tmp_path: Path, clock: str) -> None:
    results = corpus(noise, 3, provenance={"prov_observed_at": clock})
    assert findings(tmp_path, results, 3)[column("warmth")] == {"observation_time"}


def created(since_first_snapshot: timedelta) -> str:
    moment: datetime = START + since_first_snapshot
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(("minutes", "late"), [(60, 0), (61, 1)])
def test_a_text_that_came_with_a_later_run_is_unknown(tmp_path: Path, minutes: int, late: int) -> None:
    """The snapshot is of the first day; the text was handed in with a run that was made afterwards."""
    results = corpus(noise, 1, provenance=OF_TEXT, created_at=created(timedelta(minutes=minutes)))
    built = build(corpus_snapshots(tmp_path, [0]), results)
    value = built.table[column("warmth")].to_numpy()
    assert np.isnan(value).tolist() == [bool(late)]
    assert built.metadata["edge_cases"]["run_documents_too_late"] == late
    assert built.table["title_len"].to_pylist() == [float(len("Is this video number 0?"))], "the page was seen in time"
    clocks = {row["column"]: row for row in built.provenance.to_pylist()}
    assert clocks[column("warmth")]["observed_at_max"] == START + timedelta(minutes=minutes)


def test_a_build_that_forgets_the_time_of_a_text_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = corpus(noise, 2, provenance=OF_TEXT, created_at=created(timedelta(days=30)))
    real = building.feature_rows

    def forgetful(sights: Any, *rest: Any) -> Any:
        return real([dataclasses.replace(sight, run_document_late=False) for sight in sights], *rest)

    monkeypatch.setattr(building, "feature_rows", forgetful)
    assert findings(tmp_path, results, 2) == {
        column("a"): {"observation_time"},
        column("warmth"): {"observation_time"},
    }
