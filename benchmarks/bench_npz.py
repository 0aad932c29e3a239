"""The artifact codec against numpy's own, on arrays as a long video produces them."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks.common import Row, interleaved, median_ratio
from trendflow.storage import npz

REPEATS = 5


def arrays() -> dict[str, np.ndarray]:
    """About 64 MB: embeddings and meshes fill the mantissa as real ones do, masks and indices compress well."""
    rng = np.random.default_rng(0)
    return {
        "embeddings": rng.standard_normal((800, 1280), dtype=np.float32),
        "frame_indices": np.arange(800, dtype=np.int32),
        "mesh": rng.random((10_000, 468, 3), dtype=np.float32),
        "present_mask": rng.random((800, 4096)) > 0.5,
        "times_s": np.linspace(0.0, 1200.0, 800),
    }


def with_numpy(save: Callable[..., None], data: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **data)
    return buffer.getvalue()


def measure() -> list[Row]:
    data = arrays()
    megabytes = sum(array.nbytes for array in data.values()) / 1e6
    stored = npz.encode(data, {})
    numpy_stored = with_numpy(np.savez, data)
    deflated = with_numpy(np.savez_compressed, data)

    def read_numpy() -> None:
        with np.load(io.BytesIO(numpy_stored)) as found:
            for name in found.files:
                found[name]

    writing = interleaved(
        {"ours": lambda: npz.encode(data, {}), "savez": lambda: with_numpy(np.savez, data)}, repeats=REPEATS
    )
    deflating = interleaved({"savez_compressed": lambda: with_numpy(np.savez_compressed, data)}, repeats=1)
    reading = interleaved({"ours": lambda: npz.decode(stored), "load": read_numpy}, repeats=REPEATS)

    def speed(times: list[float]) -> str:
        return f"{megabytes / statistics.median(times):.0f} MB/s"

    subject = f"{megabytes:.0f} MB of arrays"
    return [
        Row(
            "npz write ÷ np.savez",
            subject,
            median_ratio(writing["ours"], writing["savez"]),
            "×",
            note=f"{speed(writing['ours'])} against {speed(writing['savez'])}",
        ),
        Row(
            "npz write ÷ np.savez_compressed",
            subject,
            statistics.median(writing["ours"]) / statistics.median(deflating["savez_compressed"]),
            "×",
            note=f"{speed(deflating['savez_compressed'])} deflated, {len(deflated) / len(stored):.0%} of the size",
        ),
        Row(
            "npz checked read ÷ np.load",
            subject,
            median_ratio(reading["ours"], reading["load"]),
            "×",
            note=f"{speed(reading['ours'])} against {speed(reading['load'])}",
        ),
    ]
