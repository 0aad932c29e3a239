"""Canonical JSON and digests: the only way this project turns values into hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, `,` and `:` separators, shortest floats and no NaN or Infinity.

    Raises ValueError on non-finite numbers and TypeError on values JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def sha256_hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, lower-case hex."""
    return sha256_hex(canonical_json(value))


def utc_now() -> str:
    """The present as `utc_text`."""
    return utc_text(datetime.now(UTC))


def utc_text(moment: datetime) -> str:
    """An aware UTC time as ISO 8601 with milliseconds and `Z`, as everything that is stored has it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def content_digest(
    component: str,
    schema_version: str,
    status: str,
    empty_reason: str | None,
    arrays: Mapping[str, np.ndarray],
) -> str:
    """Digest of what an artifact says, blind to which run said it.

    sha256 over a canonical header, then for every array in name order: name, NUL, dtype string, NUL, canonical
    JSON of the shape, NUL, raw little-endian C-order bytes. `meta` is never part of it.
    """
    hasher = hashlib.sha256()
    hasher.update(
        canonical_json(
            {"component": component, "schema_version": schema_version, "status": status, "empty_reason": empty_reason}
        )
    )
    for name in sorted(arrays):
        if name == "meta":
            continue
        array = normalise_array(arrays[name])
        hasher.update(name.encode() + b"\0" + array.dtype.str.encode() + b"\0")
        hasher.update(canonical_json(list(array.shape)) + b"\0")
        if array.size:  # an empty array cannot be cast to a flat byte view
            hasher.update(array.data.cast("B") if array.dtype.kind != "U" else array.tobytes())
    return hasher.hexdigest()


def normalise_array(array: np.ndarray) -> np.ndarray:
    """Little-endian C-order copy (or the array itself when it already is)."""
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array if array.flags.c_contiguous else np.array(array, order="C", copy=True)
