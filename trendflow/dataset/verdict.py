"""What a check says of stored data, whoever shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckVerdict:
    """One verdict. `sound` is false where the data may not be used and true where they merely fall short.

    `findings`: places and what is wrong there, as rows of a table.
    """

    name: str
    passed: bool
    result: str
    sound: bool = True
    findings: Sequence[Sequence[str]] = ()
