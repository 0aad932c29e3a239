"""Which SYNTHETIC runs of a store speak for a corpus, and what is read of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.corpus import find_corpus
from trendflow.dataset.feature_table import read_vectors
from trendflow.dataset.health import assess, read_corpus
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import COMPONENT, SCHEMAS, column, store_run

REQUIRED = [COMPONENT, "feature_vector"]


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore.open("memory://")


@pytest.fixture
def results(store: ObjectStore) -> ResultStore:
    return ResultStore(store)


def day(number: int) -> str:
    return f"2026-01-{number:02d}T00:00:00.000Z"


def test_one_row_per_video_and_it_is_the_newest_success(results: ResultStore) -> None:
    store_run(results, {"a": 1.0}, video="synthetic-video-a", run="old", created_at=day(1))
    newest = store_run(results, {"a": 2.0}, video="synthetic-video-a", run="new", created_at=day(3))
    store_run(results, {"a": 3.0}, video="synthetic-video-a", run="open", created_at=day(4), finished=False)
    only = store_run(results, {"a": 4.0}, video="synthetic-video-b", created_at=day(2))
    store_run(results, {"a": 5.0}, video="synthetic-video-c", profile="baseline")
    found = find_corpus(results, "starter", REQUIRED)
    assert [run.run_path for run in found.rows] == [newest, only]
    assert [(new.run_path, old.key) for new, old in found.repeats] == [(newest, "synthetic-video-a/old")]
    assert (found.n_runs, len(found.latest)) == (3, 2)
    made = read_corpus(results, SCHEMAS, "starter", REQUIRED)
    np.testing.assert_array_equal(made.table.values, [[2.0], [4.0]])
    assert [vector.values.tolist() for _, vector in made.earlier] == [[1.0]]


def test_a_run_that_lacks_a_required_component_is_counted_and_no_row(results: ResultStore) -> None:
    store_run(results, {"a": 1.0}, video="synthetic-video-a")
    found = find_corpus(results, "starter", [*REQUIRED, "core_clip"])
    assert (len(found.latest), found.rows) == (1, ())
    with pytest.raises(TrendFlowError, match="process a video first") as caught:
        read_corpus(results, SCHEMAS, "starter", [*REQUIRED, "core_clip"])
    assert caught.value.error_code == "dependency_missing"


def test_the_configuration_of_most_videos_prevails(results: ResultStore) -> None:
    for number in range(3):
        store_run(results, {"a": float(number)}, video=f"synthetic-video-{number}", created_at=day(number + 1))
    # Processed again under another configuration, the video still has a run of the common one.
    store_run(results, {"a": 9.0}, video="synthetic-video-0", run="new", config_hash="e" * 64, created_at=day(9))
    store_run(results, {"a": 9.0}, video="synthetic-video-x", config_hash="e" * 64, created_at=day(9))
    found = find_corpus(results, "starter", REQUIRED)
    assert found.configuration == ("c" * 64, "sampling_v1")
    assert [run.key for run in found.rows] == [f"synthetic-video-{number}/run-1" for number in range(3)]
    assert found.set_aside == {("e" * 64, "sampling_v1"): 1}


def test_only_named_runs_where_runs_are_named(results: ResultStore) -> None:
    paths = [store_run(results, {"a": float(k)}, video=f"synthetic-video-{k}") for k in range(3)]
    found = find_corpus(results, "starter", REQUIRED, [paths[2], paths[0], paths[0]])
    assert [run.run_path for run in found.rows] == [paths[0], paths[2]]
    with pytest.raises(TrendFlowError) as caught:
        find_corpus(results, "starter", REQUIRED, ["upload/synthetic-video-9/run-1"])
    assert caught.value.error_code == "dependency_missing"


def test_what_is_left_of_a_deleted_video_is_not_there(store: ObjectStore, results: ResultStore) -> None:
    paths = [store_run(results, {"a": float(k)}, video=f"synthetic-video-{k}") for k in range(4)]
    store.put(f"result_store/{paths[3]}/manifest.json", b"{")
    gone = {("upload", "synthetic-video-1"), ("upload", "synthetic-video-3")}
    made = read_corpus(results, SCHEMAS, "starter", REQUIRED, tombstones=gone)
    assert [run.run_path for run in made.corpus.rows] == [paths[0], paths[2]]
    assert (made.corpus.n_runs, made.corpus.unreadable) == (2, ())
    np.testing.assert_array_equal(made.table.values, [[0.0], [2.0]])
    with pytest.raises(TrendFlowError, match="holds no run synthetic-video-1/run-1") as caught:
        read_corpus(results, SCHEMAS, "starter", REQUIRED, paths[:2], tombstones=gone)
    assert caught.value.error_code == "dependency_missing"


def test_what_cannot_be_read_is_reported_and_hides_nothing(store: ObjectStore, results: ResultStore) -> None:
    paths = [store_run(results, {"a": float(k)}, video=f"synthetic-video-{k}") for k in range(4)]
    store.put(f"result_store/{paths[0]}/manifest.json", b"{")
    store.put(f"result_store/{paths[1]}/feature_vector/feature_vector.npz", b"PK")
    other = store.get(f"result_store/{paths[3]}/feature_vector/feature_vector.npz")
    store.put(f"result_store/{paths[2]}/feature_vector/feature_vector.npz", other)
    made = read_corpus(results, SCHEMAS, "starter", REQUIRED)
    assert made.corpus.unreadable == ("upload/synthetic-video-0",)
    assert made.table.unreadable == ("synthetic-video-1/run-1", "synthetic-video-2/run-1")
    np.testing.assert_array_equal(made.table.values, [[3.0]])
    coverage = assess(made).checks[0]
    assert (coverage.name, coverage.verdict, coverage.severity) == ("coverage", "fail", "error")


def test_columns_of_all_runs_are_one_table(results: ResultStore) -> None:
    store_run(results, {"a": 1.0, "b": np.nan}, video="synthetic-video-0", reasons={"b": "audio_silent"})
    store_run(results, {"b": 2.0, "c": 3.0}, video="synthetic-video-1")
    made = read_corpus(results, SCHEMAS, "starter", REQUIRED)
    assert [info.name for info in made.table.columns] == [column(name) for name in "abc"]
    np.testing.assert_array_equal(made.table.values, np.array([[1, np.nan, np.nan], [np.nan, 2, 3]], np.float32))
    np.testing.assert_array_equal(made.table.comparable, [[True, True, False], [False, True, True]])
    health = assess(made).columns[1]
    assert (health.statistics.n_rows, health.empty_reasons) == (2, {"audio_silent": 1})


def test_ranges_and_units_are_those_of_the_schema(results: ResultStore) -> None:
    store_run(results, {"short_ratio": 0.5, "shot_duration_max_s": 4.0}, video="synthetic-video-0")
    first, second = read_corpus(results, SCHEMAS, "starter", REQUIRED).table.columns
    features = SCHEMAS.get("cut_detection_npz_v2").features
    assert (first.range, second.range) == ((0, 1), (0, None))
    assert (first.unit, second.unit) == (features["short_ratio"].unit, "s")


def test_only_the_columns_are_fetched(
    store: ObjectStore, results: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Range reads of five members; the whole artifact would bring embeddings and six columns of provenance."""
    store_run(results, {f"f{k}": float(k) for k in range(200)}, video="synthetic-video-0")
    corpus = find_corpus(results, "starter", REQUIRED)
    size = store.head("result_store/upload/synthetic-video-0/run-1/feature_vector/feature_vector.npz").size
    fetched: list[int] = []
    real = store.get_range

    def get_range(key: str, start: int, length: int) -> bytes:
        data = real(key, start, length)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(store, "get_range", get_range)
    (row,), _ = read_vectors(results, corpus.rows)
    assert row[1].values.tolist() == list(np.argsort([f"f{k}" for k in range(200)]).astype(float))
    assert 0 < sum(fetched) < 0.6 * size


def test_a_vector_of_another_run_is_refused(results: ResultStore) -> None:
    store_run(results, {"a": 1.0}, video="synthetic-video-0")
    (run,) = find_corpus(results, "starter", REQUIRED).rows
    sound, broken = read_vectors(results, [dataclasses.replace(run, vector_digest="0" * 64)])
    assert (sound, broken) == ([], ("synthetic-video-0/run-1",))
