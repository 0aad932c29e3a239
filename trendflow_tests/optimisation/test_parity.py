"""Parity measures against closed forms and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity

from trendflow.contracts.errors import TrendFlowError
from trendflow.optimisation.parity import (
    LIMITS,
    Boxes,
    Limit,
    Move,
    classifier_parity,
    depth_parity,
    detector_parity,
    embedding_parity,
    flow_parity,
    scalar_moves,
)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _boxes(*rows: tuple[tuple[float, float, float, float], float, int]) -> Boxes:
    return Boxes(
        np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], dtype=np.float32),
        np.array([row[2] for row in rows], dtype=np.int32),
    )


def test_the_cosine_of_embeddings_is_that_of_sklearn() -> None:
    a = _random(40, 16)
    b = a + 0.1 * _random(40, 16, seed=1)
    expected = np.diag(cosine_similarity(a, b))
    found = embedding_parity(a.astype(np.float32), b.astype(np.float32))
    assert found["cosine_mean"] == pytest.approx(expected.mean(), abs=1e-6)
    assert found["cosine_min"] == pytest.approx(expected.min(), abs=1e-6)


def test_depth_is_compared_by_rank_like_scipy_and_blind_to_scale_and_shift() -> None:
    a = _random(3, 8, 9)
    a[0, :2] = 1.0  # ties
    b = a + 0.5 * _random(3, 8, 9, seed=1)
    expected = np.mean([spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)])
    assert depth_parity(a, b)["spearman_mean"] == pytest.approx(expected, abs=1e-12)
    assert depth_parity(a, 3 * a + 7)["spearman_mean"] == pytest.approx(1.0, abs=1e-12)


def test_a_constant_offset_of_a_flow_is_its_length() -> None:
    flow = _random(2, 2, 5, 6)
    moved = flow + np.array([0.3, -0.4])[None, :, None, None]
    assert flow_parity(flow, moved)["endpoint_error_mean_px"] == pytest.approx(0.5)


def test_a_classifier_is_compared_by_its_first_class_and_its_largest_error() -> None:
    reference = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    variant = np.array([[0.45, 0.55], [0.9, 0.1], [0.1, 0.9], [0.3, 0.7]])
    found = classifier_parity(reference, variant)
    assert found["top1_agreement"] == 0.75
    assert found["probability_error_max"] == pytest.approx(0.15)


def test_f1_counts_what_matches_what_is_missed_and_what_is_new() -> None:
    a, b, c = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    shifted = (0.0, 0.0, 10.0, 8.0)  # IoU .8 with a
    half = (20.0, 0.0, 30.0, 4.0)  # IoU .4 with b
    reference = [_boxes((a, 0.9, 0), (b, 0.8, 0)), _boxes((c, 0.6, 1))]
    variant = [_boxes((shifted, 0.8, 0), (half, 0.7, 0)), _boxes((c, 0.7, 2))]
    found = detector_parity(reference, variant)
    # One of three is found; two boxes are new: the halved one, and the one of another class.
    assert found["f1"] == pytest.approx(2 * 1 / (2 * 1 + 2 + 2))
    assert found["score_error_mean"] == pytest.approx(0.1, abs=1e-6)
    assert found["reference_boxes"] == 3


def test_two_boxes_cannot_both_match_the_same_one() -> None:
    a = (0.0, 0.0, 10.0, 10.0)
    found = detector_parity([_boxes((a, 0.9, 0))], [_boxes((a, 0.9, 0), (a, 0.8, 0))])
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["score_error_mean"] == 0


def test_a_detector_that_finds_nothing_more_is_not_perfect_but_unknown() -> None:
    a = (0.0, 0.0, 10.0, 10.0)
    found = detector_parity([_boxes((a, 0.9, 0))], [_boxes()])
    assert found["f1"] == 0
    assert math.isnan(found["score_error_mean"])
    assert not Limit("score_error_mean", False, 0.05).holds(found["score_error_mean"])


def test_agreement_about_nothing_is_refused() -> None:
    with pytest.raises(TrendFlowError, match="input_constraint_violated"):
        detector_parity([_boxes(), _boxes()], [_boxes(), _boxes()])


def test_scalars_move_in_deviations_of_the_reference() -> None:
    reference = [{"x": 1.0, "same": 3.0, "new": 1.0, "lost": 1.0, "void": np.nan} for _ in range(1)]
    reference += [{"x": 3.0, "same": 3.0, "new": 1.0, "lost": 2.0, "void": np.nan}]
    variant = [{"x": 1.05, "same": 3.0, "new": 1.1, "lost": 1.0, "void": np.nan}]
    variant += [{"x": 2.8, "same": 3.0, "new": 1.0, "lost": np.nan, "void": np.nan}]
    moves = scalar_moves(reference, variant)
    assert set(moves) == {"x", "same", "new", "lost"}
    assert moves["x"].largest == pytest.approx(0.2)
    assert moves["x"].typical == pytest.approx(math.sqrt((0.05**2 + 0.2**2) / 2))  # the deviation is 1
    assert moves["same"] == Move(0.0, 0.0)
    assert moves["new"] == moves["lost"] == Move(math.inf, math.inf)


def test_the_typical_move_does_not_grow_with_the_number_of_videos() -> None:
    reference = [{"count": float(k % 5)} for k in range(5)]
    variant = [{"count": float(k % 5 + (k == 0))} for k in range(5)]
    few, many = scalar_moves(reference, variant)["count"], scalar_moves(20 * reference, 20 * variant)["count"]
    assert many.typical == pytest.approx(few.typical)
    assert few.typical == pytest.approx(math.sqrt(1 / 5) / math.sqrt(2))


def test_the_limits_are_those_of_the_specification() -> None:
    bounds = {key: [(limit.metric, limit.at_least, limit.bound) for limit in limits] for key, limits in LIMITS.items()}
    assert bounds["embedding", "int8"] == [("cosine_mean", True, 0.99), ("cosine_min", True, 0.97)]
    assert bounds["embedding", "fp16"] == [("cosine_mean", True, 0.999), ("cosine_min", True, 0.995)]
    assert bounds["detector", "int8"] == [("f1", True, 0.96), ("score_error_mean", False, 0.05)]
    assert bounds["classifier", "int8"] == [("top1_agreement", True, 0.97), ("probability_error_max", False, 0.10)]
    assert bounds["flow", "int8"] == [("endpoint_error_mean_px", False, 0.5)]
    assert bounds["depth", "int8"] == [("spearman_mean", True, 0.99)]
    assert {kind for kind, _ in LIMITS} == {"embedding", "detector", "classifier", "flow", "depth"}


def test_a_limit_holds_on_its_bound_and_tightens_towards_perfection() -> None:
    least, most = Limit("a", True, 0.96), Limit("b", False, 0.5)
    assert least.holds(0.96)
    assert not least.holds(0.9599)
    assert most.holds(0.5)
    assert not most.holds(0.5001)
    assert least.tightened(0.5).bound == pytest.approx(0.98)
    assert most.tightened(0.5).bound == 0.25
