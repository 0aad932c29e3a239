"""Leaks planted into a clean dataset of SYNTHETIC videos. Each has to be caught, and the clean one has to pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import LeakageAudit, Net, audit, audit_dataset, is_no_feature, require_clean
from trendflow.dataset.simulation.videos import SNAPSHOT_FILE, synthetic_snapshots, synthetic_videos
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.table.build import BuiltDataset
from trendflow.dataset.table.columns import ColumnProvenance, read_provenance
from trendflow.dataset.table.files import write_dataset
from trendflow.dataset.table.reader import Dataset
from trendflow_tests.dataset.table.corpora import SCHEMAS, SPEC, build

N = 260


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SnapshotSet:
    path = tmp_path_factory.mktemp("synthetic") / SNAPSHOT_FILE
    pq.write_table(synthetic_snapshots(synthetic_videos(N)), path)
    return import_snapshots([path])


@pytest.fixture(scope="module")
def built(found: SnapshotSet) -> BuiltDataset:
    return build(found, allow_synthetic=True)


@pytest.fixture(scope="module")
def provenance(built: BuiltDataset) -> Sequence[ColumnProvenance]:
    return read_provenance(built.provenance)


def honest(column: str, **changes: str) -> ColumnProvenance:
    """What a feature of the media claims of itself."""
    made = ColumnProvenance(column, "media", "publish_time", "visual", "cut_detection", "cut_detection_npz_v2", "1.0.0")
    return dataclasses.replace(made, **changes)


def planted(
    built: BuiltDataset,
    provenance: Sequence[ColumnProvenance],
    column: str,
    values: object,
    *claims: ColumnProvenance,
    rows: int = N,
) -> LeakageAudit:
    table = built.table.append_column(column, values if isinstance(values, pa.ChunkedArray) else pa.array(values))
    return audit(table.slice(0, rows), [*provenance, *claims], SPEC.leakage)


def caught(found: LeakageAudit) -> dict[str, set[Net]]:
    columns: dict[str, set[Net]] = {}
    for finding in found.findings:
        columns.setdefault(finding.column, set()).add(finding.net)
    return columns


def test_a_clean_dataset_passes(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    verdict = audit(built.table, provenance, SPEC.leakage)
    assert verdict.findings == ()
    assert set(verdict.verdicts.values()) == {"pass"}
    assert (verdict.n_rows, verdict.n_columns) == (N, len(SPEC.metadata_fields))
    require_clean(verdict)


def test_a_renamed_target(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    target = built.table["target_views_14d"]
    unsaid = planted(built, provenance, "early_interest", target)
    assert caught(unsaid) == {"early_interest": {"provenance", "statistics"}}
    lied = planted(built, provenance, "early_interest", target, honest("early_interest"))
    assert caught(lied) == {"early_interest": {"statistics"}}
    scaled = pa.array(np.exp(-2 * target.to_numpy()))
    assert caught(planted(built, provenance, "dullness", scaled, honest("dullness"))) == {"dullness": {"statistics"}}
    named = planted(built, provenance, "target_of_interest", target, honest("target_of_interest"))
    assert caught(named) == {"target_of_interest": {"name", "statistics"}}
    asked = audit(built.table, provenance, SPEC.leakage, ["views_0", "target_views_14d", "x0_views", "channel_id"])
    nets = caught(asked)
    assert {"name", "statistics"} <= nets["target_views_14d"]
    assert "name" in nets["x0_views"]
    assert "source" in nets["channel_id"]
    assert "views_0" not in nets


def test_a_later_snapshots_counter(
    found: SnapshotSet, built: BuiltDataset, provenance: Sequence[ColumnProvenance]
) -> None:
    rows = found.snapshots.to_pylist()
    later: dict[str, tuple[float, object]] = {}
    for row in rows:  # sorted by time, so the last one stands
        later[row["video_id"]] = (row["views"], row["snapshot_time"])
    videos = built.table["video_id"].to_pylist()
    counters = pa.array([later[name][0] for name in videos])
    times = pa.array([later[name][1] for name in videos], pa.timestamp("us", tz="UTC"))
    claim = honest("hype", source_kind="snapshot", observed_at="seen_at")
    assert caught(planted(built, provenance, "hype", counters, claim, rows=20))["hype"] == {
        "observation_time"
    }  # no clock
    clock = built.table.append_column("seen_at", times).append_column("hype", counters)
    features = [*SPEC.metadata_fields, "hype"]
    verdict = audit(clock, [*provenance, claim], SPEC.leakage, features)
    assert "observation_time" in caught(verdict)["hype"]
    only_first = sum(time.as_py() == t0.as_py() for time, t0 in zip(times, built.table["t0"], strict=True))
    (late,) = [one for one in verdict.findings if one.net == "observation_time"]
    assert late.rows == N - only_first
    # An innocent name and a provenance that lies, on fewer rows than the alarm of the targets needs.
    after = built.table["x0_likes"].to_numpy() + np.expm1(built.table["target_likes_7d"].to_numpy())
    lied = planted(built, provenance, "warmth", pa.array(np.sqrt(after)), honest("warmth"), rows=80)
    assert caught(lied) == {"warmth": {"statistics"}}


def test_a_comment_feature(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    noise = np.random.default_rng(0).normal(size=N)
    told = planted(built, provenance, "mood", noise, honest("mood", source_kind="comments"))
    assert caught(told) == {"mood": {"source"}}
    name = "text_processor__comment_sentiment__mean"
    assert caught(planted(built, provenance, name, noise, honest(name))) == {name: {"source"}}


@pytest.mark.parametrize(("minutes", "nets"), [(60, set()), (61, {"observation_time"})])
def test_a_feature_computed_after_the_first_snapshot(
    built: BuiltDataset, provenance: Sequence[ColumnProvenance], minutes: int, nets: set[Net]
) -> None:
    table = built.table
    late = pc.add(table["t0"], pa.scalar(timedelta(minutes=minutes), pa.duration("us")))
    at = table.schema.get_field_index("captured_at")
    values = np.full(N, np.nan)
    values[7] = 1.0  # a single row is enough
    moved = table.set_column(at, "captured_at", late).append_column("summary", pa.array(values))
    only = [found for found in provenance if found.observed_at != "captured_at"]
    claim = honest("summary", source_kind="derived", observed_at="captured_at")
    features = [*(found.column for found in only), "summary"]
    verdict = audit(moved, [*only, claim], SPEC.leakage, features)
    assert caught(verdict).get("summary", set()) == nets
    assert [finding.rows for finding in verdict.findings] == [1] * len(nets)


def test_a_value_observed_at_no_known_time(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    table = built.table
    at = table.schema.get_field_index("channel_observed_at")
    unknown = table.set_column(at, "channel_observed_at", pa.nulls(N, pa.timestamp("us", tz="UTC")))
    columns = caught(audit(unknown, provenance, SPEC.leakage))
    assert columns == {
        name: {"observation_time"}
        for name in ("channel_subscribers_0", "channel_total_videos_0", "channel_total_views_0")
    }


def test_dates_and_flags(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    dates = planted(built, provenance, "uploaded", built.table["publish_time"], honest("uploaded"))
    assert caught(dates) == {"uploaded": {"source"}}
    flags = pa.array([None, *(number % 2 == 0 for number in range(1, N))])  # nothing to find, and nothing to trip over
    assert caught(planted(built, provenance, "flag", flags, honest("flag"))) == {}


@pytest.mark.parametrize("name", ["my_target_x", "views_snapshot_2", "growth_7d", "rate_14d_mean", "a_mask_b"])
def test_names(built: BuiltDataset, provenance: Sequence[ColumnProvenance], name: str) -> None:
    noise = np.random.default_rng(1).normal(size=N)
    assert caught(planted(built, provenance, name, noise, honest(name))) == {name: {"name"}}


def test_reviewed_columns_pass_the_alarm_alone(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    policy = dataclasses.replace(SPEC.leakage, reviewed={"early_interest": "A column of a test."})
    table = built.table.append_column("early_interest", built.table["target_views_14d"])
    assert audit(table, [*provenance, honest("early_interest")], policy).passed
    assert caught(audit(table, provenance, policy)) == {"early_interest": {"provenance"}}


def test_a_target_among_the_elements_of_an_embedding(
    built: BuiltDataset, provenance: Sequence[ColumnProvenance]
) -> None:
    """A trainer takes every element as a feature of its own. Rows without the vector are in between."""
    noise = np.random.default_rng(2).normal(size=(N, 3)).astype(np.float32)
    empty = np.arange(N) % 9 == 0

    def vectors(values: np.ndarray) -> pa.Array:
        flat = pa.array(values.reshape(-1), pa.float32())
        return pa.FixedSizeListArray.from_arrays(flat, 3, mask=pa.array(empty))

    assert caught(planted(built, provenance, "shape", vectors(noise), honest("shape"))) == {}
    leaking = noise.copy()
    leaking[:, 1] = -built.table["target_views_14d"].to_numpy()
    assert caught(planted(built, provenance, "shape", vectors(leaking), honest("shape"))) == {"shape": {"statistics"}}


def test_a_column_added_to_the_files_is_caught(tmp_path: Path, built: BuiltDataset) -> None:
    table = built.table.append_column("innocent", built.table["target_likes_21d"])
    folder = write_dataset(dataclasses.replace(built, table=table), tmp_path, SCHEMAS)
    verdict = audit_dataset(Dataset.read(folder, SCHEMAS))
    assert caught(verdict) == {"innocent": {"provenance", "statistics"}}
    with pytest.raises(TrendFlowError) as failed:
        require_clean(verdict)
    assert failed.value.error_code == "leakage_violation"
    assert {finding["column"] for finding in failed.value.detail["findings"]} == {"innocent"}


def test_one_row_is_judged_without_statistics(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    names = [name for name in built.table.column_names if not name.startswith(("target_", "mask_", "x0_"))]
    row = built.table.select(names).slice(0, 1)
    verdict = audit(row, provenance, SPEC.leakage)
    assert verdict.passed
    assert verdict.verdicts["statistics"] == "not_judged"
    assert caught(audit(row.append_column("extra", pa.array([1.0])), provenance, SPEC.leakage)) == {
        "extra": {"provenance"}
    }


def test_every_column_is_a_feature_or_known_to_be_none(
    built: BuiltDataset, provenance: Sequence[ColumnProvenance]
) -> None:
    features = {found.column for found in provenance}
    assert features == {name for name in built.table.column_names if not is_no_feature(name)}


def test_the_real_snapshots_pass(data_dir: Path) -> None:
    """1 357 videos, of which some 300 have targets: no alarm, though counters of old videos hardly move."""
    verdict = audit_of(import_snapshots([data_dir / "snapshots" / "snapshots.parquet"]))
    assert verdict.passed
    assert verdict.verdicts["statistics"] == "pass"


def audit_of(found: SnapshotSet) -> LeakageAudit:
    built = build(found)
    return audit(built.table, read_provenance(built.provenance), SPEC.leakage)


def test_an_audit_is_a_document_of_its_schema(built: BuiltDataset, provenance: Sequence[ColumnProvenance]) -> None:
    clean = audit(built.table, provenance, SPEC.leakage).document()
    assert (clean["schema_version"], clean["passed"], clean["findings"]) == ("leakage_audit_v1", True, [])
    caught = audit(built.table.append_column("more", pa.nulls(N, pa.float64())), provenance, SPEC.leakage).document()
    assert not caught["passed"]
    assert {(found["net"], found["column"]) for found in caught["findings"]} == {("provenance", "more")}
    with pytest.raises(TrendFlowError, match=r"no leakage_audit_v1.*n_rows") as refused:
        LeakageAudit(-1, 0, clean["verdicts"], ()).document()
    assert refused.value.error_code == "artifact_validation_failed"
