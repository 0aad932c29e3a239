"""Hostile and damaged NPZ files: refused with a typed error before memory of the declared size is touched."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.npz import decode, decode_array, encode

GOOD = encode({"values": np.arange(200, dtype=np.float64), "names": np.array(["ab", "c"])}, {"key": "value"})
ALLOWED_BYTES = 1 << 20


class Exploit:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (pytest.fail, ("a pickle was executed",))


def npy(header: str, payload: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + payload


def header(descr: str = "'<f8'", shape: str = "(2,)", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, meta: bytes | None = None) -> bytes:
    """A real ZIP with a valid meta member and the given ones."""
    buffer = io.BytesIO()
    if meta is None:
        sink = io.BytesIO()
        np.save(sink, np.array('{"key":"value"}'))
        meta = sink.getvalue()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("meta.npy", meta)
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def array_bytes(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=allow_pickle)
    return sink.getvalue()


def patched_directory(offset_in_entry: int, fmt: str, *values: int) -> bytes:
    """GOOD with one field of the directory entry of its last member overwritten."""
    data = bytearray(GOOD)
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into(fmt, data, entry + offset_in_entry, *values)
    return bytes(data)


def duplicate_name() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archive(("x.npy", array_bytes(np.zeros(1))), ("x.npy", array_bytes(np.ones(1))))


def zip64_ten_terabytes() -> bytes:
    """A directory that declares 10 TB through the ZIP64 extension."""
    name, payload = b"x.npy", npy(header(shape=f"({10 * 2**40 // 8},)"))
    extra = struct.pack("<HHQQ", 1, 16, 10 * 2**40, 10 * 2**40)
    sizes = (0xFFFFFFFF, 0xFFFFFFFF)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 33, zlib.crc32(payload), *sizes, len(name), len(extra))
    body = local + name + extra + payload
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 33, zlib.crc32(payload), *sizes, len(name), len(extra), 0, 0, 0, 0, 0
    )
    directory = entry + name + extra
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(body), 0)


def overlapping() -> bytes:
    """Two directory entries over one member: the trick behind quadratic ZIP bombs."""
    data = array_bytes(np.zeros(4))
    first = archive(("x.npy", data))
    at, end = first.index(b"PK\x01\x02"), first.rindex(b"PK\x05\x06")
    entry = first[first.rindex(b"PK\x01\x02") : end]
    directory = first[at:end] + entry.replace(b"x.npy", b"y.npy")
    return first[:at] + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, len(directory), at, 0)


def many_members() -> bytes:
    member = array_bytes(np.zeros(1))
    return archive(*((f"m{number}.npy", member) for number in range(256)))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "no archive": lambda: b"not an archive at all, just text" * 10,
    "truncated": lambda: GOOD[:-1],
    "truncated in the data": lambda: GOOD[: len(GOOD) // 2],
    "bytes before the archive": lambda: b"#!/bin/sh\n" + GOOD,
    "bytes after the archive": lambda: GOOD + b"x",
    "object array": lambda: archive(("x.npy", array_bytes(np.array([Exploit()]), allow_pickle=True))),
    "pickle as member": lambda: archive(("x.npy", pickle.dumps(Exploit()))),
    "structured dtype with objects": lambda: archive(("x.npy", npy(header("[('a', '|O')]"), bytes(16)))),
    "executable header": lambda: archive(("x.npy", npy(header("__import__('os').system('true')"), bytes(16)))),
    "10 TB by shape": lambda: archive(("x.npy", npy(header(shape=f"({10 * 2**40 // 8},)")))),
    "10 TB by itemsize": lambda: archive(("x.npy", npy(header("'<U999999999'", "(2500,)")))),
    "10 TB by ZIP64": zip64_ten_terabytes,
    "4 GB in the directory": lambda: patched_directory(20, "<LL", 0xFFFFFFF0, 0xFFFFFFF0),
    "10 TB beside a zero axis": lambda: archive(("x.npy", npy(header(shape=f"(0, {10 * 2**40})")))),
    "overflowing shape": lambda: archive(("x.npy", npy(header(shape="(4294967296, 4294967296)")))),
    "negative shape": lambda: archive(("x.npy", npy(header(shape="(-1,)")))),
    "size larger than payload": lambda: archive(("x.npy", npy(header(shape="(3,)"), bytes(16)))),
    "size smaller than payload": lambda: archive(("x.npy", npy(header(shape="(1,)"), bytes(16)))),
    "nine dimensions": lambda: archive(("x.npy", npy(header(shape="(" + "1, " * 9 + ")"), bytes(8)))),
    "header over 64 KiB": lambda: archive(("x.npy", npy(header() + " " * 70_000, bytes(16), (2, 0)))),
    "header beyond the member": lambda: archive(("x.npy", b"\x93NUMPY\x01\x00\xff\xff{")),
    "unknown npy version": lambda: archive(("x.npy", npy(header(), bytes(16), (3, 0)))),
    "no npy": lambda: archive(("x.npy", b"hello")),
    "complex": lambda: archive(("x.npy", array_bytes(np.zeros(2, np.complex128)))),
    "unsigned 64": lambda: archive(("x.npy", array_bytes(np.zeros(2, np.uint64)))),
    "big endian": lambda: archive(("x.npy", array_bytes(np.zeros(2, ">f8")))),
    "zero-width strings": lambda: archive(("x.npy", npy(header("'<U0'", "(1000000000,)")))),
    "no characters": lambda: archive(("x.npy", npy(header("'<U1'", "(1,)"), b"\xff\xff\xff\xff"))),
    "Fortran order": lambda: archive(("x.npy", array_bytes(np.asfortranarray(np.ones((2, 2)))))),
    "path traversal": lambda: archive(("../../etc/passwd.npy", array_bytes(np.zeros(1)))),
    "absolute name": lambda: archive(("/x.npy", array_bytes(np.zeros(1)))),
    "backslash": lambda: archive(("..\\x.npy", array_bytes(np.zeros(1)))),
    "nested name": lambda: archive(("a/x.npy", array_bytes(np.zeros(1)))),
    "NUL in name": lambda: archive(("x.npy", array_bytes(np.zeros(1)))).replace(b"x.npy", b"\0.npy"),
    "other suffix": lambda: archive(("x.txt", b"text")),
    "duplicate names": duplicate_name,
    "deflated": lambda: archive(("x.npy", array_bytes(np.zeros(99))), compression=zipfile.ZIP_DEFLATED),
    "lzma": lambda: archive(("x.npy", array_bytes(np.zeros(99))), compression=zipfile.ZIP_LZMA),
    "encrypted flag": lambda: patched_directory(8, "<H", 1),
    "overlapping members": overlapping,
    "257 members": many_members,
    "wrong checksum": lambda: patched_directory(16, "<L", 0),
    "entry points elsewhere": lambda: patched_directory(42, "<L", 3),
    "meta missing": lambda: archive(("x.npy", array_bytes(np.zeros(1)))).replace(b"meta.npy", b"mota.npy"),
    "meta no string": lambda: archive(meta=array_bytes(np.zeros(1))),
    "meta one-dimensional": lambda: archive(meta=array_bytes(np.array(["{}"]))),
    "meta no JSON": lambda: archive(meta=array_bytes(np.array("{"))),
    "meta no object": lambda: archive(meta=array_bytes(np.array("[1]"))),
    "meta nested too deep": lambda: archive(meta=array_bytes(np.array('{"a":' + "[" * 100_000))),
    "meta over 4 MiB": lambda: archive(meta=array_bytes(np.array('{"a":"' + "x" * (1 << 20) + '"}'))),
}


def refused(data: bytes) -> TrendFlowError:
    """The error of reading `data`, which must come before any large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(TrendFlowError) as caught:
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < ALLOWED_BYTES
    return caught.value


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_before_allocation(case: str) -> None:
    error = refused(HOSTILE[case]())
    assert error.error_code == "artifact_validation_failed"


