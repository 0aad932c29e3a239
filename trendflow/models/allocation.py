"""What an engine's message says went wrong: engines have no exception types for memory or for a lost device."""

from __future__ import annotations

_NO_MEMORY = (
    "failed to allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "outofmemory",
    "_status_alloc_failed",  # cuBLAS and cuDNN, when their own work space does not fit
    "cudaerrormemoryallocation",
    "cuda failure 2:",
    "memoryerror",
)
_DEVICE_LOST = ("cuda error", "cuda failure", "cuda runtime (", "cudnn error", "cudnn failure", "cublas failure")


def is_allocation_failure(message: str) -> bool:
    """Whether an engine's message says that memory, of the host or of a device, was not enough."""
    return _says(_NO_MEMORY, message)


def is_device_failure(message: str) -> bool:
    """Whether an engine's message says that a CUDA device fails, and not for want of memory."""
    return _says(_DEVICE_LOST, message) and not is_allocation_failure(message)


def _says(words: tuple[str, ...], message: str) -> bool:
    text = message.lower()
    return any(word in text for word in words)
