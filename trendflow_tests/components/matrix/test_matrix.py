"""Every component of the graph on every extreme input. A component or a film that is added belongs to it at once."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest

from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry, validate_artifact
from trendflow_tests.components.matrix.expected import EMPTY, MEASURED_ALTHOUGH_EMPTY
from trendflow_tests.components.matrix.films import FILMS
from trendflow_tests.components.matrix.missing import MISSING, undescribed
from trendflow_tests.components.matrix.screening import Screen

COMPONENTS = tuple(load_graph(data_path("component_graph.yaml")).components)
SCHEMAS = SchemaRegistry.load()
# A film is processed once per process; the tests of one film therefore run on one worker.
CELLS = [
    pytest.param(film, component, id=f"{film}-{component}", marks=pytest.mark.xdist_group(f"matrix-{film}"))
    for film in FILMS
    for component in COMPONENTS
]
every_cell = pytest.mark.parametrize(("film", "component"), CELLS)


def test_the_tables_speak_of_every_component_and_of_films_that_exist() -> None:
    assert set(EMPTY) == set(COMPONENTS)
    assert set(MISSING) == set(COMPONENTS)
    assert set(MEASURED_ALTHOUGH_EMPTY) <= set(COMPONENTS)
    assert {film for cells in EMPTY.values() for film in cells} <= set(FILMS)


@every_cell
def test_the_outcome_is_the_specified_one(screening: Screen, film: str, component: str) -> None:
    meta = screening(film).meta(component)
    reason = EMPTY[component].get(film)
    expected = ("ok", None) if reason is None else ("empty", reason)
    assert (meta["status"], meta["empty_reason"], meta["error"]) == (*expected, None)


@every_cell
def test_every_artifact_is_valid_and_finite_or_nan(screening: Screen, film: str, component: str) -> None:
    shown = screening(film)
    total = len(shown.arrays("segmenter")["union_timestamps_sec"])
    for arrays, meta in shown.finished[component].artifacts.values():
        assert validate_artifact(SCHEMAS, arrays, meta, total_frames=total) == []
        assert [name for name, array in arrays.items() if array.dtype.kind == "f" and np.isinf(array).any()] == []


@every_cell
def test_every_missing_feature_has_a_reason(screening: Screen, film: str, component: str) -> None:
    arrays, meta = screening(film).arrays(component), screening(film).meta(component)
    names, values = arrays.get("feature_names", np.array([])).tolist(), arrays.get("feature_values", np.array([]))
    measured = {name for name, value in zip(names, values, strict=True) if not np.isnan(value)}
    if meta["status"] == "empty":
        allowed = MEASURED_ALTHOUGH_EMPTY.get(component, ())
        assert [name for name in measured if not any(fnmatchcase(name, pattern) for pattern in allowed)] == []
    else:
        absent = meta.get("absent_features", {})
        prefixes = tuple(set(absent).difference(names))
        missing = set(names) - measured
        assert {name for name in missing if name not in absent and not name.startswith(prefixes)} == set()
        assert not measured.intersection(absent)


@every_cell
def test_arrays_are_missing_where_a_mask_or_a_rule_says_so(screening: Screen, film: str, component: str) -> None:
    arrays, meta = screening(film).arrays(component), screening(film).meta(component)
    assert undescribed(SCHEMAS.get(meta["schema_version"]), arrays) == set()
    described = {name: rule for name, rule in MISSING[component].items() if name in arrays}
    if meta["status"] == "empty":
        assert [name for name in described if np.isfinite(arrays[name]).any()] == []
        assert [name for name in arrays if name.endswith("_mask") and arrays[name].any()] == []
    else:
        assert [fault for name, rule in described.items() for fault in rule.faults(name, arrays)] == []
