"""Per-frame transition probability from a learned shot-boundary model, and what follows from it."""

from __future__ import annotations

import numpy as np

from trendflow.components.visual._cut_constants import CUTS
from trendflow.components.visual._cut_events import Event, EventType, gradual_event
from trendflow.components.visual._cut_score import DenseSignals
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow.models.interface import ModelHandle

# Windows of TransNet V2 (Souček and Lokoč 2020): of 100 frames only the middle 50 have context on both sides.
WINDOW = 100
STRIDE = 50
MARGIN = (WINDOW - STRIDE) // 2


def transition_probability(handle: ModelHandle, thumbs: np.ndarray, runner: BatchRunner) -> np.ndarray:
    """Probability that a frame belongs to a transition, float32 `[F]`, from thumbnails uint8 `[F, 27, 48, 3]`.

    The first and the last frame are repeated to fill the outer windows. The model's first output is read as
    `[windows, 100]` or `[windows, 100, 1]`; `postprocessing.activation` of its entry says whether it holds
    logits (`sigmoid`) or probabilities (`none`).

    Raises `model_spec_invalid` for another layout, `artifact_validation_failed` for values outside [0, 1].
    """
    entry = handle.entry
    activation = entry.postprocessing.get("activation")
    if len(entry.inputs) != 1 or activation not in ("sigmoid", "none"):
        raise TrendFlowError(
            "model_spec_invalid",
            f"{entry.name}: a shot-boundary model needs one input and postprocessing.activation sigmoid or none.",
            entry=entry.name,
        )
    frames = len(thumbs)
    windows = -(-frames // STRIDE)
    # Index arithmetic instead of a padded copy: thumbnails of a long video are large.
    offsets = np.arange(WINDOW) - MARGIN

    def infer(start: int, stop: int) -> np.ndarray:
        rows = np.clip(np.arange(start, stop)[:, None] * STRIDE + offsets, 0, frames - 1)
        batch = thumbs[rows].astype(entry.inputs[0].dtype)
        output = np.asarray(handle.infer({entry.inputs[0].name: batch})[entry.outputs[0].name], dtype=np.float32)
        if output.shape not in ((stop - start, WINDOW), (stop - start, WINDOW, 1)):
            raise TrendFlowError(
                "model_spec_invalid",
                f"{entry.name} must give one value for each of the {WINDOW} frames of a window.",
                entry=entry.name,
                shape=list(output.shape),
            )
        return output.reshape(stop - start, WINDOW)[:, MARGIN : MARGIN + STRIDE]

    values = np.concatenate(runner.run(windows, infer, entry.max_batch_size)).reshape(-1)[:frames]
    probability = 1 / (1 + np.exp(-values)) if activation == "sigmoid" else values
    if not np.all((probability >= 0) & (probability <= 1)):
        raise TrendFlowError("artifact_validation_failed", f"{entry.name} gave values that are no probabilities.")
    return probability.astype(np.float32)


def adjusted_cuts(
    dense: DenseSignals, candidates: np.ndarray, excluded: np.ndarray, probability: np.ndarray
) -> np.ndarray:
    """Candidates of the score rule, corrected by the model: p < `learned_veto` removes, p ≥ `learned_add` adds one.

    The model marks the last frame of the old shot, the first of the new one, or both; a cut at frame j therefore
    reads max(p[j-1], p[j]). Longer runs are gradual transitions and add no cut.
    """
    near = np.maximum(probability, np.concatenate([[0.0], probability[:-1]]))
    kept = [int(j) for j in candidates if near[j] >= CUTS.learned_veto]
    for first, last in _runs(probability >= CUTS.learned_add):
        if last - first + 1 >= CUTS.dissolve_learned_frames:
            continue
        frames = range(max(first, 1), min(last + 1, len(dense) - 1) + 1)
        if not frames or excluded[frames.start : frames.stop].any():
            continue
        added = max(frames, key=lambda j: dense.score[j])
        if all(abs(dense.t[added] - dense.t[j]) > CUTS.cut_separation_s for j in kept):
            kept.append(added)
    return np.array(sorted(kept), dtype=np.int64)


def learned_dissolves(
    dense: DenseSignals, probability: np.ndarray, thumbs: np.ndarray, cuts: np.ndarray
) -> list[Event]:
    """Slow changes of legal length around a run of at least `dissolve_learned_frames` confident frames."""
    found = []
    for first, last in _runs(probability >= CUTS.learned_add):
        if last - first + 1 < CUTS.dissolve_learned_frames:
            continue
        start, end = _widened(dense, max(first - 1, 0), last)
        change = dense.mad[start + 1 : end + 1]
        slow = np.all((change >= CUTS.dissolve_mad_min) & (change <= CUTS.dissolve_mad_max))
        length = dense.t[end] - dense.t[start]
        fits = CUTS.dissolve_min_s - 1e-9 <= length <= CUTS.dissolve_max_s + 1e-9
        if slow and fits and not np.any((cuts > start) & (cuts <= end)):
            distance = np.abs(thumbs[start].astype(np.float32) - thumbs[end]).mean() / 255
            found.append(gradual_event(EventType.DISSOLVE, dense, start, end, float(distance)))
    return found


def _widened(dense: DenseSignals, start: int, end: int) -> tuple[int, int]:
    """The model is confident in the middle of a dissolve only; grow the run to the shortest legal length."""
    while dense.t[end] - dense.t[start] < CUTS.dissolve_min_s - 1e-9 and (start > 0 or end < len(dense) - 1):
        start, end = max(start - 1, 0), min(end + 1, len(dense) - 1)
    return start, end


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Maximal stretches of True as (first, last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(after) - 1) for first, after in edges.reshape(-1, 2)]
