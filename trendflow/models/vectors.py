"""Arithmetic of embeddings."""

from __future__ import annotations

import numpy as np

from trendflow.contracts.errors import TrendFlowError


def unit_rows(vectors: np.ndarray, model: str) -> np.ndarray:
    """Rows `[N, D]` scaled to length 1, float32. Raises `artifact_validation_failed` on a zero or non-finite row."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise TrendFlowError(
            "artifact_validation_failed", f"{model} gave a vector that is zero or not finite.", entry=model
        )
    return (exact / lengths).astype(np.float32)
