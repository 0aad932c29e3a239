"""Canonical JSON and content digests against hand-written and hashlib truth."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.canonical import canonical_json, content_digest, digest_of, sha256_hex, utc_now

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
        (10**25, "10000000000000000000000000"),
        ([0.1, 1.0, 1e21, 5e-324], "[0.1,1.0,1e+21,5e-324]"),
        ('quote " backslash \\ newline \n', '"quote \\" backslash \\\\ newline \\n"'),
        # By code point U+FFFF comes before U+10000; by UTF-16 unit it would come after.
        ({"\U00010000": 1, "\uffff": 2}, '{"\uffff":2,"\U00010000":1}'),
    ],
)
def test_canonical_form(value: object, expected: str) -> None:
    assert canonical_json(value) == expected.encode("utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [-float("inf")]}])
def test_non_finite_numbers_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@given(JSON_VALUES)
def test_round_trip_and_independence_of_key_order(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))) == text


def test_sha256_is_the_standard_one() -> None:
    # FIPS 180-2, appendix B.1
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of([]) == hashlib.sha256(b"[]").hexdigest()


def test_utc_now_has_milliseconds_and_z() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_now())


def test_content_digest_follows_the_published_recipe() -> None:
    values = np.array([[1.5, np.nan, -2.0]], dtype=np.float32)
    names = np.array(["ab", "c"])
    expected = hashlib.sha256(
        b'{"component":"demo","empty_reason":null,"schema_version":"demo_npz_v1","status":"ok"}'
        + b"names\0<U2\0[2]\0"
        + "ab".encode("utf-32-le")
        + "c\0".encode("utf-32-le")
        + b"values\0<f4\0[1,3]\0"
        + values.tobytes()
    ).hexdigest()
    arrays = {"values": values, "names": names}
    assert content_digest("demo", "demo_npz_v1", "ok", None, arrays) == expected
    assert content_digest("demo", "demo_npz_v1", "ok", None, {**arrays, "meta": np.array("x")}) == expected


@pytest.mark.parametrize(
    "array",
    [np.array(2.5), np.array(True), np.zeros((0, 3), np.int64), np.array([1, 2], np.float16), np.array("")],
    ids=["0-d float", "0-d bool", "no rows", "half precision", "empty string"],
)
def test_content_digest_takes_every_shape(array: np.ndarray) -> None:
    header = canonical_json({"component": "c", "schema_version": "s", "status": "ok", "empty_reason": None})
    member = b"x\0" + array.dtype.str.encode() + b"\0" + canonical_json(list(array.shape)) + b"\0" + array.tobytes()
    assert content_digest("c", "s", "ok", None, {"x": array}) == hashlib.sha256(header + member).hexdigest()


def test_content_digest_sees_values_not_memory_layout() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    digest = content_digest("c", "s", "ok", None, {"x": array})
    assert content_digest("c", "s", "ok", None, {"x": np.asfortranarray(array)}) == digest
    assert content_digest("c", "s", "ok", None, {"x": array.astype(">i4")}) == digest
    assert content_digest("c", "s", "ok", None, {"x": np.repeat(array, 2, axis=1)[:, ::2]}) == digest


@pytest.mark.parametrize(
    "changed",
    [
        ("d", "s", "ok", None, {"x": np.arange(4)}),
        ("c", "t", "ok", None, {"x": np.arange(4)}),
        ("c", "s", "empty", "audio_silent", {"x": np.arange(4)}),
        ("c", "s", "ok", None, {"y": np.arange(4)}),
        ("c", "s", "ok", None, {"x": np.arange(4).reshape(2, 2)}),
        ("c", "s", "ok", None, {"x": np.arange(4).astype(np.uint8).repeat(8).view(np.int64)}),
        ("c", "s", "ok", None, {"x": np.arange(4).view(np.float64)}),
        ("c", "s", "ok", None, {"x": np.arange(4), "y": np.zeros(0)}),
    ],
    ids=["component", "schema", "status", "name", "shape", "bytes", "dtype", "extra member"],
)
def test_content_digest_changes_with_every_part(changed: tuple) -> None:
    assert content_digest(*changed) != content_digest("c", "s", "ok", None, {"x": np.arange(4)})
