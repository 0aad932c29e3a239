"""Content columns of runs, of a table and of one row alike."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.content_features import Content, Layout, read_content
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.first_sight import first_sight
from trendflow.dataset.table.rows import content_rows, feature_rows
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import COMPONENT, column, store_run
from trendflow_tests.dataset.table.corpora import SPEC
from trendflow_tests.dataset.table.sights import FIRST, T0, VIDEO

EMBEDDING, TEXT_EMBEDDING = "core_clip__embedding_mean", "text_processor__primary_embedding"
LAYOUT = Layout(
    schema_version="feature_vector_npz_v1",
    names=("core_clip__x__value", "text_processor__y__value"),
    components=("core_clip", "text_processor"),
    schema_versions=("core_clip_npz_v3", "text_npz_v2"),
    producer_versions=("1.0.0", "2.0.0"),
    source_kinds=("media", "document"),
    observed_at=("publish_time", "captured_at"),
)
KINDS = {"core_clip": "core", "text_processor": "text"}
IN_TIME = T0 + timedelta(minutes=60)
SIGHT = first_sight(VIDEO, FIRST, 60, run_created_at=IN_TIME)
LATE_PAGE = first_sight({**VIDEO, "captured_at": T0 + timedelta(hours=2)}, FIRST, 60, run_created_at=IN_TIME)
LATE_RUN = first_sight(VIDEO, FIRST, 60, run_created_at=T0 + timedelta(minutes=61))


def vector(x: float, y: float, **embeddings: list[float]) -> Content:
    arrays = {name: np.array(values, dtype=np.float32) for name, values in embeddings.items()}
    return Content(LAYOUT, np.array([x, y], dtype=np.float32), arrays)


def spec_with(*embeddings: str) -> FeatureSpec:
    return FeatureSpec.from_document({**SPEC.document, "embeddings": list(embeddings)})


def test_embeddings_are_lists_of_float32_and_null_where_there_is_none() -> None:
    contents = [vector(1.0, 2.0, **{EMBEDDING: [0.5, 2.0, -1.0]}), vector(3.0, 4.0)]
    spec = spec_with(EMBEDDING)
    table, provenance = feature_rows([SIGHT, SIGHT], content_rows(contents, spec, KINDS), spec)
    assert table[EMBEDDING].type == pa.list_(pa.float32(), 3)
    assert table[EMBEDDING].to_pylist() == [[0.5, 2.0, -1.0], None]
    (found,) = [found for found in provenance if found.column == EMBEDDING]
    assert (found.family, found.component, found.producer_version) == ("visual", "core_clip", "1.0.0")


def test_an_embedding_nobody_computes_is_refused() -> None:
    spec = spec_with("clap_extractor__embedding")
    with pytest.raises(TrendFlowError, match="does not enable clap_extractor"):
        content_rows([vector(1.0, 2.0)], spec, KINDS)


def test_what_rests_on_a_late_text_is_unknown() -> None:
    """The page of the snapshot and the text of the run are copies of one document, each seen at its own time."""
    spec = spec_with(TEXT_EMBEDDING)
    contents = [vector(1.0, 2.0, **{TEXT_EMBEDDING: [1.0, 1.0]})] * 3
    table, provenance = feature_rows([SIGHT, LATE_PAGE, LATE_RUN], content_rows(contents, spec, KINDS), spec)
    np.testing.assert_array_equal(table["text_processor__y__value"].to_numpy(), [2.0, 2.0, np.nan])
    np.testing.assert_array_equal(table["core_clip__x__value"].to_numpy(), [1.0, 1.0, 1.0])
    assert table[TEXT_EMBEDDING].to_pylist() == [[1.0, 1.0], [1.0, 1.0], None]
    assert table["language"].to_pylist() == ["en", None, "en"]
    clocks = {found.column: found.observed_at for found in provenance}
    assert clocks["text_processor__y__value"] == clocks[TEXT_EMBEDDING] == "document_observed_at"
    assert clocks["core_clip__x__value"] == "publish_time"
    assert table["document_observed_at"].to_pylist() == [IN_TIME, IN_TIME, T0 + timedelta(minutes=61)]


def test_a_text_of_no_known_time_is_unknown() -> None:
    table, _ = feature_rows([first_sight(VIDEO, FIRST, 60)], content_rows([vector(1.0, 2.0)], SPEC, KINDS), SPEC)
    assert np.isnan(table["text_processor__y__value"].to_numpy()).tolist() == [True]
    assert table["core_clip__x__value"].to_pylist() == [1.0]


def test_one_row_is_a_row_of_the_table() -> None:
    contents = [vector(float(number), -float(number)) for number in range(3)]
    sights = [SIGHT, LATE_RUN, LATE_PAGE]
    table, provenance = feature_rows(sights, content_rows(contents, SPEC, KINDS), SPEC)
    for number, sight in enumerate(sights):
        row, same = feature_rows([sight], content_rows(contents[number : number + 1], SPEC, KINDS), SPEC)
        assert row.schema == table.schema
        assert repr(row.to_pylist()[0]) == repr(table.slice(number, 1).to_pylist()[0])
        assert same == provenance


def test_a_stored_vector_is_read_with_its_provenance() -> None:
    results = ResultStore(ObjectStore.open("memory://"))
    path = store_run(results, {"b": 2.5, "a": -1.0}, video="test-video")
    found = read_content(results, path)
    assert found.layout.names == (column("a"), column("b"))
    assert found.values.tolist() == [-1.0, 2.5]
    assert (set(found.layout.components), set(found.layout.observed_at)) == ({COMPONENT}, {"publish_time"})
    with pytest.raises(TrendFlowError, match="sha256"):
        read_content(results, path, "0" * 64)
