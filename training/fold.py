"""One fold: everything is learned from its train rows, stopped and calibrated on val, and applied to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.comparators import FittedComparators, past_channel_medians
from training.config import TrainingConfig
from training.data import TrainingData
from training.families import FAMILIES
from training.families.base import FitData, Fitted, Objective
from training.preprocessing import Preprocessing, fit_preprocessing
from training.rows import HEADS, Head
from training.selection import permutation_importance, select
from training.splits import TEST, TRAIN, VAL, Fold
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.columns import METADATA
from trendflow.inference.boosters import Booster, load_booster
from trendflow.inference.encoding import Encoding
from trendflow.inference.quantiles import FLOOR, LEVELS, Served, conformal_offset, put_in_order, serve

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Inputs:
    """What the train rows decided about the inputs."""

    preprocessing: Preprocessing
    encoding: Encoding
    importance: Mapping[str, float]


@dataclass(frozen=True)
class HeadModel:
    """The models of one head: the point forecast, one per quantile level, and the interval's offset."""

    head: Head
    point: Fitted
    quantiles: tuple[Fitted, ...]
    offset: float
    comparators: FittedComparators
    n_train: int
    n_val: int


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of the labelled test rows of one head: `rows` are positions in the dataset, all else is aligned."""

    rows: np.ndarray
    point: np.ndarray
    served: Served
    comparators: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FoldResult:
    inputs: Inputs
    models: Mapping[str, HeadModel]
    forecasts: Mapping[str, Forecasts]


def fit_inputs(data: TrainingData, fold: Fold, config: TrainingConfig, features: Sequence[str]) -> Inputs:
    """Dropped columns, categories and selected features, from the train rows alone."""
    rows = fold.rows(TRAIN)
    train = data.table.take(rows)
    categorical = [name for name in data.categorical if name in features]
    prepared = fit_preprocessing(train, features, categorical, config.min_category_share)
    encoding, importance = prepared.encoding, {}
    content = [data.family[name] != METADATA for name in encoding.features]
    if config.max_content_features is not None and sum(content) > config.max_content_features:
        y = np.where(fold.embargoed[rows], np.nan, data.rows.y[rows])
        scores = permutation_importance(
            encoding.matrix(train), encoding.categorical, y, data.rows.channel[rows], config.seed, config.threads
        )
        importance = dict(zip(encoding.features, map(float, scores), strict=True))
        kept = select(encoding.features, content, scores, config.max_content_features)
        encoding = Encoding(kept, {name: encoding.levels[name] for name in kept if name in encoding.levels})
    return Inputs(prepared, encoding, importance)


def fit_fold(data: TrainingData, fold: Fold, config: TrainingConfig, progress: Progress) -> FoldResult:
    """Models of all heads with enough rows, and their forecasts for the test rows."""
    inputs = fit_inputs(data, fold, config, data.features)
    matrix = inputs.encoding.matrix(data.table)
    parts, fitted = {}, {}
    for position, head in enumerate(HEADS):
        found = usable_parts(data, fold, position, config)
        if found is None:
            progress(f"{head.name}: too few rows")
            continue
        progress(head.name)
        parts[head] = found
        fitted[head] = _fit_head(data, matrix, inputs.encoding, config, position, found)
    offsets = _offsets(data, matrix, fitted, {head: val for head, (_, val, _) in parts.items()}, config)
    models = {
        head.name: HeadModel(
            head=head,
            point=fitted[head].point,
            quantiles=fitted[head].quantiles,
            offset=offsets[head],
            comparators=FittedComparators.fit(data.table.take(train), data.rows.y[train, HEADS.index(head)], head),
            n_train=len(train),
            n_val=len(val),
        )
        for head, (train, val, _) in parts.items()
    }
    tests = {head: test for head, (_, _, test) in parts.items()}
    return FoldResult(inputs, models, _forecasts(data, matrix, models, tests, config))


def usable_parts(data: TrainingData, fold: Fold, head: int, config: TrainingConfig) -> tuple[np.ndarray, ...] | None:
    """Positions of the train, val and test rows whose target of this head is observed and not under embargo.

    None when train or val has fewer than `min_head_rows`, or when nothing is left to judge the model by.
    """
    known = data.rows.labelled[:, head] & ~fold.embargoed[:, head]
    train, val, test = (np.flatnonzero((fold.part == part) & known) for part in (TRAIN, VAL, TEST))
    enough = min(len(train), len(val)) >= config.split.min_head_rows and len(test) > 0
    return (train, val, test) if enough else None


def fit_point(
    matrix: np.ndarray, categorical: tuple[int, ...], y: np.ndarray, parts: Sequence[np.ndarray], config: TrainingConfig
) -> Fitted:
    """The point model under the configured loss; `parts` are positions of the train and of the val rows.

    A Tweedie loss is fitted to the growth in counts, not to its logarithm.
    """
    outcome = np.expm1(y) if config.loss == "tweedie" else y
    objective = Objective(config.loss, config.tweedie_power if config.loss == "tweedie" else 0.0)
    return _fit(matrix, categorical, outcome, parts, objective, config)


def point_booster(fitted: Fitted, config: TrainingConfig) -> Booster:
    return load_booster(f"model.{FAMILIES[config.family].extension}", fitted.data, natural=config.loss == "tweedie")


def _fit(
    matrix: np.ndarray,
    categorical: tuple[int, ...],
    y: np.ndarray,
    parts: Sequence[np.ndarray],
    objective: Objective,
    config: TrainingConfig,
) -> Fitted:
    train, val = parts
    family = FAMILIES[config.family]
    settings = config.complete_hyperparameters
    fit_data = FitData(matrix[train], y[train], matrix[val], y[val], categorical)
    return family.fit(fit_data, objective, settings, config.seed, config.threads)


class _Boosters(NamedTuple):
    point: Fitted
    quantiles: tuple[Fitted, ...]


def _fit_head(
    data: TrainingData,
    matrix: np.ndarray,
    encoding: Encoding,
    config: TrainingConfig,
    position: int,
    parts: Sequence[np.ndarray],
) -> _Boosters:
    head, y = HEADS[position], data.rows.y[:, position]
    train, val, _ = parts
    if np.ptp(y[train]) == 0:
        raise TrendFlowError(
            "input_constraint_violated", f"{head.name} has one value in all train rows.", head=head.name
        )
    point = fit_point(matrix, encoding.categorical, y, (train, val), config)
    return _Boosters(
        point,
        tuple(
            _fit(matrix, encoding.categorical, y, (train, val), Objective("quantile", level), config)
            for level in LEVELS
        ),
    )


def _raw_quantiles(fitted: Sequence[Fitted], matrix: np.ndarray, config: TrainingConfig) -> np.ndarray:
    path = f"model.{FAMILIES[config.family].extension}"
    return np.column_stack([load_booster(path, model.data).predict(matrix) for model in fitted])


class _Asked(NamedTuple):
    """Raw quantiles [rows, 3] of the `heads` of one target, early first, all on the same `rows`."""

    heads: tuple[Head, ...]
    rows: np.ndarray
    raw: list[np.ndarray]


def _asked(
    matrix: np.ndarray,
    models: Mapping[Head, Sequence[Fitted]],
    rows: Mapping[Head, np.ndarray],
    config: TrainingConfig,
) -> Iterator[_Asked]:
    """Target by target. A horizon is put in order among the others, so each is asked about the rows of all of them."""
    for target in dict.fromkeys(head.target for head in models):
        heads = tuple(head for head in models if head.target == target)
        all_rows = np.unique(np.concatenate([rows[head] for head in heads]))
        yield _Asked(heads, all_rows, [_raw_quantiles(models[head], matrix[all_rows], config) for head in heads])


def _offsets(
    data: TrainingData,
    matrix: np.ndarray,
    fitted: Mapping[Head, _Boosters],
    vals: Mapping[Head, np.ndarray],
    config: TrainingConfig,
) -> dict[Head, float]:
    """Of each head, on its val rows `vals`, whose forecasts are put in order as those of new rows will be."""
    found = {}
    for asked in _asked(matrix, {head: boosters.quantiles for head, boosters in fitted.items()}, vals, config):
        for head, ordered in zip(asked.heads, put_in_order(asked.raw).quantiles, strict=True):
            at = np.searchsorted(asked.rows, vals[head])
            found[head] = conformal_offset(ordered[at], data.rows.y[vals[head], HEADS.index(head)])
    return found


def _forecasts(
    data: TrainingData,
    matrix: np.ndarray,
    models: Mapping[str, HeadModel],
    tests: Mapping[Head, np.ndarray],
    config: TrainingConfig,
) -> dict[str, Forecasts]:
    """What would be shown for the test rows, so that the evaluation judges just that. `tests`: head → its rows."""
    found = {}
    for asked in _asked(matrix, {model.head: model.quantiles for model in models.values()}, tests, config):
        group = [models[head.name] for head in asked.heads]
        for model, served in zip(group, serve(asked.raw, [model.offset for model in group]), strict=True):
            test = tests[model.head]
            at = np.searchsorted(asked.rows, test)
            medians = past_channel_medians(data.rows, HEADS.index(model.head), test)
            found[model.head.name] = Forecasts(
                rows=test,
                point=np.maximum(point_booster(model.point, config).predict(matrix[test]), FLOOR),
                served=Served(*(values[at] for values in served)),
                comparators=model.comparators.predict(data.table.take(test), model.head, medians),
            )
    return found
