"""The NPZ codec against NumPy's and zipfile's own readers and writers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.byte_source import RangeSource
from trendflow.storage.npz import NpzLimits, decode, decode_array, encode, encode_array, encode_parts

DTYPES = st.sampled_from(["<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "|b1", "<U1", "<U7"])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name != "meta")
MEMBERS = st.dictionaries(NAMES, ARRAYS, max_size=5)
META = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=20), max_size=4)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(MEMBERS, META)
def test_round_trip(arrays: dict[str, np.ndarray], meta: dict[str, object]) -> None:
    loaded, loaded_meta = decode(encode(arrays, meta))
    assert loaded_meta == meta
    assert loaded.keys() == arrays.keys()
    assert all(same(loaded[name], arrays[name]) for name in arrays)


@given(MEMBERS)
def test_numpy_reads_what_we_write(arrays: dict[str, np.ndarray]) -> None:
    with np.load(io.BytesIO(encode(arrays, {"a": 1})), allow_pickle=False) as loaded:
        assert sorted(loaded.files) == sorted([*arrays, "meta"])
        assert str(loaded["meta"]) == '{"a":1}'
        assert all(same(loaded[name], arrays[name]) for name in arrays)


def test_we_read_what_numpy_writes() -> None:
    buffer = io.BytesIO()
    values = np.arange(24.0).reshape(2, 3, 4)
    np.savez(buffer, values=values, names=np.array(["a", "bc"]), meta=np.array('{"a":1}'))
    arrays, meta = decode(buffer.getvalue())
    assert meta == {"a": 1}
    assert same(arrays["values"], values)
    assert arrays["names"].tolist() == ["a", "bc"]


def test_bytes_depend_on_values_only() -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    names = np.array(["x", "yz"])
    data = encode({"table": table, "names": names}, {"b": 1, "a": 2})
    assert encode({"names": names, "table": table}, {"a": 2, "b": 1}) == data
    assert encode({"table": np.asfortranarray(table), "names": names}, {"a": 2, "b": 1}) == data
    assert encode({"table": table.astype(">f4"), "names": names.astype(">U2")}, {"a": 2, "b": 1}) == data
    # Pinned: another Python, NumPy, platform or time zone must write the same file.
    assert sha256_hex(data) == PINNED


PINNED = "407f3e9f921ec0ec7f947f57f2ef203d2f2313cc429ed897326750d0a0403a6a"


def test_archive_attributes_are_constant() -> None:
    data = encode({"b": np.zeros(3), "a": np.ones((2, 2))}, {"k": "v"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
    assert [info.filename for info in infos] == ["a.npy", "b.npy", "meta.npy"]
    for info in infos:
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert info.compress_type == zipfile.ZIP_STORED
        assert (info.external_attr, info.create_system, info.flag_bits, info.extra) == (0o100644 << 16, 3, 0, b"")


def test_large_arrays_are_passed_through_without_copies() -> None:
    array = np.zeros(1_000_000)
    parts = encode_parts({"x": array}, {})
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts if len(part) == array.nbytes)
    assert b"".join(parts) == encode({"x": array}, {})


def test_loaded_arrays_are_read_only_and_independent_of_the_source() -> None:
    data = encode({"x": np.arange(5), "e": np.zeros((0, 2))}, {})
    arrays, _ = decode(data)
    for array in arrays.values():
        assert not array.flags.writeable
        assert array.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        arrays["x"][0] = 9


@pytest.mark.parametrize(
    ("arrays", "meta"),
    [
        ({"meta": np.zeros(1)}, {}),
        ({"Upper": np.zeros(1)}, {}),
        ({"../escape": np.zeros(1)}, {}),
        ({"x" * 65: np.zeros(1)}, {}),
        ({"x": np.array([None])}, {}),
        ({"x": np.zeros(2, dtype=np.complex128)}, {}),
        ({"x": np.zeros(2, dtype=np.uint32)}, {}),
        ({"x": np.array(["2026-01-01"], dtype="datetime64[D]")}, {}),
        ({"x": np.array([b"bytes"])}, {}),
        ({"x": np.zeros(2, dtype=[("a", "f4")])}, {}),
        ({"x": np.zeros((1,) * 9)}, {}),
        ({"x": np.zeros(1)}, {"nan": float("nan")}),
        ({"x": np.zeros(1)}, {"set": {1}}),
        ({f"x{number}": np.zeros(1) for number in range(256)}, {}),
    ],
    ids=[
        "reserved",
        "upper",
        "path",
        "long-name",
        "object",
        "complex",
        "uint32",
        "datetime",
        "bytes",
        "structured",
        "9-dims",
        "nan",
        "set",
        "too-many",
    ],
)
def test_what_a_reader_would_refuse_is_not_written(arrays: dict, meta: dict) -> None:
    with pytest.raises(TrendFlowError) as caught:
        encode(arrays, meta)
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize(
    "limits",
    [
        NpzLimits(max_members=2),
        NpzLimits(max_member_bytes=8_000),
        NpzLimits(max_total_bytes=10_000),
        NpzLimits(max_meta_bytes=200),
    ],
    ids=["members", "member", "total", "meta"],
)
def test_every_limit_binds_writer_and_reader(limits: NpzLimits) -> None:
    arrays, meta = {"x": np.zeros(1000), "y": np.zeros(500)}, {"text": "t" * 50}
    decode(encode(arrays, meta))
    with pytest.raises(TrendFlowError, match=r"than|total|declares|needs"):
        encode(arrays, meta, limits)
    with pytest.raises(TrendFlowError, match=r"than|total|declares"):
        decode(encode(arrays, meta), limits=limits)


def test_single_members_are_read_by_range(tmp_path: Path) -> None:
    arrays = {"big": np.random.default_rng(0).normal(size=200_000), "small": np.arange(10), "third": np.ones(50_000)}
    data = encode(arrays, {"k": 1})
    read: list[int] = []

    def get_range(start: int, length: int) -> bytes:
        read.append(length)
        return data[start : start + length]

    loaded, meta = decode(RangeSource(len(data), get_range), names=["small"])
    assert list(loaded) == ["small"]
    assert same(loaded["small"], arrays["small"])
    assert meta == {"k": 1}
    assert sum(read) < 40_000 < len(data)

    path = tmp_path / "a.npz"
    path.write_bytes(data)
    from_file, _ = decode(path, names=["third", "big"])
    assert sorted(from_file) == ["big", "third"]
    assert same(from_file["big"], arrays["big"])
    with pytest.raises(TrendFlowError, match="no member 'absent'"):
        decode(path, names=["absent"])


@given(ARRAYS)
def test_bare_arrays_round_trip(array: np.ndarray) -> None:
    data = b"".join(encode_array(array, "x"))
    assert same(np.load(io.BytesIO(data), allow_pickle=False), array)
    assert same(decode_array(data, "x"), array)
