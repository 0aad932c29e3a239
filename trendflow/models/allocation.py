"""Tells a failed allocation from any other failure of an engine, by its words: engines have no type for it."""

from __future__ import annotations

_WORDS = (
    "failed to allocate memory",
    "can't allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "cuda failure 2:",
    "memoryerror",
)


def is_allocation_failure(message: str) -> bool:
    """Whether an engine's message says that memory, of the host or of a device, was not enough."""
    text = message.lower()
    return any(word in text for word in _WORDS)
