"""Values that pass between the wrapper and the IO manager: results ready to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Origin = Literal["computed", "cache", "resume", "error"]


@dataclass(frozen=True)
class Finished:
    """A component's result with complete meta, ready to be persisted.

    `artifacts` maps file stem → (arrays, meta); the main artifact has the component's name. With origin `resume`
    the result already stands in this run and nothing has to be written. `duration_ms` is all the time it took,
    `attempt_ms` that of the last attempt alone.
    """

    component: str
    artifacts: Mapping[str, tuple[Mapping[str, np.ndarray], Mapping[str, Any]]] = field(repr=False)
    origin: Origin
    started_at: str
    finished_at: str
    duration_ms: float
    attempt_ms: float
    retry_count: int = 0
    notes: str | None = None

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return self.artifacts[self.component][0]

    @property
    def meta(self) -> Mapping[str, Any]:
        return self.artifacts[self.component][1]

    @property
    def status(self) -> str:
        return str(self.meta["status"])

    @property
    def digests(self) -> dict[str, str]:
        return {stem: str(meta["content_digest"]) for stem, (_, meta) in self.artifacts.items()}
