"""Which run speaks for a video, and what has no row: every refusal has its reason and its place in the list."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.keys import model_signature
from trendflow.dataset.table.enrichment import CHANNELS_V1, Enrichment
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.tombstones import Tombstones, tombstone_key
from trendflow_tests.dataset.synthetic import COMPONENT, column, store_run
from trendflow_tests.dataset.table.corpora import amend, build, corpus_snapshots, snapshot_rows, snapshots, video

OTHER_MODEL = model_signature(()).translate(str.maketrans("0123456789", "1234567890"))


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore.open("memory://")


@pytest.fixture
def results(store: ObjectStore) -> ResultStore:
    return ResultStore(store)


def stored(results: ResultStore, count: int) -> list[str]:
    return [store_run(results, {"a": float(number)}, video=video(number)) for number in range(count)]


def refused(built: Any) -> dict[str, tuple[str, str]]:
    rows = json.loads(built.reports["refused.json"])
    assert Counter(row["reason"] for row in rows) == built.metadata["excluded"]
    return {row["video_id"]: (row["reason"], row["detail"]) for row in rows}


def rows_of(built: Any) -> list[str]:
    return built.table["video_id"].to_pylist()


def test_the_newest_successful_run_of_the_configuration_speaks(tmp_path: Path, results: ResultStore) -> None:
    day = "2026-01-0{}T00:00:00.000Z".format
    store_run(results, {"a": 1.0}, video=video(0), run="old", created_at=day(1))
    store_run(results, {"a": 2.0}, video=video(0), run="new", created_at=day(3))
    store_run(results, {"a": 3.0}, video=video(0), run="open", created_at=day(4), finished=False)
    store_run(results, {"a": 4.0}, video=video(0), run="other", created_at=day(5), config_hash="e" * 64)
    failed = store_run(results, {"a": 5.0}, video=video(0), run="failed", created_at=day(6))
    amend(results, failed, COMPONENT, status="error", error_code="timeout", error="Too slow.")
    built = build(corpus_snapshots(tmp_path, [0]), results)
    assert built.table["run_id"].to_pylist() == ["new"]
    assert built.table[column("a")].to_pylist() == [2.0]


def test_videos_without_a_usable_run_are_listed(tmp_path: Path, store: ObjectStore, results: ResultStore) -> None:
    good, broken, damaged, tested = (store_run(results, {"a": 1.0}, video=video(number)) for number in range(4))
    store_run(results, {"a": 1.0}, video=video(4), config_hash="e" * 64)
    store_run(results, {"a": 1.0}, video=video(5), finished=False)
    store_run(results, {"a": 1.0}, video="test-video-without-snapshots")
    store.put(f"result_store/{broken}/manifest.json", b"{")
    store.put(f"result_store/{damaged}/feature_vector/feature_vector.npz", b"PK")
    weights = {"model_name": "random_weights_depth", "model_version": "1", "weights_digest": "0" * 64}
    amend(results, tested, COMPONENT, models_used=[weights])
    built = build(corpus_snapshots(tmp_path, range(7)), results)
    assert rows_of(built) == [good.split("/")[1]]
    assert refused(built) == {
        video(1): ("unreadable_manifest", ""),
        video(2): ("unreadable_vector", ""),
        video(3): ("test_weights", "random_weights_depth"),
        video(4): ("other_configuration", ""),
        video(5): ("no_successful_run", ""),
        video(6): ("no_run", ""),
        "test-video-without-snapshots": ("no_first_snapshot", ""),
    }


def test_a_vector_of_another_run_is_refused(tmp_path: Path, store: ObjectStore, results: ResultStore) -> None:
    first, second, _ = stored(results, 3)
    other = store.get(f"result_store/{first}/feature_vector/feature_vector.npz")
    store.put(f"result_store/{second}/feature_vector/feature_vector.npz", other)
    built = build(corpus_snapshots(tmp_path, range(3)), results)
    assert refused(built) == {video(1): ("unreadable_vector", "")}


@pytest.mark.parametrize(
    ("component", "change", "reason"),
    [
        (COMPONENT, {"producer_version": "1.0.1"}, ("mixed_producer_version", f"{COMPONENT} 1.0.1")),
        (COMPONENT, {"model_signature": OTHER_MODEL}, ("mixed_model_signature", f"{COMPONENT} {OTHER_MODEL[:16]}")),
        ("feature_vector", {"producer_version": "9.0.0"}, ("mixed_producer_version", "feature_vector 9.0.0")),
        ("run", {"sampling_policy_version": "sampling_v2"}, ("mixed_sampling_policy_version", "sampling_v2")),
    ],
)
def test_what_another_program_computed_is_refused(
    tmp_path: Path,
    store: ObjectStore,
    results: ResultStore,
    component: str,
    change: dict[str, Any],
    reason: tuple[str, str],
) -> None:
    if component == "run":
        key = f"result_store/{stored(results, 4)[2]}/manifest.json"
        manifest = json.loads(store.get(key))
        manifest["run"] |= change  # the store itself lets nobody change the identity of a run
        store.put(key, json.dumps(manifest).encode())
    else:
        amend(results, stored(results, 4)[2], component, **change)
    found = corpus_snapshots(tmp_path, range(4))
    built = build(found, results)
    assert refused(built) == {video(2): reason}
    assert built.metadata["mixed"] is False
    mixed = build(found, results, allow_mixed=True)
    assert rows_of(mixed) == [video(number) for number in range(4)]
    assert mixed.metadata["mixed"] is True
    assert mixed.version != built.version


def test_other_columns_are_another_program(tmp_path: Path, results: ResultStore) -> None:
    stored(results, 3)
    store_run(results, {"b": 1.0}, video=video(3))
    found = corpus_snapshots(tmp_path, range(4))
    built = build(found, results)
    assert refused(built) == {video(3): ("mixed_feature_set", "")}
    assert column("b") not in built.table.column_names
    mixed = build(found, results, allow_mixed=True)
    np.testing.assert_array_equal(mixed.table[column("b")].to_numpy(), [np.nan, np.nan, np.nan, 1.0])


def test_two_halves_have_no_rest_to_differ_from(tmp_path: Path, results: ResultStore) -> None:
    for path in stored(results, 4)[:2]:
        amend(results, path, COMPONENT, producer_version="2.0.0")
    with pytest.raises(TrendFlowError, match=r"no prevailing producer_version of cut_detection: 1.0.0 \(2\), 2.0.0"):
        build(corpus_snapshots(tmp_path, range(4)), results)


def test_a_component_that_failed_has_no_model_to_differ(tmp_path: Path, results: ResultStore) -> None:
    paths = stored(results, 3)
    for path in paths[1:]:
        amend(results, path, COMPONENT, model_signature=OTHER_MODEL)
    failure = {"status": "error", "error_code": "timeout", "error": "Too slow.", "model_signature": model_signature(())}
    amend(results, paths[0], COMPONENT, **failure)
    found = corpus_snapshots(tmp_path, range(3))
    built = build(found, results, required=["feature_vector"])
    assert rows_of(built) == [video(number) for number in range(3)]
    assert built.metadata["model_signatures"][COMPONENT] == OTHER_MODEL
    assert refused(build(found, results)) == {
        video(0): ("no_successful_run", "")
    }  # required, so its failure is the run's


def test_without_any_run_the_reasons_are_told(tmp_path: Path, results: ResultStore) -> None:
    store_run(results, {"a": 1.0}, video=video(0), config_hash="e" * 64)
    with pytest.raises(
        TrendFlowError, match=r"1 × no_run, 1 × other_configuration.*eeeeeeeeeeee \(1 videos\)"
    ) as caught:
        build(corpus_snapshots(tmp_path, [0, 1]), results)
    assert caught.value.error_code == "dependency_missing"


def test_deleted_videos_stay_out(tmp_path: Path, store: ObjectStore, results: ResultStore) -> None:
    stored(results, 3)
    store.put(tombstone_key("upload", video(1), b"secret"), b"{}")
    built = build(corpus_snapshots(tmp_path, range(3)), results, tombstones=Tombstones.load(store, b"secret"))
    assert refused(built) == {video(1): ("tombstoned", "")}
    with pytest.raises(TrendFlowError, match="TRENDFLOW_TOMBSTONE_KEY"):
        Tombstones.load(store, None)
    assert ("upload", video(1)) not in Tombstones.load(ObjectStore.open("memory://"), None)


def test_dates_and_channels_are_never_invented(tmp_path: Path) -> None:
    rows = [
        *snapshot_rows(0),
        *snapshot_rows(1, publish_time=None),
        *snapshot_rows(2, channel_id=None, channel_title="A title is no channel"),
        *snapshot_rows(3, channel_id=None),
    ]
    asked = {"platform_id": "upload", "video_id": video(3), "channel_id": "asked", "observed_at": None}
    counters = dict.fromkeys(("channel_subscribers", "channel_views", "channel_videos"), float("nan"))
    enrichment = Enrichment(pa.Table.from_pylist([{**asked, **counters}], schema=CHANNELS_V1))
    built = build(snapshots(tmp_path, rows), enrichment=enrichment)
    assert dict(zip(rows_of(built), built.table["channel_id"].to_pylist(), strict=True)) == {
        video(0): "channel-0",
        video(3): "asked",
    }
    assert refused(built) == {video(1): ("publish_time_missing", ""), video(2): ("channel_id_missing", "")}


def test_invented_inputs_have_to_be_asked_for(tmp_path: Path) -> None:
    found = snapshots(tmp_path, [row for number in range(2) for row in snapshot_rows(number, source="SYNTHETIC_x")])
    with pytest.raises(TrendFlowError, match="SYNTHETIC") as caught:
        build(found)
    assert caught.value.error_code == "input_constraint_violated"
    built = build(found, allow_synthetic=True)
    assert built.version.startswith("SYNTHETIC_")
    assert (built.metadata["synthetic"], built.metadata["rows_with_real_targets"]) == (True, 0)
    assert built.table.schema.metadata[b"synthetic"] == b"true"
    assert built.provenance.schema.metadata[b"synthetic"] == b"true"
