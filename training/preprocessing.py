"""What is learned about the inputs before a model sees them. Every function takes the train rows and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trendflow.inference.encoding import Encoding, numeric_column, text_column


@dataclass(frozen=True)
class Preprocessing:
    """An encoding fitted on train, and the columns that carry nothing there."""

    encoding: Encoding
    constant: tuple[str, ...]
    missing: tuple[str, ...]


def fit_preprocessing(
    train: pa.Table, features: Sequence[str], categorical: Sequence[str], min_category_share: float
) -> Preprocessing:
    """Drop columns that are all-NaN or constant in `train`; keep categories of at least `min_category_share` of it.

    A numeric column with one value and gaps is kept: whether it is missing may tell something.
    """
    levels: dict[str, tuple[str, ...]] = {}
    kept, constant, missing = [], [], []
    for name in features:
        if name in categorical:
            values = text_column(train, name)
            known = _frequent(values, min_category_share)
            distinct = len({value if value in known or value is None else "" for value in values})
            empty = not any(values)
        else:
            numbers = numeric_column(train, name)
            finite = np.isfinite(numbers)
            distinct = len(np.unique(numbers[finite])) + (not finite.all())
            empty, known = not finite.any(), ()
        if empty:
            missing.append(name)
        elif distinct == 1:
            constant.append(name)
        else:
            kept.append(name)
            if name in categorical:
                levels[name] = known
    return Preprocessing(Encoding(tuple(kept), levels), tuple(constant), tuple(missing))


def _frequent(values: Sequence[str | None], min_share: float) -> tuple[str, ...]:
    counts = Counter(value for value in values if value is not None)
    return tuple(sorted(value for value, count in counts.items() if count >= min_share * len(values)))
