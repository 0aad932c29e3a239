"""The human page of a machine schema, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trendflow.contracts.meta import REQUIRED_META
from trendflow.contracts.schema_types import ArtifactSchema, Bounds, FieldSchema


def render_schema_markdown(schema: ArtifactSchema) -> str:
    """Purpose, arrays, features and meta of one artifact schema."""
    parts = [f"# {schema.schema_version}", schema.description, f"Written by `{schema.producer}`."]
    return "\n\n".join([*parts, *schema_parts(schema, "##")]) + "\n"


def schema_parts(schema: ArtifactSchema, heading: str) -> list[str]:
    """Arrays, rules, features and meta of a schema as blocks of Markdown under headings of the given depth."""
    parts = [f"{heading} Arrays"]
    header = ("array", "dtype, shape", "unit", "range", "tier", "meaning", "read by")
    parts.append(markdown_table(header, (_field_row(field) for field in schema.fields.values())))
    if rules := [line for field in schema.fields.values() for line in _rules(field)]:
        parts += ["Rules that are checked:", "\n".join(f"- {line}" for line in rules)]
    if schema.features:
        parts += [f"{heading} Features", "Members of `feature_names` and `feature_values`."]
        rows = (
            (f"`{feature.name}`", feature.unit, _range(feature.range), feature.tier, feature.formula)
            for feature in schema.features.values()
        )
        parts.append(markdown_table(("feature", "unit", "range", "tier", "formula"), rows))
    parts.append(f"{heading} Meta")
    own = [f"`{key}`" for key in schema.required_meta if key not in REQUIRED_META]
    parts.append(
        f"Every artifact's keys{' and ' + ', '.join(own) if own else ''}. Optional: {_names(schema.optional_meta)}."
    )
    return parts


def render_index_markdown(schemas: Iterable[ArtifactSchema]) -> str:
    """A table of contents that links to `<schema_version>.md`."""
    rows = ((f"[{s.schema_version}]({s.schema_version}.md)", f"`{s.producer}`", s.description) for s in schemas)
    return "# Artifact schemas\n\n" + markdown_table(("schema", "producer", "content"), rows) + "\n"


def _field_row(field: FieldSchema) -> Sequence[Any]:
    name = f"`{field.name}`" if field.required else f"`{field.name}` (optional)"
    kind = f"{' or '.join(field.dtypes)} {field.shape_text}"
    label = ", categorical" if field.categorical else ""
    if field.flatten:
        label += f"; in the vector: {', '.join(field.flatten)}"
    readers = ", ".join(field.consumers) or "–"
    return (name, kind, field.unit, _range(field.range), f"{field.tier}{label}", field.description, readers)


def _rules(field: FieldSchema) -> Iterable[str]:
    if field.row_splits_of:
        yield f"`{field.name}` starts at 0, never decreases and ends at the length of {_names(field.row_splits_of)}."
    if field.increasing_in_rows:
        yield f"Within each row of `{field.name}` values increase strictly."
    if field.order is not None:
        yield f"`{field.name}` is {'strictly increasing' if field.order == 'increasing' else 'never decreasing'}."
    if field.index_of is not None:
        yield f"`{field.name}` holds indices below {field.index_of}."
    if field.unique:
        yield f"`{field.name}` holds no value twice."
    if field.finite:
        yield f"`{field.name}` holds no NaN."


def _range(bounds: Bounds) -> str:
    low, high = bounds
    if low is None and high is None:
        return "–"
    left = "(−∞" if low is None else f"[{low:g}"
    return f"{left}, {'∞)' if high is None else f'{high:g}]'}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; None becomes a dash."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return "–" if value is None else str(value).replace("|", "\\|")
