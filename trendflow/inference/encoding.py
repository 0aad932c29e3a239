"""From dataset columns to the matrix a model takes: the one path of training and inference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError

MISSING, OTHER = 0, 1
"""Codes of a category that is absent and of one that is rare or was never seen in train; known levels follow."""
_FIRST_LEVEL = 2
_ELEMENT = re.compile(r"^(?P<column>.+)\[(?P<index>\d+)\]$")


def element_name(column: str, index: int) -> str:
    """The feature name of one element of an embedding column."""
    return f"{column}[{index}]"


def column_of(feature: str) -> str:
    """The dataset column a feature is read from."""
    match = _ELEMENT.match(feature)
    return match["column"] if match else feature


def numeric_column(table: pa.Table, feature: str) -> np.ndarray:
    """float64 [rows] of a numeric or boolean column, or of one element of an embedding; NaN where missing.

    Raises `artifact_validation_failed` when the table lacks the column or the element.
    """
    match = _ELEMENT.match(feature)
    column = _column(table, match["column"] if match else feature)
    if match:
        index = int(match["index"])
        width = getattr(column.type, "list_size", 0)
        if index >= width:
            raise TrendFlowError(
                "artifact_validation_failed", f"{match['column']} has {width} elements, {index} is asked.", width=width
            )
        column = pc.list_element(column, index)
    values = pc.cast(column, pa.float64())
    array = pc.fill_null(values, float("nan")).to_numpy()
    return np.asarray(array, dtype=np.float64)


def text_column(table: pa.Table, name: str) -> list[str | None]:
    """The values of a categorical column as text; None where missing."""
    values = pc.cast(_column(table, name), pa.string())
    return [value or None for value in values.to_pylist()]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise TrendFlowError("artifact_validation_failed", f"The table lacks the column {name!r}.", column=name)
    return table.column(name)


@dataclass(frozen=True)
class Encoding:
    """Which features a model takes, in which order, and the categories it knows.

    `levels` holds, per categorical feature, the categories frequent enough in train; everything else is `OTHER`.
    Missing numbers stay NaN: tree models route them natively.
    """

    features: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]

    @property
    def categorical(self) -> tuple[int, ...]:
        """Positions of the categorical features in the matrix."""
        return tuple(i for i, name in enumerate(self.features) if name in self.levels)

    def matrix(self, table: pa.Table) -> np.ndarray:
        """float64 [rows, features]; categorical features hold codes, infinities become NaN."""
        columns = [
            self._codes(table, name) if name in self.levels else numeric_column(table, name) for name in self.features
        ]
        matrix = np.column_stack(columns) if columns else np.empty((table.num_rows, 0))
        matrix[np.isinf(matrix)] = np.nan
        return matrix

    def _codes(self, table: pa.Table, name: str) -> np.ndarray:
        codes: dict[str | None, int] = {level: code for code, level in enumerate(self.levels[name], _FIRST_LEVEL)}
        codes[None] = MISSING
        return np.array([codes.get(value, OTHER) for value in text_column(table, name)], dtype=np.float64)
