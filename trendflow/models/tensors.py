"""Tensor specifications of catalogue entries and the check of real arrays against them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

BATCH = "B"
"""The symbolic dimension that counts units."""

_SYMBOL = re.compile(r"([A-Z][A-Za-z]*)(?:/([1-9][0-9]*))?\Z")


def _dimension(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and _SYMBOL.match(value):
        return value
    raise ValueError("a dimension is a positive number, a symbol such as 'B' or a fraction of one such as 'H/4'")


Dimension = Annotated[int | str, BeforeValidator(_dimension)]


class TensorSpec(BaseModel):
    """Name, numpy dtype, shape and meaning of one tensor.

    A symbolic dimension has one value per inference; `H/4` is an exact quarter of `H`. `multiples` lists symbols
    that must be divisible by a number. `finite` forbids NaN and infinity (float tensors).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    dtype: Literal["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]
    shape: tuple[Dimension, ...]
    layout: str
    value_range: tuple[float, float] | None = None
    multiples: dict[str, int] = Field(default_factory=dict)
    finite: bool = True


def mismatch(spec: TensorSpec, array: np.ndarray, symbols: dict[str, int]) -> str | None:
    """What is wrong with dtype or shape of `array`, or None. Binds the symbols it meets first in `symbols`."""
    if array.dtype != np.dtype(spec.dtype):
        return f"{spec.name!r} has dtype {array.dtype} instead of {spec.dtype}"
    if array.ndim != len(spec.shape):
        return f"{spec.name!r} has {array.ndim} dimensions instead of {len(spec.shape)}"
    for axis, (size, dim) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if isinstance(dim, str) and dim not in symbols and "/" not in dim:
            if size < 1 or size % spec.multiples.get(dim, 1):
                return f"{spec.name!r} axis {axis} has size {size}, no multiple of {spec.multiples.get(dim, 1)}"
            symbols[dim] = size
        expected = size_of(dim, symbols)
        if size != expected:
            return f"{spec.name!r} axis {axis} has size {size} instead of {expected}"
    return None


def size_of(dim: int | str, symbols: Mapping[str, int]) -> int | None:
    """The number a dimension stands for; None while its symbol is unbound or does not divide."""
    if isinstance(dim, int):
        return dim
    symbol, _, divisor = dim.partition("/")
    if symbol not in symbols:
        return None
    quotient, rest = divmod(symbols[symbol], int(divisor or 1))
    return None if rest else quotient


def smallest_inputs(specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Zero arrays of the smallest legal shape, for warm-up."""
    symbols: dict[str, int] = {}
    for spec in specs:
        symbols.update({dim: spec.multiples.get(dim, 1) for dim in spec.shape if isinstance(dim, str)})
    return {spec.name: np.zeros([size_of(dim, symbols) or 1 for dim in spec.shape], spec.dtype) for spec in specs}


def describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "layout": spec.layout}
