"""Deterministic NPZ without pickle.

Writing: bytes depend on (arrays, meta) only. Reading: every declared name, size, dtype and shape is checked against
the limits and against the bytes present before anything of a declared size is allocated.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.canonical import canonical_json, normalise_array
from trendflow.contracts.errors import TrendFlowError
from trendflow.storage import npy, zip_layout
from trendflow.storage.byte_source import ByteSource, BytesSource, FileSource
from trendflow.storage.zip_layout import Buffer, ZipMember

META = "meta"


@dataclass(frozen=True)
class NpzLimits:
    """What a file may declare; sizes in bytes."""

    max_members: int = 256
    max_member_bytes: int = 1 << 30
    max_total_bytes: int = 2 << 30
    max_meta_bytes: int = 4 << 20


DEFAULT_LIMITS = NpzLimits()


def _invalid(message: str, **detail: object) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", message, **detail)


def encode_parts(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], limits: NpzLimits = DEFAULT_LIMITS
) -> list[Buffer]:
    """The file as buffers to be written in order. Large arrays are views of the caller's memory, not copies.

    Raises `artifact_validation_failed` for a name, dtype, size or meta value that a reader would refuse.
    """
    if META in arrays:
        raise _invalid("The name 'meta' is reserved for the metadata member.")
    members: dict[str, np.ndarray] = dict(arrays)
    try:
        members[META] = np.array(canonical_json(dict(meta)).decode("utf-8"), dtype=np.str_)
    except (TypeError, ValueError) as exc:
        raise _invalid("The metadata holds a value that JSON cannot express.") from exc
    if len(members) > limits.max_members:
        raise _invalid(f"{len(members)} members are more than {limits.max_members}.", members=len(members))
    payloads: list[tuple[str, list[Buffer]]] = []
    total = 0
    for name in sorted(members):
        file_name = f"{name}.npy"
        zip_layout.require_member_name(file_name)
        parts = encode_array(members[name], name)
        size = sum(len(part) for part in parts)
        if size > (limits.max_meta_bytes if name == META else limits.max_member_bytes):
            raise _invalid(f"Member {name!r} needs {size} bytes, more than its limit.", member=name)
        total += size
        payloads.append((file_name, parts))
    if total > limits.max_total_bytes:
        raise _invalid(f"The members need {total} bytes in total.", total=total)
    return zip_layout.build_zip(payloads)


def encode(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], limits: NpzLimits = DEFAULT_LIMITS) -> bytes:
    """The file as one bytes object; see `encode_parts`."""
    return b"".join(encode_parts(arrays, meta, limits))


def encode_array(array: np.ndarray, name: str) -> list[Buffer]:
    """One array as a `.npy` file in two buffers: header and data (a view where the layout allows it)."""
    array = normalise_array(array)
    header = npy.encode_header(array, name)
    if array.size == 0:
        return [header]
    return [header, _bytes_of(array)]


def decode(
    source: bytes | Path | ByteSource, names: Iterable[str] | None = None, limits: NpzLimits = DEFAULT_LIMITS
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays (all, or those in `names`) and meta of an NPZ.

    The arrays are read-only: one artifact is read by several components. Raises `artifact_validation_failed` for
    every violation, including a requested name the file does not hold.
    """
    if isinstance(source, Path):
        with FileSource(source) as file:
            return _decode(file, names, limits)
    return _decode(BytesSource(source) if isinstance(source, bytes) else source, names, limits)


def decode_array(data: bytes, name: str, limits: NpzLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The array of a bare `.npy` file under the same rules."""
    source = BytesSource(data)
    if source.size > limits.max_member_bytes:
        raise _invalid(f"{name!r} has {source.size} bytes, more than its limit.", member=name)
    header = _read_header(source, 0, source.size, name, limits.max_member_bytes)
    return _load(source, header.header_bytes, header)


def _decode(
    source: ByteSource, names: Iterable[str] | None, limits: NpzLimits
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    directory = zip_layout.read_directory(
        source,
        max_members=limits.max_members,
        max_member=limits.max_member_bytes,
        max_total=limits.max_total_bytes,
    )
    present = {file_name.removesuffix(".npy"): member for file_name, member in directory.items()}
    wanted = sorted({*(present if names is None else names), META})
    missing = [name for name in wanted if name not in present]
    if missing:
        raise _invalid(f"The artifact has no member {missing[0]!r}.", member=missing[0])
    plan: dict[str, tuple[int, npy.NpyHeader]] = {}
    for name in wanted:  # all headers first: one bad member must refuse the file before any array is allocated
        limit = limits.max_meta_bytes if name == META else limits.max_member_bytes
        start = zip_layout.payload_offset(source, present[name])
        plan[name] = (start, _read_header(source, start, present[name].size, name, limit))
    loaded = {name: _load_member(source, start, header, present[name]) for name, (start, header) in plan.items()}
    return loaded, _parse_meta(loaded.pop(META))


def _read_header(source: ByteSource, start: int, size: int, name: str, limit: int) -> npy.NpyHeader:
    if size > limit:
        raise _invalid(f"Member {name!r} declares {size} bytes, more than its limit.", member=name)
    if size < npy.PREFIX_BYTES:
        raise _invalid(f"Member {name!r} is not an .npy array.", member=name)
    length = npy.header_length(source.read(start, npy.PREFIX_BYTES), name)
    if length > size:
        raise _invalid(f"Member {name!r} is shorter than its header.", member=name)
    header = npy.decode_header(source.read(start, length), name)
    # Zero-length axes make the product 0 and could hide absurd sizes beside them.
    if math.prod(max(extent, 1) for extent in header.shape) * header.dtype.itemsize > limit:
        raise _invalid(f"Member {name!r} declares the shape {header.shape}, beyond its limit.", member=name)
    if header.header_bytes + header.payload_bytes != size:
        raise _invalid(f"Member {name!r} declares {header.payload_bytes} bytes of data but holds others.", member=name)
    return header


def _load_member(source: ByteSource, start: int, header: npy.NpyHeader, member: ZipMember) -> np.ndarray:
    array = _load(source, start + header.header_bytes, header)
    crc = zlib.crc32(source.read(start, header.header_bytes))
    if array.size:
        crc = zlib.crc32(_bytes_of(array), crc)
    if crc != member.crc:
        raise _invalid(f"The checksum of member {member.name!r} does not match.", member=member.name)
    return array


def _load(source: ByteSource, start: int, header: npy.NpyHeader) -> np.ndarray:
    array = np.empty(header.shape, dtype=header.dtype)
    if array.size:
        source.readinto(start, _bytes_of(array))
    # Python crashes on such strings far from here, so they are refused where the file is at hand.
    if header.dtype.kind == "U" and array.size and array.reshape(-1).view(np.uint32).max() > sys.maxunicode:
        raise _invalid("A string member holds values that are no characters.")
    array.flags.writeable = False
    return array


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _parse_meta(member: np.ndarray) -> dict[str, Any]:
    if member.shape != () or member.dtype.kind != "U":
        raise _invalid("The metadata member must be a 0-d string.")
    try:
        meta = json.loads(str(member))
    except (ValueError, RecursionError) as exc:
        raise _invalid("The metadata member is not JSON.") from exc
    if not isinstance(meta, dict):
        raise _invalid("The metadata member is not a JSON object.")
    return meta
