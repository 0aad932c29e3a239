"""SYNTHETIC rows of the cost registry."""

from __future__ import annotations

from typing import Any

CPU = {
    "gpu": None,
    "vram_mb": None,
    "cpu": "a",
    "cpu_count": 2,
    "ram_mb": 8000,
    "driver": None,
    "cuda": None,
    "os": "x",
}


def row(minute: int, latency: float, **changes: Any) -> dict[str, Any]:
    return {
        "component": "core_clip",
        "component_part": "whole",
        "unit": "frame",
        "units": minute + 1,
        "input_bucket": "426x240",
        "model_signature": "0" * 64,
        "producer_version": "1.0.0",
        "device_profile": CPU,
        "latency_ms_per_unit": latency,
        "cpu_rss_peak_mb": None,
        "gpu_memory_per_task_mb": None,
        "valid_from": f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00.000Z",
        "valid_to": None,
        **changes,
    }
