"""Last look at an artifact made from text: it may hold numbers and words of the program, no words of a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError


def require_closed_vocabulary(artifact: Artifact, vocabulary: frozenset[str]) -> None:
    """Raise `artifact_validation_failed` when a string in arrays, meta or notes is not one of `vocabulary`.

    The error names the place, not the string.
    """
    for name, array in artifact.arrays.items():
        if array.dtype.kind not in "biuf" and not set(array.ravel().tolist()) <= vocabulary:
            raise _leak(name)
    for name, value in {**artifact.meta, "notes": artifact.notes}.items():
        if not set(_strings(value)) <= vocabulary:
            raise _leak(name)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_strings(key), *_strings(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _leak(name: str) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", f"{name!r} holds a text that is none of the program's own.")
