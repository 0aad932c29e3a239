"""The `.npy` header: written byte for byte the same everywhere, read without evaluating anything.

Format: NumPy Enhancement Proposal 1. Headers are matched against the exact literal that NumPy writes, so a header is
never handed to a Python parser.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError

MAX_HEADER_BYTES = 64 * 1024
MAX_DIMENSIONS = 8
PREFIX_BYTES = 12
"""Enough to learn the length of a header of any version."""

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64
_NUMERIC = frozenset({"<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "|b1"})
_UNICODE = re.compile(r"<U[1-9][0-9]{0,7}\Z")
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']{2,16})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:[0-9]{1,19}, )*(?:[0-9]{1,19},?)?)\), \} *\n\Z"
)


def _invalid(message: str, **detail: object) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", message, **detail)


@dataclass(frozen=True)
class NpyHeader:
    """What a header declares. `header_bytes` is its own length, `payload_bytes` that of the data behind it."""

    dtype: np.dtype
    shape: tuple[int, ...]
    header_bytes: int

    @property
    def payload_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def require_dtype(descr: str, name: str) -> None:
    """Refuse a dtype string outside the contract's list (`artifact_validation_failed`)."""
    if descr not in _NUMERIC and not _UNICODE.match(descr):
        raise _invalid(f"Member {name!r} has dtype {descr!r}, which the contract does not allow.", member=name)


def encode_header(array: np.ndarray, name: str) -> bytes:
    """Format 1.0 header of a C-order little-endian array, padded so that the data starts on a 64-byte boundary."""
    if array.ndim > MAX_DIMENSIONS:
        raise _invalid(f"Member {name!r} has {array.ndim} dimensions, more than {MAX_DIMENSIONS}.", member=name)
    require_dtype(array.dtype.str, name)
    shape = f"({array.shape[0]},)" if array.ndim == 1 else f"({', '.join(map(str, array.shape))})"
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    prefix = len(_MAGIC) + 4
    padding = -(prefix + len(text) + 1) % _ALIGNMENT
    body = (text + " " * padding + "\n").encode("latin-1")
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(body)) + body


def header_length(prefix: bytes, name: str) -> int:
    """Total header length from its first `PREFIX_BYTES` bytes; refuses a header over 64 KiB before it is read."""
    if len(prefix) < PREFIX_BYTES or not prefix.startswith(_MAGIC):
        raise _invalid(f"Member {name!r} is not an .npy array.", member=name)
    version = (prefix[6], prefix[7])
    if version == (1, 0):
        length = 10 + int(struct.unpack_from("<H", prefix, 8)[0])
    elif version == (2, 0):
        length = 12 + int(struct.unpack_from("<I", prefix, 8)[0])
    else:
        raise _invalid(f"Member {name!r} has .npy version {version[0]}.{version[1]}.", member=name)
    if length > MAX_HEADER_BYTES:
        raise _invalid(f"Member {name!r} declares a header of {length} bytes.", member=name)
    return length


def decode_header(header: bytes, name: str) -> NpyHeader:
    """Parse a complete header. Raises `artifact_validation_failed`; allocates nothing of the declared size."""
    start = 10 if header[6] == 1 else 12
    match = _HEADER.match(header[start:].decode("latin-1"))
    if match is None:
        raise _invalid(f"Member {name!r} has a malformed or object .npy header.", member=name)
    require_dtype(match["descr"], name)
    if match["fortran"] == "True":
        raise _invalid(f"Member {name!r} is not in C order.", member=name)
    shape = tuple(int(size) for size in match["shape"].replace(" ", "").split(",") if size)
    if len(shape) > MAX_DIMENSIONS:
        raise _invalid(f"Member {name!r} has {len(shape)} dimensions, more than {MAX_DIMENSIONS}.", member=name)
    return NpyHeader(dtype=np.dtype(match["descr"]), shape=shape, header_bytes=len(header))
