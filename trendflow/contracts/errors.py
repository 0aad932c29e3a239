"""The error taxonomy: every failure carries a code from one closed table.

The class of a code decides behaviour. *Transient* may be retried, *permanent* may not, *contract* means a
caller, a file or the code broke a rule and retrying cannot help.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

ErrorClass = Literal["transient", "permanent", "contract"]

MAX_MESSAGE = 500
EXIT_OK = 0
EXIT_USAGE = 2


@dataclass(frozen=True)
class ErrorRule:
    """How one `error_code` behaves: its class, the retries it is allowed and the process exit code."""

    error_class: ErrorClass
    max_retries: int
    exit_code: int


def _transient(retries: int) -> ErrorRule:
    return ErrorRule("transient", retries, 75)


def _permanent(exit_code: int = 4) -> ErrorRule:
    return ErrorRule("permanent", 0, exit_code)


def _contract(exit_code: int = 3) -> ErrorRule:
    return ErrorRule("contract", 0, exit_code)


ERROR_RULES: dict[str, ErrorRule] = {
    "network_error": _transient(3),
    "rate_limited": _transient(3),
    "timeout": _transient(2),
    "storage_unavailable": _transient(3),
    "triton_unavailable": _transient(2),
    "triton_timeout": _transient(2),
    # Retried by batch reduction only, inside the component; never by running the component again.
    "out_of_memory": _transient(0),
    "source_unavailable": _permanent(),
    "video_unreadable": _permanent(10),
    "video_file_corrupted": _permanent(),
    "model_not_found": _permanent(),
    "model_load_failed": _permanent(),
    "weights_missing": _permanent(),
    "insufficient_gpu_memory": _permanent(),
    "device_unavailable": _permanent(),
    "triton_bad_response": _permanent(),
    "internal_error": _permanent(70),
    "cancelled": _permanent(130),
    "input_constraint_violated": _contract(),
    "config_invalid": _contract(2),
    "dependency_missing": _contract(),
    "model_spec_invalid": _contract(),
    "artifact_validation_failed": _contract(),
    "leakage_violation": _contract(),
}


class TrendFlowError(Exception):
    """A typed failure.

    `message` is one sentence for a person; it must hold no raw text (comments, transcripts) and no path that
    reveals the host. `detail` is a flat JSON-able map for machines under the same rule.
    """

    def __init__(self, error_code: str, message: str, **detail: Any) -> None:
        if error_code not in ERROR_RULES:
            raise ValueError(f"unknown {error_code = }")
        self.error_code = error_code
        self.message = message[:MAX_MESSAGE]
        self.detail: dict[str, Any] = detail
        super().__init__(self.message)

    @property
    def rule(self) -> ErrorRule:
        return ERROR_RULES[self.error_code]

    @property
    def error_class(self) -> ErrorClass:
        return self.rule.error_class

    @property
    def exit_code(self) -> int:
        return self.rule.exit_code

    def __str__(self) -> str:
        return f"{self.error_code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process boundaries (decoder child, Dagster workers); keyword detail must survive pickling.
        return (_rebuild, (type(self), self.error_code, self.message, self.detail))


def _rebuild(cls: type[TrendFlowError], code: str, message: str, detail: dict[str, Any]) -> TrendFlowError:
    return cls(code, message, **detail)


def as_typed(exc: BaseException) -> TrendFlowError:
    """Map any exception to a typed one. Unknown exceptions become `internal_error` naming only their type.

    The text of a foreign exception may quote user data or paths, so nothing repeats it; logs tell where it came from.
    """
    if isinstance(exc, TrendFlowError):
        return exc
    if isinstance(exc, KeyboardInterrupt):
        return TrendFlowError("cancelled", "The run was stopped by the user.")
    if isinstance(exc, MemoryError):
        return TrendFlowError("out_of_memory", "The process ran out of memory.")
    if isinstance(exc, OSError) and exc.errno in (28, 122):  # ENOSPC, EDQUOT
        return TrendFlowError("storage_unavailable", "The disk is full.", errno=exc.errno)
    name = type(exc).__name__
    return TrendFlowError("internal_error", f"Unexpected {name}; see the process log.", type=name)


def unwritable(exc: OSError, what: str) -> TrendFlowError:
    """`storage_unavailable` when only space is missing, `config_invalid` for a place that cannot be written."""
    typed = as_typed(exc)
    if typed.error_code == "storage_unavailable":
        return typed
    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
    return TrendFlowError("config_invalid", f"{what} cannot be written: {reason}.", errno=exc.errno)
