"""What is learned about the inputs: on train only, and what it makes of gaps, rare categories and noise."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.config import SplitConfig, TrainingConfig, load_config
from training.fold import fit_fold, fit_inputs
from training.preprocessing import fit_preprocessing
from training.selection import permutation_importance, select
from training.splits import TEST, TRAIN, VAL, Fold
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.encoding import MISSING, OTHER, Encoding, element_name
from trendflow_tests.training.synthetic import content_name, training_data, training_table


def fold_of(n: int, train: int, val: int) -> Fold:
    part = np.full(n, TEST, dtype=np.int8)
    part[:train] = TRAIN
    part[train : train + val] = VAL
    return Fold(part, np.full(n, ""), np.zeros((n, 6), dtype=bool), None)


def test_columns_without_information_in_train_are_dropped_and_named() -> None:
    train = pa.table(
        {
            "constant": [1.0] * 4,
            "missing": [None, None, None, float("nan")],
            "gaps": [1.0, None, 1.0, 1.0],
            "number": [1.0, 2.0, 3.0, 4.0],
            "flag": [True, False, True, True],
            "same": ["a"] * 4,
            "none": pa.array([None] * 4, pa.string()),
        }
    )
    found = fit_preprocessing(train, train.column_names, ("same", "none"), 0.01)
    assert found.encoding.features == ("gaps", "number", "flag")
    assert found.constant == ("constant", "same")
    assert found.missing == ("missing", "none")


def test_rare_and_unseen_categories_are_other_and_absent_ones_missing() -> None:
    train = pa.table({"c": ["a"] * 60 + ["b"] * 39 + ["rare"]})
    encoding = fit_preprocessing(train, ["c"], ["c"], 0.02).encoding
    assert encoding.levels == {"c": ("a", "b")}
    codes = encoding.matrix(pa.table({"c": ["a", "b", "rare", "unseen", None, ""]})).ravel().tolist()
    assert codes == [2, 3, OTHER, OTHER, MISSING, MISSING]


def test_elements_of_embeddings_are_features_and_infinities_are_missing() -> None:
    table = pa.table({"e": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0]), 2), "x": [np.inf, 1.0]})
    matrix = Encoding((element_name("e", 1), "x"), {}).matrix(table)
    np.testing.assert_array_equal(matrix, [[2.0, np.nan], [4.0, 1.0]])
    with pytest.raises(TrendFlowError, match="2 elements"):
        Encoding((element_name("e", 2),), {}).matrix(table)


def test_a_missing_column_is_an_error_not_a_gap() -> None:
    with pytest.raises(TrendFlowError) as caught:
        Encoding(("absent",), {}).matrix(pa.table({"x": [1.0]}))
    assert caught.value.error_code == "artifact_validation_failed"


def test_val_and_test_rows_change_no_fitted_parameter() -> None:
    """The planted leak "imputation over all rows" would show here: everything outside train is replaced by extremes."""
    config = TrainingConfig(
        family="lightgbm", hyperparameters={"iterations": 5}, max_content_features=2, threads=1, ablation=False
    )
    table = training_table(n=300, content=True)
    fold = fold_of(300, 180, 60)
    outside = np.arange(300) >= 240  # test rows alone: val decides when to stop and how wide intervals are
    changed = table
    for name in (*training_data(table).features, *(c for c in table.column_names if c.startswith("target_"))):
        values = table.column(name).to_pylist()
        extreme: object = "never-seen" if name == "category_id" else 1e9
        column = pa.array([extreme if out else value for value, out in zip(values, outside, strict=True)])
        changed = changed.set_column(changed.column_names.index(name), name, column)
    first, second = (fit_fold(training_data(t), fold, config, lambda _: None) for t in (table, changed))
    assert first.inputs == second.inputs
    for head, model in first.models.items():
        other = second.models[head]
        assert model.comparators == other.comparators
        assert model.offset == other.offset
        assert [model.point.data, *(q.data for q in model.quantiles)] == [
            other.point.data,
            *(q.data for q in other.quantiles),
        ]
    # The change does reach the forecasts, so the comparison above is no comparison of equals.
    assert not np.array_equal(first.forecasts["views_7d"].point, second.forecasts["views_7d"].point)


def test_val_rows_change_neither_columns_nor_categories_nor_selection() -> None:
    config = TrainingConfig(max_content_features=2, threads=1)
    table = training_table(n=300, content=True)
    shuffled = pa.concat_tables([table.slice(0, 180), table.slice(180).take(np.arange(119, -1, -1))])
    fold = fold_of(300, 180, 120)
    one, two = (fit_inputs(data, fold, config, data.features) for data in map(training_data, (table, shuffled)))
    assert one == two


def test_selection_finds_the_feature_that_carries_signal_and_keeps_all_metadata() -> None:
    table = training_table(n=400, content=True)
    data = training_data(table)
    found = fit_inputs(data, fold_of(400, 360, 20), TrainingConfig(max_content_features=1, threads=1), data.features)
    content = [name for name in found.encoding.features if data.family[name] != "metadata"]
    assert content == [content_name("visual", 0)]
    assert {name for name in data.features if data.family[name] == "metadata"} <= set(found.encoding.features)


def test_pure_noise_is_mostly_left_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20))
    y = rng.normal(size=(300, 1))
    channel = np.array([f"c{i}" for i in rng.integers(0, 50, 300)])
    importance = permutation_importance(x, (), y, channel, 0, 1)
    x[:, 3] = y[:, 0] + rng.normal(0, 0.1, 300)
    informed = permutation_importance(x, (), y, channel, 0, 1)
    assert informed.argmax() == 3
    assert informed[3] > 20 * np.abs(importance).max()


def test_ties_of_importance_are_broken_by_name() -> None:
    importance = np.array([0.5, 0.5, 0.0, 0.5])
    assert select(["b", "a", "m", "c"], [True, True, False, True], importance, 2) == ("b", "a", "m")
    assert select(["b"], [True], np.array([-0.1]), 5) == ()


def test_a_shipped_file_of_settings_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_config(Path("few_rows_time"), {"seed": 7})
    assert shipped.split == SplitConfig(method="time", val_point=0.6, test_point=0.8)
    assert shipped.seed == 7
    monkeypatch.chdir(tmp_path)
    Path("few_rows_time").write_text("split: {val_point: 0.3}\n")
    assert load_config(Path("few_rows_time"), {}).split.val_point == 0.3, "a file of the user comes first"
    shipped_folder = Path(str(files("training"))) / "configs"
    for other in ("few_rows_tome", f"../{shipped_folder.name}/few_rows_rolling", shipped_folder / "few_rows_rolling"):
        with pytest.raises(TrendFlowError) as failed:
            load_config(Path(other), {})
        assert failed.value.error_code == "config_invalid"
