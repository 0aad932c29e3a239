"""No model-facing value is a constant that looks like a feature: over ten diverse clips every one of them varies.

What these clips cannot vary is listed with its reason. The list is exact in both directions: a column that begins to
vary has to leave it.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from trendflow_tests.corpus.measured import Columns, fault

# The clips run in one process; on several workers each would run them again.
pytestmark = pytest.mark.xdist_group("corpus")

EXPECTED = {
    r"core_clip\.(prob|entropy)_mean__.+": "the starter profile maps no prompt encoder",
    r"core_clip\.(shot_quality|scene_\w+)_probs": "the starter profile maps no prompt encoder",
    r"shot_quality\.(prob_mean__|shot_quality_).+": "the starter profile maps no prompt encoder",
    r"shot_quality\.(frame_features|shot_features_mean)\[(depth_complexity_score|foreground_background_\w+)\]": (
        "the starter profile has no depth"
    ),
    r"core_object_detections\.group_frame_ratio__(accessory|appliance|food|indoor|kitchen)": (
        "no clip shows such a thing; the other groups come from the same lines of code"
    ),
    r"cut_detection\.(jump|dissolve)_channel_present": (
        "the starter profile has the embeddings and boxes, and samples of short clips are dense enough"
    ),
    r"segmenter\.thumb_rgb": "kept on request only",
    r"segmenter\.time_base\[0\]": "the numerator of a time base is 1 in practice; it makes pts exact",
}
"""Pattern of columns → why ten short clips and the starter profile cannot vary them."""


def test_every_model_facing_column_varies(columns: Columns) -> None:
    faults = columns.faults()
    unexpected = {
        column: verdict
        for column, verdict in faults.items()
        if not any(re.fullmatch(pattern, column) for pattern in EXPECTED)
    }
    assert unexpected == {}


def test_what_is_excused_still_needs_an_excuse(columns: Columns) -> None:
    names = columns.faults().keys() | set(columns.never_written())
    idle = [pattern for pattern in EXPECTED if not any(re.fullmatch(pattern, name) for name in names)]
    assert idle == []


def test_everything_declared_is_written(columns: Columns) -> None:
    unexpected = [
        name for name in columns.never_written() if not any(re.fullmatch(pattern, name) for pattern in EXPECTED)
    ]
    assert unexpected == []


def test_every_missing_feature_states_its_reason(columns: Columns) -> None:
    assert sorted(columns.unexplained) == []


def _shares_above_their_own_percentile() -> list[float]:
    """Of ten clips of different content and length."""
    rng = np.random.default_rng(0)
    return [float(np.mean(x > np.percentile(x, 75))) for x in (rng.gamma(k, size=44 + 3 * k) for k in range(1, 11))]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(_shares_above_their_own_percentile(), id="share"),
        pytest.param(np.full(10, 0.1) + np.linspace(-1e-3, 1e-3, 10), id="near-uniform probability"),
        pytest.param(np.linalg.norm(np.eye(10, dtype=np.float32) * np.float32(0.99999), axis=1), id="norm"),
        pytest.param(np.zeros(10), id="zero"),
        pytest.param([7.0], id="measured once"),
        pytest.param([], id="never measured"),
    ],
)
def test_what_is_constant_by_construction_is_caught(values: np.ndarray) -> None:
    assert fault(np.asarray(values, dtype=np.float64)) is not None


@pytest.mark.parametrize("values", [[0.0, 0.1], [-23.0, -20.0], [0.9, 1.0], [0.0, 0.0, 0.0, 1.0]])
def test_what_differs_between_clips_is_no_constant(values: list[float]) -> None:
    assert fault(np.array(values)) is None
