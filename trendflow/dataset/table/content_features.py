"""The feature vector of one run as columns: the same code for a table of many runs and for one forecast."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trendflow.components.dataset._columns import EMBEDDINGS
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.corpus import VECTOR
from trendflow.dataset.table.columns import CAPTURED, DOCUMENT_SEEN, ColumnProvenance, family_of
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.storage.result_store import ResultStore

_PROVENANCE = (
    "prov_component",
    "prov_schema_version",
    "prov_producer_version",
    "prov_source_kind",
    "prov_observed_at",
)
# A vector names its clocks as its own run knows them: what it calls captured is the text of the run.
_CLOCKS = {CAPTURED: DOCUMENT_SEEN}
_LAYOUT = ("feature_names", *_PROVENANCE)
_MEMBERS = (*_LAYOUT, "feature_values")


@dataclass(frozen=True)
class Layout:
    """What all runs of one release and profile share: the columns of their vectors and where those come from.

    Six parallel tuples [F]. `schema_version` is that of the feature vector itself.
    """

    schema_version: str
    names: tuple[str, ...]
    components: tuple[str, ...]
    schema_versions: tuple[str, ...]
    producer_versions: tuple[str, ...]
    source_kinds: tuple[str, ...]
    observed_at: tuple[str, ...]

    def provenance(self, at: int, kinds: Mapping[str, str]) -> ColumnProvenance:
        """Provenance of column `at`. `kinds`: component → its kind, as the manifest of the run states it."""
        component = self.components[at]
        return ColumnProvenance(
            column=self.names[at],
            source_kind=self.source_kinds[at],
            observed_at=_CLOCKS.get(self.observed_at[at], self.observed_at[at]),
            family=family_of(kinds.get(component, "")),
            component=component,
            schema_version=self.schema_versions[at],
            producer_version=self.producer_versions[at],
        )


@dataclass(frozen=True)
class Content:
    """The feature vector of one run: `values` float32 [F] in the order of `layout.names`, and embeddings by name."""

    layout: Layout
    values: np.ndarray
    embeddings: Mapping[str, np.ndarray]


class ContentReader:
    """Reads feature vectors. Layouts are shared: ten thousand runs of one release have one, and are compared by it.

    Safe to use from several threads.
    """

    def __init__(self, results: ResultStore, embeddings: Collection[str] = tuple(EMBEDDINGS)) -> None:
        """`embeddings` names those that are wanted; without any, less of each file is decoded."""
        self._results = results
        self._embeddings = frozenset(embeddings)
        self._layouts: list[tuple[tuple[str | bytes, ...], Layout]] = []

    def read(self, run_path: str, sha256: str | None = None) -> Content:
        """The vector of a run, whole and checked against `sha256`, which the manifest states.

        Raises `ObjectNotFound`, `storage_unavailable`, or `artifact_validation_failed` for a file that is damaged,
        not the one the manifest names, or no feature vector.
        """
        names = None if self._embeddings else _MEMBERS
        stored = self._results.read_artifact(run_path, VECTOR, names=names, expected_sha256=sha256)
        arrays = stored.arrays
        try:
            layout = self._layout(stored.meta["schema_version"], [arrays[name] for name in _LAYOUT])
            values = arrays["feature_values"]
        except KeyError as exc:
            raise _broken() from exc
        if values.shape != (len(layout.names),) or values.dtype != np.float32:
            raise _broken()
        embeddings = {name: arrays[name] for name in sorted(self._embeddings) if name in arrays}
        return Content(layout, values, embeddings)

    def _layout(self, schema_version: str, arrays: Sequence[np.ndarray]) -> Layout:
        key = (schema_version, *(part for array in arrays for part in (array.dtype.str, array.tobytes())))
        # Comparing 200 kB with the few layouts there are takes a tenth of the time of hashing them.
        for known, layout in self._layouts:
            if known == key:
                return layout
        columns = [tuple(array.tolist()) for array in arrays]
        if len({len(column) for column in columns}) != 1 or len(set(columns[0])) != len(columns[0]):
            raise _broken()
        layout = Layout(schema_version, *columns)
        self._layouts.append((key, layout))
        return layout


def read_content(results: ResultStore, run_path: str, sha256: str | None = None) -> Content:
    """The feature vector of one run with its embeddings. Errors as in `ContentReader.read`."""
    return ContentReader(results).read(run_path, sha256)


@dataclass
class ColumnChoice:
    """Which positions of a layout a feature spec takes; computed once per layout."""

    spec: FeatureSpec
    _known: dict[Layout, np.ndarray] = field(default_factory=dict)

    def of(self, layout: Layout) -> np.ndarray:
        """int64 [C]: positions of the chosen columns, in the order of their names."""
        found = self._known.get(layout)
        if found is None:
            pairs = zip(layout.names, layout.components, strict=True)
            chosen = [at for at, (name, component) in enumerate(pairs) if self.spec.chooses(name, component)]
            found = np.array(sorted(chosen, key=lambda at: layout.names[at]), dtype=np.int64)
            self._known[layout] = found
        return found


def embedding_provenance(name: str, layout: Layout, kinds: Mapping[str, str]) -> ColumnProvenance:
    """Provenance of an embedding: that of its component, whose columns the layout describes."""
    component = EMBEDDINGS[name][0]
    if component not in layout.components:
        raise TrendFlowError("config_invalid", f"The runs hold no {name}: their profile does not enable {component}.")
    of_component = layout.provenance(layout.components.index(component), kinds)
    return ColumnProvenance(
        name,
        of_component.source_kind,
        of_component.observed_at,
        of_component.family,
        component,
        of_component.schema_version,
        of_component.producer_version,
    )


def _broken() -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", "The feature vector of a run is not in order.")
