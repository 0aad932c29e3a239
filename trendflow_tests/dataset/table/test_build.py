"""What a build says: the values of the runs, in one order, byte for byte the same however it was made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.program import builder_digest
from trendflow.dataset.table import build as building
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.targets import build_targets
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import COMPONENT, column, store_run
from trendflow_tests.dataset.table.corpora import (
    SPEC,
    build,
    corpus_snapshots,
    snapshot_rows,
    snapshots,
    table_sha256,
    video,
)

DAY = "2026-01-0{}T00:00:00.000Z".format


def values_of(number: int) -> dict[str, float]:
    return {"a": number / 3, "b": float(number * 7919 % 11), "c": math.nan if number % 4 == 0 else number**0.5}


def runs(numbers: Any) -> ResultStore:
    results = ResultStore(ObjectStore.open("memory://"))
    for number in numbers:
        store_run(results, values_of(number), video=video(number))
    return results


def test_the_table_holds_what_runs_and_snapshots_say(tmp_path: Path) -> None:
    built = build(corpus_snapshots(tmp_path, range(6)), runs(range(6)))
    table = built.table
    assert table.column_names == sorted(table.column_names)
    assert table["video_id"].to_pylist() == [video(number) for number in range(6)]
    for name in "abc":
        expected = np.array([values_of(number)[name] for number in range(6)], dtype=np.float32)
        np.testing.assert_array_equal(table[column(name)].to_numpy(), expected)
    assert table["views_0"].to_pylist() == [1000.0 + 10 * number for number in range(6)]
    # video n gains 100·(n mod 7 + 1) views a day
    np.testing.assert_allclose(
        table["target_views_14d"].to_numpy(), np.log1p([1400.0 * (number + 1) for number in range(6)]), rtol=1e-6
    )
    assert table["channel_id"].to_pylist() == [f"channel-{number // 2}" for number in range(6)]
    assert table["age_bucket"].to_pylist() == ["1-30d"] * 6


def test_the_metadata_count_what_the_table_holds(tmp_path: Path) -> None:
    rows = [row for number in range(6) for row in snapshot_rows(number, language="de" if number < 2 else None)]
    built = build(snapshots(tmp_path, rows), runs(range(5)))
    found = built.metadata
    assert (found["n_rows"], found["n_videos"], found["n_channels"]) == (5, 5, 3)
    assert (found["horizons"], found["mask_coverage"]["views_21d"]) == ([7, 14, 21], 1.0)
    assert found["language_counts"] == {"de": 2, "unknown": 3}
    assert found["age_bucket_counts"] == {"<24h": 0, "1-30d": 5, ">30d": 0}
    assert (found["excluded"], found["included_components"]) == ({"no_run": 1}, [COMPONENT])
    assert found["channel_enrichment"] == {
        "id_snapshot": 5,
        "id_lookup": 0,
        "statistics_snapshot": 5,
        "statistics_lookup": 0,
        "statistics_missing": 0,
    }
    assert found["time_range"]["t0"] == {"min": "2026-03-01T12:00:00.000Z", "max": "2026-03-01T16:00:00.000Z"}
    assert (found["producer_versions"][COMPONENT], found["config_hash"]) == ("1.0.0", "c" * 64)
    assert found["n_feature_columns"] == 3 + len(SPEC.metadata_fields)


def test_every_feature_has_provenance(tmp_path: Path) -> None:
    built = build(corpus_snapshots(tmp_path, range(3)), runs(range(3)))
    found = {row["column"]: row for row in built.provenance.to_pylist()}
    assert sorted(found) == sorted([column("a"), column("b"), column("c"), *SPEC.metadata_fields])
    content, title, views = found[column("a")], found["title_len"], found["views_0"]
    assert (content["source_kind"], content["observed_at"], content["component"]) == (
        "media",
        "publish_time",
        COMPONENT,
    )
    assert (content["schema_version"], content["producer_version"]) == ("cut_detection_npz_v2", "1.0.0")
    assert (title["source_kind"], title["observed_at"], title["family"]) == ("document", "captured_at", "metadata")
    assert (views["source_kind"], views["observed_at"]) == ("snapshot", "t0")
    assert views["observed_at_max"] == built.table["t0"].to_pylist()[2]
    assert content["observed_at_min"] == built.table["publish_time"].to_pylist()[0]


def test_bytes_do_not_depend_on_day_order_or_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(40))
    rows = [row for number in numbers for row in snapshot_rows(number)]
    forward = build(snapshots(tmp_path, rows), runs(numbers), readers=1)
    monkeypatch.setattr(building, "utc_now", lambda: "2031-01-01T00:00:00.000Z")
    again = build(snapshots(tmp_path, rows), runs(reversed(numbers)), readers=8)
    assert forward.metadata["created_at"] != again.metadata["created_at"]
    assert table_sha256(forward) == table_sha256(again)
    assert parquet_bytes(forward.provenance) == parquet_bytes(again.provenance)
    assert forward.version == again.version
    assert forward.reports == again.reports


@pytest.mark.parametrize("kind", ["folder", "memory", "s3"])
def test_bytes_do_not_depend_on_the_store(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    options = request.getfixturevalue("s3_options") if kind == "s3" else None
    bucket = f"{request.getfixturevalue('s3_store_url')}/{tmp_path.name}" if kind == "s3" else ""
    url = {"folder": (tmp_path / "store").as_uri(), "memory": "memory://", "s3": bucket}[kind]
    results = ResultStore(ObjectStore.open(url, options))
    for number in range(6):
        store_run(results, values_of(number), video=video(number))
    expected = build(corpus_snapshots(tmp_path, range(6)), runs(range(6)))
    # A run's artifact says when it was written, its content does not.
    assert table_sha256(build(corpus_snapshots(tmp_path, range(6)), results)) == table_sha256(expected)


def test_a_late_run_changes_its_own_row_only(tmp_path: Path) -> None:
    results = runs(range(5))
    found = corpus_snapshots(tmp_path, range(6))
    before = build(found, results)
    store_run(results, values_of(5), video=video(5))  # a video that had none
    store_run(results, {"a": 99.0, "b": 99.0, "c": 99.0}, video=video(2), run="run-2", created_at=DAY(9))
    after = build(found, results)
    assert before.version != after.version
    rows = {row["video_id"]: row for row in after.table.to_pylist()}
    changed = [row["video_id"] for row in before.table.to_pylist() if _text(row) != _text(rows[row["video_id"]])]
    assert changed == [video(2)]
    assert sorted(set(rows) - set(before.table["video_id"].to_pylist())) == [video(5)]


def test_deleting_follow_ups_changes_no_feature(tmp_path: Path) -> None:
    rows = [row for number in range(8) for row in snapshot_rows(number)]
    # Likes vanish at a follow-up: that masks a target and may not touch the likes that were seen first.
    rows[2] |= {"likes": 0.0, "views": 50_000.0}
    full, first = build(snapshots(tmp_path, rows)).table, build(snapshots(tmp_path, rows[::4])).table
    for name in SPEC.metadata_fields:
        assert repr(full[name].to_pylist()) == repr(first[name].to_pylist()), name  # NaN equals NaN here
    assert full["likes_0"].to_pylist()[0] == 50.0
    assert full["mask_reason_likes_14d"].to_pylist()[0] == "hidden_likes"
    assert all(full["mask_views_7d"].to_pylist())
    assert not any(first["mask_views_7d"].to_pylist())


def test_a_fingerprint_covers_every_input(tmp_path: Path) -> None:
    found, results = corpus_snapshots(tmp_path, range(4)), runs(range(4))
    other_results = runs(range(4))
    store_run(other_results, {"a": 7.0, "b": 7.0, "c": 7.0}, video=video(1), run="run-2", created_at=DAY(9))
    other_spec = FeatureSpec.from_document({**SPEC.document, "temporal_fields": []})
    rows = [row for number in range(4) for row in snapshot_rows(number, title="Another title")]
    targets = build_targets(found)
    report = {**targets.report, "policy": {**targets.report["policy"], "decrease_policy": "floor"}}
    fingerprints = {
        build(found, results).metadata["dataset_fingerprint"],
        build(found, other_results).metadata["dataset_fingerprint"],
        build(found, results, other_spec).metadata["dataset_fingerprint"],
        build(snapshots(tmp_path, rows), results).metadata["dataset_fingerprint"],
        building.build_dataset(found, dataclasses.replace(targets, report=report), SPEC.without_content()).metadata[
            "dataset_fingerprint"
        ],
        build(found).metadata["dataset_fingerprint"],
    }
    assert len(fingerprints) == 6


def test_another_builder_makes_another_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, results = corpus_snapshots(tmp_path, range(3)), runs(range(3))
    before = build(found, results)
    monkeypatch.setattr(building, "builder_digest", lambda: "0" * 64)
    after = build(found, results)
    assert (before.metadata["builder_digest"], after.metadata["builder_digest"]) == (builder_digest(), "0" * 64)
    assert before.version != after.version
    assert repr(after.table.to_pylist()) == repr(before.table.to_pylist())


def test_other_tables_of_characters_make_another_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, results = corpus_snapshots(tmp_path, range(3)), runs(range(3))
    before = build(found, results)
    monkeypatch.setattr(building, "library_versions", lambda: {"unicode": "0.0.0"})
    after = build(found, results)
    assert before.metadata["library_versions"]["unicode"] == unicodedata.unidata_version
    assert after.metadata["library_versions"] == {"unicode": "0.0.0"}
    assert before.version != after.version


def test_what_was_refused_and_what_an_import_kept_out_are_inputs(tmp_path: Path) -> None:
    found = corpus_snapshots(tmp_path, range(3))
    before = build(found, runs(range(3)))
    # A run of a video without snapshots adds no row, yet `refused.json` names it.
    more = build(found, runs(range(4)))
    assert repr(more.table.to_pylist()) == repr(before.table.to_pylist())
    assert json.loads(before.reports["refused.json"]) == []
    assert [row["video_id"] for row in json.loads(more.reports["refused.json"])] == [video(3)]
    assert more.version != before.version
    rows = [row for number in range(3) for row in snapshot_rows(number)]
    twice = build(snapshots(tmp_path, [*rows[:1], *rows]), runs(range(3)))
    assert twice.metadata["edge_cases"]["import_duplicate_equal"] == 1
    assert twice.version != before.version


def test_the_spec_chooses_the_columns(tmp_path: Path) -> None:
    document = {
        **SPEC.document,
        "components": [{"name": COMPONENT, "column_exclude": ["*__b__*"]}],
        "snapshot0_fields": ["views_0", "language"],
    }
    built = build(corpus_snapshots(tmp_path, range(3)), runs(range(3)), FeatureSpec.from_document(document))
    features = [row["column"] for row in built.provenance.to_pylist()]
    assert features == [column("a"), column("c"), "language", "video_age_hours_at_snapshot1", "views_0"]
    assert column("b") not in built.table.column_names


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"components": [{"name": "a"}, {"name": "a"}]}, "names one twice"),
        ({"components": [{"title": "a"}]}, "has a name"),
        ({"snapshot0_fields": ["views_7"]}, "views_7"),
        ({"mask_columns": "mask_views_7d"}, "list of different names"),
        ({"more": []}, "exactly the keys"),
        ({"leakage_policy": {}}, "leakage_policy"),
        ({"leakage_policy": {**SPEC.document["leakage_policy"], "tolerance_minutes": 61}}, "60 minutes"),
        ({"leakage_policy": {**SPEC.document["leakage_policy"], "reviewed": {"a": " "}}}, "reason"),
    ],
)
def test_a_spec_that_is_not_in_order_is_refused(change: Mapping[str, Any], why: str) -> None:
    with pytest.raises(TrendFlowError, match=why) as caught:
        FeatureSpec.from_document({**SPEC.document, **change})
    assert caught.value.error_code == "config_invalid"


@pytest.mark.parametrize(
    ("name", "component", "chosen"),
    [
        ("segmenter__source_fps__value", "segmenter", True),
        ("segmenter__analysis_width__value", "segmenter", False),
        ("core_clip__pair_dt_median_s__value", "core_clip", False),
        ("core_clip__entropy_mean__scene_luxury__value", "core_clip", True),
        ("text_processor__empty__value", "text_processor", False),
        ("pitch_extractor__f0_mean__value", "pitch_extractor", False),  # not of Tier 0
    ],
)
def test_the_shipped_spec_takes_what_tells_of_the_video(name: str, component: str, chosen: bool) -> None:
    assert SPEC.chooses(name, component) is chosen


def test_the_hash_of_a_spec_is_that_of_what_it_says() -> None:
    said = json.dumps(dict(SPEC.document), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert SPEC.hash == hashlib.sha256(said.encode()).hexdigest()


def test_content_and_spec_have_to_agree(tmp_path: Path) -> None:
    found = corpus_snapshots(tmp_path, range(2))
    with pytest.raises(TrendFlowError, match="needs runs"):
        building.build_dataset(found, build_targets(found), SPEC)


def test_targets_of_other_snapshots_are_refused(tmp_path: Path) -> None:
    targets = build_targets(corpus_snapshots(tmp_path, range(2)))
    spec = SPEC.without_content()
    with pytest.raises(TrendFlowError, match="1 videos have none"):
        building.build_dataset(corpus_snapshots(tmp_path, range(3)), targets, spec)
    moved = snapshot_rows(0)[1:] + snapshot_rows(1)
    with pytest.raises(TrendFlowError, match="other first snapshots"):
        building.build_dataset(snapshots(tmp_path, moved), targets, spec)


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, default=str, sort_keys=True)