def test_the_helpers_build_files_that_are_otherwise_accepted() -> None:
    arrays, meta = decode(archive(("x.npy", npy(header(), bytes(16)))))
    assert arrays["x"].tolist() == [0.0, 0.0]
    assert meta == {"key": "value"}
    arrays, _ = decode(archive(("x.npy", npy(header(), bytes(16), (2, 0)))))
    assert arrays["x"].shape == (2,)
    assert decode(patched_directory(12, "<HH", 7, 7))[1] == meta  # the time of a member carries no meaning


def test_one_bad_member_refuses_the_file_even_when_others_are_wanted() -> None:
    data = archive(("x.npy", array_bytes(np.zeros(3))), ("../y.npy", array_bytes(np.zeros(1))))
    with pytest.raises(TrendFlowError, match="valid member name"):
        decode(data, names=["x"])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_changes_a_value(position: int, mask: int) -> None:
    damaged = bytearray(GOOD)
    damaged[position] ^= mask
    expected, expected_meta = decode(GOOD)
    try:
        arrays, meta = decode(bytes(damaged))
    except TrendFlowError:
        return  # anything else that is raised fails the test
    assert meta == expected_meta
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(TrendFlowError):
        decode(GOOD[:length])


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    for read in (decode, lambda raw: decode_array(raw, "x")):
        with pytest.raises(TrendFlowError) as caught:
            read(data)
        assert caught.value.error_code == "artifact_validation_failed"
