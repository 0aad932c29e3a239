"""The stages of a forecast: which ones ran, for how long, and which one failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trendflow.contracts.errors import as_typed

STAGES = ("DataCollection", "DataProcessor", "TextEmbedding", "Encoder", "Fusion", "Heads", "Postprocess")
SUCCESS, ERROR, SKIPPED = "success", "error", "skipped"


class StageLog:
    """Times stages as they run. Those that never began count as skipped: the model has no such part."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a block as the stage `name`; its errors pass through, and are noted by their code."""
        started = time.perf_counter()
        status, code = ERROR, None
        try:
            yield
            status = SUCCESS
        except BaseException as exc:
            code = as_typed(exc).error_code
            raise
        finally:
            spent = (time.perf_counter() - started) * 1e3
            self._rows[name] = {"stage": name, "status": status, "duration_ms": round(spent, 3), "error_code": code}

    def rows(self) -> list[dict[str, Any]]:
        """One row per stage, in the order of the contract."""
        return [
            self._rows.get(name) or {"stage": name, "status": SKIPPED, "duration_ms": None, "error_code": None}
            for name in STAGES
        ]
