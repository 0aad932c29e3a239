"""Recomputed numbers against stored ones, and what several recomputations share. Nothing of trendflow computes here."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from trendflow_tests.recompute.stored import StoredRun

STORED_AS_FLOAT32 = 2e-6
"""Relative error of a number that was computed in double precision and stored in single."""


def assert_scalars(
    run: StoredRun, component: str, expected: Mapping[str, float], rtol: float = STORED_AS_FLOAT32, atol: float = 1e-9
) -> None:
    """Every expected feature of a component equals the stored one; all that differ are named at once."""
    stored = {name: run.scalar(component, name) for name in expected}
    wrong = {
        name: (value, stored[name])
        for name, value in expected.items()
        if not np.isclose(value, stored[name], rtol=rtol, atol=atol, equal_nan=True)
    }
    assert not wrong, f"recomputed and stored values of {component} differ: {wrong}"


def duration_s(run: StoredRun) -> float:
    """Duration in full precision, from where the documentation says it stands."""
    return float(json.loads((run.frames_dir / "video" / "metadata.json").read_text(encoding="utf-8"))["duration_sec"])


def rows_of(frame_indices: np.ndarray, provider: Mapping[str, np.ndarray]) -> np.ndarray:
    """Row of each frame in the arrays of another component that saw it too."""
    rows = np.searchsorted(provider["frame_indices"], frame_indices)
    np.testing.assert_array_equal(provider["frame_indices"][rows], frame_indices)
    return rows


def windows_inside(run: StoredRun, family: str) -> np.ndarray:
    """Rows of an audio family's windows that lie inside the audio."""
    plan = run.arrays("segmenter")
    position = plan["family_names"].tolist().index(family)
    first, stop = plan["segment_row_splits"][position : position + 2]
    return np.flatnonzero(plan["segment_mask"][first:stop])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1 in double precision, so that their products are cosines."""
    exact = vectors.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact, axis=-1, keepdims=True))


def reliable_motion(flow: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.where(flow["pair_reliable_mask"], flow["motion_norm_per_sec_mean"].astype(np.float64), np.nan)


def part_of(times: np.ndarray, duration: float, parts: int) -> np.ndarray:
    """Number, from 0, of the equal part of the video each time lies in."""
    return np.minimum(np.floor(parts * times / duration), parts - 1).astype(int)
