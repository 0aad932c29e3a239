"""Arrow tables as files whose bytes depend on their content alone, and a digest that no library version changes."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trendflow.contracts.canonical import canonical_json

_ROW_GROUP = 65_536


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one Parquet file; equal tables give equal bytes under one version of the library.

    The chunks that a table happens to consist of would show in the file, so they are joined first.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=_ROW_GROUP, store_schema=True
    )
    return sink.getvalue().to_pybytes()


def table_digest(table: pa.Table) -> str:
    """sha256 of names, types and values, lower-case hex: blind to chunks, compression, schema metadata and library.

    NaN counts as one value whatever its bits. Raises TypeError for a column that is none of boolean, number, time,
    string, list of strings and fixed-size list of floats.
    """
    hasher = hashlib.sha256()
    hasher.update(canonical_json([[field.name, _type_name(field.type)] for field in table.schema]))
    hasher.update(table.num_rows.to_bytes(8, "little"))
    for column in table.columns:
        _add(hasher, column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    return hasher.hexdigest()


def _type_name(kind: pa.DataType) -> str:
    # Parquet calls the items of a list "element", Arrow calls them "item".
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{kind.value_type}>[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{kind.value_type}>"
    return str(kind)


def _add(hasher: hashlib._Hash, values: pa.Array) -> None:
    hasher.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        hasher.update(_integers(pc.fill_null(pc.list_value_length(values), 0)))
        _add(hasher, values.flatten())
    elif pa.types.is_fixed_size_list(kind):
        _add(hasher, values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        hasher.update(_integers(pc.fill_null(pc.binary_length(values), 0)))
        for text in values:
            hasher.update((text.as_py() or "").encode())
    elif pa.types.is_timestamp(kind):
        hasher.update(_integers(pc.fill_null(values.cast(pa.int64()), 0)))
    elif pa.types.is_boolean(kind):
        hasher.update(np.packbits(pc.fill_null(values, False).to_numpy(zero_copy_only=False)).tobytes())
    elif pa.types.is_integer(kind):
        hasher.update(_integers(pc.fill_null(values, 0)))
    elif pa.types.is_floating(kind):
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(values.type.to_pandas_dtype())
        # One NaN and one zero, whichever computation they come from.
        hasher.update((np.where(np.isnan(numbers), np.nan, numbers).astype(numbers.dtype) + 0).tobytes())
    else:
        raise TypeError(f"no digest is defined for {kind}")


def _integers(values: pa.Array) -> bytes:
    return values.cast(pa.int64()).to_numpy(zero_copy_only=False).astype("<i8").tobytes()
