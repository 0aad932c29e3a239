"""Assigned frames meet the rows of their providers exactly, or not at all."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from trendflow.components.visual import story_structure, uniqueness, video_pacing
from trendflow.components.visual._own_rows import assigned_frames, per_second, provider_rows, unit_embeddings
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.structure.scripted import Script, even, random_units

COMPONENTS = [uniqueness, video_pacing, story_structure]
SCRIPT = Script(even(40, 0.5), random_units(40, 16), every=3)


def code_of(component: ModuleType, script: Script, provider: str, **arrays: np.ndarray) -> str:
    """Error code of a run in which `arrays` replace those of a provider."""
    inputs = script.inputs(component)
    there = inputs.upstream[provider]
    changed = replace(there, arrays={**there.arrays, **arrays})
    with pytest.raises(TrendFlowError) as caught:
        component.run(replace(inputs, upstream={**inputs.upstream, provider: changed}))
    return caught.value.error_code


def test_frames_come_from_the_segmenter_and_their_rows_from_the_provider() -> None:
    """A provider that measured every second frame of a union of 40."""
    upstream = SCRIPT.upstream()
    frames = assigned_frames(SCRIPT.inputs(uniqueness), "uniqueness")
    assert frames.frame_indices.tolist() == list(range(0, 40, 3))
    np.testing.assert_array_equal(frames.times_s, np.arange(0, 40, 3) * 0.5)
    np.testing.assert_array_equal(provider_rows(frames, upstream["core_clip"]), np.arange(0, 40, 3))
    sparse = Script(even(40, 0.5), random_units(40), every=6)
    odd = {key: upstream["core_clip"].arrays[key][::2] for key in ("frame_indices", "times_s", "frame_embeddings")}
    rows = provider_rows(
        assigned_frames(sparse.inputs(uniqueness), "uniqueness"), replace(upstream["core_clip"], arrays=odd)
    )
    np.testing.assert_array_equal(rows, np.arange(0, 20, 3))


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("dropped", [0, 18, 39])
def test_a_frame_the_provider_lacks_is_an_error(component: ModuleType, dropped: int) -> None:
    clip = SCRIPT.upstream()["core_clip"].arrays
    kept = np.arange(40) != dropped
    assert (
        code_of(component, SCRIPT, "core_clip", **{key: clip[key][kept] for key in clip})
        == "artifact_validation_failed"
    )


@pytest.mark.parametrize("provider", ["core_optical_flow", "core_face_landmarks"])
def test_a_story_needs_every_frame_of_every_provider(provider: str) -> None:
    arrays = SCRIPT.upstream()[provider].arrays
    found = code_of(story_structure, SCRIPT, provider, **{key: arrays[key][:-1] for key in arrays})
    assert found == "artifact_validation_failed"


@pytest.mark.parametrize("component", COMPONENTS)
def test_other_times_for_the_same_frames_are_an_error(component: ModuleType) -> None:
    times_s = SCRIPT.times_s + np.where(np.arange(40) == 3, 0.01, 0.0)
    assert code_of(component, SCRIPT, "core_clip", times_s=times_s) == "artifact_validation_failed"


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("factor", [0.0, 0.99, 1.01, np.nan, np.inf])
def test_vectors_not_of_unit_length_are_an_error(component: ModuleType, factor: float) -> None:
    vectors = SCRIPT.vectors.astype(np.float32)
    vectors[3] *= np.float32(factor)
    assert code_of(component, SCRIPT, "core_clip", frame_embeddings=vectors) == "artifact_validation_failed"


def test_the_rounding_of_a_provider_is_no_change() -> None:
    """Equal float32 rows have cosine 1 to double precision."""
    vectors = np.repeat(random_units(1, 1280), 40, axis=0).astype(np.float32)
    frames = assigned_frames(SCRIPT.inputs(uniqueness), "uniqueness")
    exact = unit_embeddings(
        frames,
        replace(
            SCRIPT.upstream()["core_clip"],
            arrays={**SCRIPT.upstream()["core_clip"].arrays, "frame_embeddings": vectors},
        ),
    )
    np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, atol=1e-15)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_hard_dependency_is_needed(component: ModuleType) -> None:
    inputs = SCRIPT.inputs(component)
    # What looks at pictures gets its frames from the wrapper, the others read them in the segmenter's artifact.
    needed = [name for name in component.SPEC.hard if name != "segmenter" or component is not video_pacing]
    for name in needed:
        with pytest.raises(TrendFlowError, match=name) as caught:
            component.run(replace(inputs, upstream={k: v for k, v in inputs.upstream.items() if k != name}))
        assert (caught.value.error_code, caught.value.detail) == ("dependency_missing", {"kind": "artifact"})


@pytest.mark.parametrize("component", [uniqueness, story_structure])
@pytest.mark.parametrize("names", [("video_pacing",), ()])
def test_a_component_without_assigned_frames_does_not_run(component: ModuleType, names: tuple[str, ...]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        component.run(replace(SCRIPT, names=names).inputs(component))
    assert (caught.value.error_code, caught.value.detail) == ("dependency_missing", {"kind": "frame_indices"})


@pytest.mark.parametrize("part", ["samples", "dense"])
def test_pacing_needs_frames_and_dense_signals(part: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        video_pacing.run(SCRIPT.inputs(video_pacing, **{part: None}))
    assert caught.value.error_code == "dependency_missing"


def test_rates_use_the_time_between_two_samples() -> None:
    rates = per_second(np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.5, 0.75, 2.75]))
    np.testing.assert_allclose(rates, [np.nan, 2.0, 4.0, 1.5])
