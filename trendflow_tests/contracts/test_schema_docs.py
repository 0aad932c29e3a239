"""The human page says what the machine schema says."""

from __future__ import annotations

import re

import pytest

from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_docs import render_index_markdown, render_schema_markdown

REGISTRY = SchemaRegistry.load()


@pytest.mark.parametrize("schema", tuple(REGISTRY), ids=lambda schema: schema.schema_version)
def test_every_array_and_feature_has_one_well_formed_row(schema):
    page = render_schema_markdown(schema)
    assert page.startswith(f"# {schema.schema_version}\n\n{schema.description}\n")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| `")]
    named = [row[0].split("`")[1] for row in rows]
    assert named == [*schema.fields, *schema.features]
    assert {len(row) for row in rows[: len(schema.fields)]} == {7}
    assert {len(row) for row in rows[len(schema.fields) :]} <= {5}
    for row, feature in zip(rows[len(schema.fields) :], schema.features.values(), strict=True):
        assert row[4].strip().replace("\\|", "|") == feature.formula


def test_shapes_ranges_and_rules_are_spelled_out():
    page = render_schema_markdown(REGISTRY.get("core_object_detections_npz_v3"))
    assert "| `boxes_norm` | float32 [R, 4] | norm_xy | [0, 1] | model_facing |" in page
    assert "| `det_row_splits` | int64 [N+1] |" in page
    assert "`logo_region_count` (optional)" in page
    assert "- `times_s` is strictly increasing." in page
    assert "| `det_count_mean` | count | [0, ∞) |" in page
    assert "`coord_space`" in page


def test_the_index_links_every_page():
    index = render_index_markdown(REGISTRY)
    for schema in REGISTRY:
        assert f"[{schema.schema_version}]({schema.schema_version}.md)" in index
