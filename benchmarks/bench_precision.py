"""Variants of one model side by side: every engine and precision of the image encoder and the object detector.

An entry takes part when its files are on this machine. Variants are compared with the entry they all derive from, on
real frames, in turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import groupby

import numpy as np

from benchmarks.common import MODELS, SAMPLE, Row, interleaved, median_ratio, spread
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool
from trendflow.models.store import WeightsStore

ROLES = ("image_encoder", "object_detector")
FRAMES = 8
REPEATS = 9
THREADS = 1
"""One thread per model: neighbours on the machine then matter least, and workers share cores the same way."""


def measure() -> list[Row]:
    catalogue, frames = Catalogue.load(), _frames()
    pool = ModelPool(MODELS, threads=THREADS)
    rows: list[Row] = []
    for role in ROLES:
        present = [entry for entry in catalogue.for_role(role) if _is_here(entry)]
        families = sorted(present, key=lambda entry: origin(catalogue, entry).name)
        for root, members in groupby(families, key=lambda entry: origin(catalogue, entry)):
            rows += _compare(role, root, {entry.name: pool.get(entry) for entry in members}, frames)
    pool.close()
    return rows


def origin(catalogue: Catalogue, entry: CatalogueEntry) -> CatalogueEntry:
    """The entry that a variant derives from, over all steps."""
    while entry.derived_from is not None:
        entry = catalogue[entry.derived_from]
    return entry


def mean_cosine(found: np.ndarray, reference: np.ndarray) -> float:
    """Mean over the units of the cosine between the two outputs `[n, …]`."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (found, reference))
    return float(((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())


def _is_here(entry: CatalogueEntry) -> bool:
    return entry.device_policy == "cpu" and WeightsStore(MODELS).entry_state(entry) == "present"


def _compare(role: str, root: CatalogueEntry, handles: dict[str, ModelHandle], frames: np.ndarray) -> list[Row]:
    work = {name: _all_frames(handle, frames) for name, handle in handles.items()}
    times, outputs = interleaved(work, REPEATS), {name: run() for name, run in work.items()}
    rows = []
    for name, handle in handles.items():
        entry = handle.entry
        ms = statistics.median(times[name]) * 1000 / len(frames)
        row = Row(f"{role}: time per frame", f"{name}, {entry.engine} {entry.precision}", ms, "ms")
        if name != root.name and root.name in handles:
            ratios = [a / b for a, b in zip(times[name], times[root.name], strict=True)]
            cosine = mean_cosine(outputs[name], outputs[root.name])
            note = f"÷ {root.name} {median_ratio(times[name], times[root.name]):.2f}, turns {spread(ratios)}"
            row = Row(row.what, row.subject, ms, "ms", note=f"{note}; mean cosine of the outputs {cosine:.5f}")
        rows.append(row)
    return rows


def _all_frames(handle: ModelHandle, frames: np.ndarray) -> Callable[[], np.ndarray]:
    """Inference of all frames in batches as large as the entry takes, of pictures prepared beforehand."""
    entry = handle.entry
    images, _ = FramePreprocessing.of(entry)(frames)
    step = min(entry.max_batch_size, len(images))

    def run() -> np.ndarray:
        parts = [
            np.concatenate([found.reshape(len(found), -1) for found in outputs.values()], axis=1)
            for outputs in (
                handle.infer({entry.inputs[0].name: images[start : start + step]})
                for start in range(0, len(images), step)
            )
        ]
        return np.concatenate(parts)

    return run


def _frames() -> np.ndarray:
    """uint8 [8, H, W, 3]: one frame per second of the shipped video."""
    import av

    found: list[np.ndarray] = []
    with av.open(str(SAMPLE)) as container:
        for frame in container.decode(video=0):
            if len(found) < FRAMES and frame.time is not None and frame.time >= len(found):
                found.append(frame.to_ndarray(format="rgb24"))
    return np.stack(found)
