"""A dataset as training takes it: checked, with its features named and its rows as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from training.rows import Rows
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.encoding import element_name

if TYPE_CHECKING:
    from trendflow.dataset.table.reader import Dataset


@dataclass(frozen=True)
class TrainingData:
    """`features` may name elements of embeddings; `family` maps each feature to its family."""

    table: pa.Table
    rows: Rows
    metadata: Mapping[str, Any]
    features: tuple[str, ...]
    categorical: tuple[str, ...]
    family: Mapping[str, str]
    fingerprint: str
    synthetic: bool

    @classmethod
    def of(cls, dataset: Dataset, embeddings: bool) -> TrainingData:
        """Raises `config_invalid` for a dataset of several code versions, which is for analysis only."""
        if dataset.mixed:
            raise TrendFlowError(
                "config_invalid", "The dataset mixes code versions or models; it is for analysis, not for training."
            )
        columns: dict[str, str] = {name: name for name in dataset.feature_names}
        if embeddings:
            for name in dataset.embeddings:
                width = dataset.table.schema.field(name).type.list_size
                columns |= {element_name(name, index): name for index in range(width)}
        return cls(
            table=dataset.table,
            rows=Rows.of(dataset.table),
            metadata=dataset.metadata,
            features=tuple(columns),
            categorical=tuple(dataset.categorical),
            family={feature: dataset.family_of(column) for feature, column in columns.items()},
            fingerprint=dataset.fingerprint,
            synthetic=dataset.synthetic,
        )

    def of_families(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        return tuple(name for name in self.features if wanted(self.family[name]))
