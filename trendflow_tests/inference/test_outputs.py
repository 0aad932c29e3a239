"""From log1p growth to counts: the closed form, and what can never be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.outputs import head_outputs, masked_head
from trendflow.inference.plain_names import plain_name

growth = st.floats(0, 25)
counts = st.floats(0, 1e10)


def test_counts_are_the_first_count_and_the_growth() -> None:
    found = head_outputs(np.log1p([50.0, 100.0, 400.0]), 1000.0)
    assert [found[f"delta_{name}"] for name in ("p10", "p50", "p90")] == pytest.approx([50, 100, 400])
    assert [found[f"absolute_{name}"] for name in ("p10", "p50", "p90")] == pytest.approx([1050, 1100, 1400])
    assert [found[name] for name in ("p10", "p50", "p90")] == pytest.approx([1050, 1100, 1400])
    assert found["y_p50"] == pytest.approx(math.log(101))
    assert found["masked"] is False


@given(st.tuples(growth, growth, growth).map(sorted), counts)
def test_quantiles_stay_in_order_and_nothing_falls_below_the_first_count(y: list[float], x0: float) -> None:
    found = head_outputs(np.array(y), x0)
    assert x0 <= found["absolute_p10"] <= found["absolute_p50"] <= found["absolute_p90"]
    assert 0 <= found["delta_p10"] <= found["delta_p50"] <= found["delta_p90"]


def test_an_unknown_first_count_masks_the_head() -> None:
    found = head_outputs(np.zeros(3), math.nan)
    assert found == masked_head()
    assert found.pop("masked") is True
    assert set(found.values()) == {None}


@pytest.mark.parametrize("y", [[1.0, 0.5, 2.0], [-0.1, 0.5, 2.0], [0.1, 0.5, math.nan], [0.1, 0.5, 1e6]])
def test_a_model_out_of_order_or_range_is_refused(y: list[float]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        head_outputs(np.array(y), 1.0)
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        ("views_0", "Views at the first snapshot"),
        ("cut_detection__cuts_per_minute__value", "Cut detection: cuts per minute"),
        ("core_face_landmarks__face_area__p90", "Face landmarks: face area, 90th percentile"),
        ("loudness_extractor__loudness_integrated_lufs__value", "Loudness: integrated (LUFS)"),
        ("text_processor__tp_lex_title_len_words__value", "Text: title length words"),
        ("core_clip__embedding_mean[17]", "Picture (CLIP): element 17 of its embedding"),
    ],
)
def test_features_have_names_for_people(feature: str, name: str) -> None:
    assert plain_name(feature) == name
