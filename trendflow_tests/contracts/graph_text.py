"""The shipped graph file as text, and faults put into it: what the tests of the graph share."""

from __future__ import annotations

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path

TEXT = data_path("component_graph.yaml").read_text(encoding="utf-8")


def mutated(old: str, new: str, text: str = TEXT) -> tuple[str, int]:
    """`text` with the first `old` replaced, and the line where the replacement begins."""
    assert old in text
    return text.replace(old, new, 1), text[: text.index(old)].count("\n") + 1


def refused(caught: pytest.ExceptionInfo[TrendFlowError], line: int, finding: str) -> None:
    assert caught.value.error_code == "config_invalid"
    assert f"component_graph line {line}:" in caught.value.message
    assert finding in caught.value.message
