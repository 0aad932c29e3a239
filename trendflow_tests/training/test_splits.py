"""Splits: hand-made cases, properties over random data, and proofs that refuse what was tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import SplitConfig, SplitMethod
from training.rows import HEADS, MISSING_TIME, NEVER, Rows
from training.split_table import split_bytes, verify_split
from training.splits import CHANNEL, EMBARGO, GOLDEN, MISSING_KEY, NO_TARGET, NONE, TEST, TRAIN, VAL, Fold, make_folds
from trendflow.contracts.errors import TrendFlowError

DAY = 86_400_000_000


def made(days: list[float], channels: list[str], *, observed_after: float = 7.0, seed: int = 0) -> Rows:
    n = len(days)
    published = (np.array(days) * DAY).astype(np.int64)
    return Rows(
        platform=np.full(n, "youtube"),
        video=np.array([f"v{i}" for i in range(n)]),
        channel=np.array(channels),
        published=published,
        t0=published,
        bucket=np.full(n, "<24h"),
        y=np.ones((n, len(HEADS))),
        observed_at=np.tile((published + int(observed_after * DAY))[:, None], (1, len(HEADS))),
    )


def parts_of(fold: Fold) -> list[int]:
    return fold.part.tolist()


def no_golden(rows: Rows) -> np.ndarray:
    return np.zeros(len(rows), dtype=bool)


def explicit(t_val: int, t_test: int, **options: object) -> SplitConfig:
    moments = {"t_val": f"1970-01-{1 + t_val:02d}T00:00:00Z", "t_test": f"1970-01-{1 + t_test:02d}T00:00:00Z"}
    return SplitConfig.model_validate({"min_rows": 1, **moments, **options})


def test_cuts_are_strict_and_a_row_on_a_cut_is_later() -> None:
    rows = made([0, 9.99, 10, 19.99, 20, 25], list("abcdef"))
    (fold,) = make_folds(rows, explicit(10, 20), no_golden(rows))
    assert parts_of(fold) == [TRAIN, TRAIN, VAL, VAL, TEST, TEST]


def test_default_cuts_are_the_80_and_90_percent_points() -> None:
    rows = made(list(range(100)), [f"c{i}" for i in range(100)])
    (fold,) = make_folds(rows, SplitConfig(min_rows=10), no_golden(rows))
    assert [len(fold.rows(part)) for part in (TRAIN, VAL, TEST)] == [80, 10, 10]


def test_a_channel_lives_where_most_of_its_rows_are_and_ties_go_later() -> None:
    rows = made(
        [0, 1, 12, 2, 22, 13, 23, 3, 14], ["most", "most", "most", "tie", "tie", "late", "late", "free", "other"]
    )
    (fold,) = make_folds(rows, explicit(10, 20), no_golden(rows))
    assert parts_of(fold) == [TRAIN, TRAIN, NONE, NONE, TEST, NONE, TEST, TRAIN, VAL]
    assert fold.reason.tolist() == ["", "", CHANNEL, CHANNEL, "", CHANNEL, "", "", ""]


def test_the_latest_rule_gives_a_channel_to_its_last_part() -> None:
    rows = made([0, 1, 2, 12, 22, 3, 13], ["a", "a", "a", "a", "a", "b", "c"])
    (fold,) = make_folds(rows, explicit(10, 20, channel_rule="latest"), no_golden(rows))
    assert parts_of(fold) == [NONE, NONE, NONE, NONE, TEST, TRAIN, VAL]


def test_embargo_removes_single_targets_and_rows_that_have_none_left() -> None:
    rows = made([0, 14, 15, 25], list("abcd"), observed_after=1)
    rows.observed_at[1, :3] = 21 * DAY  # three heads of one val row are seen after T_test = 20
    rows.observed_at[2, :] = 22 * DAY
    (fold,) = make_folds(rows, explicit(10, 20, embargo=True), no_golden(rows))
    assert parts_of(fold) == [TRAIN, VAL, NONE, TEST]
    assert fold.reason[2] == EMBARGO
    assert fold.embargoed[1].tolist() == [True] * 3 + [False] * 3
    (open_fold,) = make_folds(rows, explicit(10, 20), no_golden(rows))
    assert not open_fold.embargoed.any()


def test_rows_without_time_channel_or_target_are_in_no_part() -> None:
    more = made([0, 1, 2, 12, 22, 3], ["a", "", "b", "c", "d", "e"])
    more.published[0] = MISSING_TIME
    more.y[2] = np.nan
    (fold,) = make_folds(more, explicit(10, 20), no_golden(more))
    assert fold.reason.tolist() == [MISSING_KEY, MISSING_KEY, NO_TARGET, "", "", ""]


def test_golden_rows_never_train_but_may_be_tested() -> None:
    rows = made([0, 1, 12, 13, 22, 23], list("abcdef"))
    golden = np.array([True, False, True, False, True, False])
    (fold,) = make_folds(rows, explicit(10, 20), golden)
    assert fold.reason.tolist() == [GOLDEN, "", GOLDEN, "", "", ""]
    assert parts_of(fold) == [NONE, TRAIN, NONE, VAL, TEST, TEST]


def test_too_small_a_part_is_refused() -> None:
    rows = made(list(range(100)), [f"c{i}" for i in range(100)])
    with pytest.raises(TrendFlowError) as caught:
        make_folds(rows, SplitConfig(min_rows=50), no_golden(rows))
    assert caught.value.error_code == "input_constraint_violated"


@st.composite
def random_rows(draw: st.DrawFn) -> Rows:
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(60, 150))
    channels = draw(st.integers(8, 60))
    rows = made(
        sorted(rng.integers(0, 100, n).tolist()), [f"c{i}" for i in rng.zipf(1.6, n) % channels], observed_after=1
    )
    rows.y[rng.random(rows.y.shape) < 0.2] = np.nan
    rows.observed_at[rng.random(rows.y.shape) < 0.05] = NEVER
    return rows


@settings(max_examples=40)
@given(random_rows(), st.sampled_from(["time", "rolling_origin", "group_kfold"]), st.booleans(), st.booleans())
def test_any_split_is_disjoint_and_ordered(rows: Rows, method: SplitMethod, embargo: bool, latest: bool) -> None:
    """Written without the code under test: sets and comparisons on the arrays."""
    config = SplitConfig(
        method=method,
        embargo=embargo,
        channel_rule="latest" if latest else "majority",
        folds=3,
        min_rows=1,
        val_share=0.4,
    )
    golden = np.arange(len(rows)) % 10 == 0
    try:
        folds = make_folds(rows, config, golden)
    except TrendFlowError:  # a part is empty, which is refused and tested elsewhere
        return
    tested: list[str] = []
    for fold in folds:
        train, val, test = (fold.rows(part) for part in (TRAIN, VAL, TEST))
        sets = [set(rows.channel[part]) for part in (train, val, test)]
        assert len(set.union(*sets)) == sum(map(len, sets))
        assert not golden[[*train, *val]].any()
        assert (rows.labelled[[*train, *val, *test]]).any(axis=1).all()
        if method != "group_kfold":
            assert rows.published[train].max() < rows.published[val].min()
            if len(test):
                assert rows.published[val].max() < rows.published[test].min()
            if embargo and fold.cuts is not None:
                used = rows.labelled & ~fold.embargoed
                learned = np.isin(np.arange(len(rows)), [*train, *val])
                assert (rows.observed_at[used & learned[:, None]] <= fold.cuts[1]).all()
        tested += rows.video[test].tolist()
    assert len(tested) == len(set(tested))


def written(folder: Path, rows: Rows, config: SplitConfig) -> Path:
    folds = make_folds(rows, config, no_golden(rows))
    path = folder / "splits.parquet"
    path.write_bytes(split_bytes(rows, folds, config, no_golden(rows), {"dataset_fingerprint": "0" * 64}))
    return path


def rewrite(path: Path, column: str, row: int, value: object) -> None:
    """Change one cell of a written split."""
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    values[row] = value
    position = table.schema.get_field_index(column)
    changed = table.set_column(position, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


ROWS = made([*range(10), *range(10, 20), *range(20, 30)], [f"c{i}" for i in range(30)])


def test_the_proof_reads_the_written_file(tmp_path: Path) -> None:
    proof = verify_split(written(tmp_path, ROWS, explicit(10, 20)))
    assert proof["channels_disjoint"] is True
    assert proof["times_ordered"] is True
    (fold,) = proof["folds"]
    assert fold["n"] == {"train": 10, "val": 10, "test": 10}
    assert fold["T_val"] == "1970-01-11T00:00:00+00:00"
    assert fold["dropped"] == {}


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        pytest.param("channel_id", 29, "c0", id="a channel on both sides"),
        pytest.param("part", 29, "train", id="a test row in train"),
        pytest.param("part", 0, "test", id="an old row in test"),
        pytest.param("video_id", 29, "v0", id="a video twice"),
        pytest.param("golden", 3, True, id="a golden video in train"),
        pytest.param("time", 5, None, id="no time"),
        pytest.param("channel_id", 5, None, id="no channel"),
    ],
)
def test_the_proof_refuses_a_planted_leak(tmp_path: Path, column: str, row: int, value: object) -> None:
    path = written(tmp_path, ROWS, explicit(10, 20))
    rewrite(path, column, row, value)
    with pytest.raises(TrendFlowError) as caught:
        verify_split(path)
    assert caught.value.error_code == "leakage_violation"


def test_the_proof_refuses_a_row_tested_twice(tmp_path: Path) -> None:
    config = SplitConfig(method="group_kfold", folds=3, min_rows=1)
    path = written(tmp_path, ROWS, config)
    table = pq.read_table(path).to_pylist()
    first = next(i for i, row in enumerate(table) if row["fold"] == 0 and row["part"] == "test")
    again = next(i for i, row in enumerate(table) if row["fold"] == 1 and row["video_id"] == table[first]["video_id"])
    rewrite(path, "part", again, "test")
    with pytest.raises(TrendFlowError, match="tested in two folds"):
        verify_split(path)


def test_the_proof_refuses_a_part_that_lost_its_rows(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS, explicit(10, 20, min_rows=10))
    rewrite(path, "part", 0, None)
    with pytest.raises(TrendFlowError) as caught:
        verify_split(path)
    assert caught.value.error_code == "input_constraint_violated"


def test_groups_without_time_order_say_so(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS, SplitConfig(method="group_kfold", folds=3, min_rows=1))
    proof = verify_split(path)
    assert proof["not_time_ordered"] is True
    assert proof["times_ordered"] is False
    assert json.loads(pq.read_table(path).schema.metadata[b"trendflow_split"])["not_time_ordered"] is True
    assert proof["n_test"] == 30


def test_the_order_of_rows_does_not_change_a_split() -> None:
    rng = np.random.default_rng(2)
    rows = made(rng.integers(0, 100, 200).tolist(), [f"c{i}" for i in rng.integers(0, 40, 200)])
    order = rng.permutation(200)
    shuffled = Rows(**{name: values[order] for name, values in rows.__dict__.items()})
    for method in ("time", "rolling_origin", "group_kfold"):
        config = SplitConfig(method=method, min_rows=1, folds=3)
        for one, two in zip(
            make_folds(rows, config, no_golden(rows)), make_folds(shuffled, config, no_golden(rows)), strict=True
        ):
            assert one.part[order].tolist() == two.part.tolist()
