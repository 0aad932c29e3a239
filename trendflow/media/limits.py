"""What the Segmenter accepts, and what decoding an untrusted file may cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class MediaLimits:
    """Product limits and resource limits. Sizes in bytes, times in seconds."""

    min_duration_sec: float = 5.0
    max_duration_sec: float = 1200.0
    max_source_bytes: int = 4 * GIB
    av_drift_warn_sec: float = 1.0
    av_drift_max_sec: float = 10.0
    max_failed_packet_ratio: float = 0.05
    min_decoded_ratio: float = 0.5
    max_bad_timestamp_ratio: float = 0.05
    segmenter_timeout_sec: float = 900.0
    repair_timeout_sec: float = 300.0
    child_memory_bytes: int = 6 * GIB
    child_cpu_sec: int = 3600
    child_file_bytes: int = 4 * GIB

    def check_duration(self, duration_sec: float) -> None:
        """Raises `input_constraint_violated` for a duration outside the product's limits."""
        if not self.min_duration_sec <= duration_sec <= self.max_duration_sec:
            raise TrendFlowError(
                "input_constraint_violated",
                f"The video lasts {duration_sec:.2f} s; "
                f"allowed are {self.min_duration_sec:g} to {self.max_duration_sec:g} s.",
                duration_sec=duration_sec,
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
