"""Image embeddings with the shipped encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from trendflow.components.visual import core_clip
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.vectors import unit_rows
from trendflow_tests.components.visual.clips import (
    ArrayReader,
    Bench,
    Clip,
    Respecified,
    assert_same,
    clip_of,
    decode,
    features,
)


@pytest.fixture(scope="module")
def embedded(bench: Bench, hello: Clip) -> Artifact:
    return bench.run(core_clip, hello)


def test_rows_are_unit_vectors_of_the_entrys_width(bench: Bench, hello: Clip, embedded: Artifact) -> None:
    embeddings = embedded.arrays["frame_embeddings"]
    assert embeddings.shape == (len(hello), bench.models["image_encoder"].entry.embedding_dim)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)


def test_cosines_are_dot_products(embedded: Artifact) -> None:
    embeddings, cosine = embedded.arrays["frame_embeddings"], embedded.arrays["consecutive_cosine_prev"]
    assert np.isnan(cosine[0])
    for i in range(1, len(cosine)):
        assert cosine[i] == pytest.approx(float(np.dot(embeddings[i], embeddings[i - 1])), abs=1e-5)


def test_equal_frames_have_cosine_one_and_no_dispersion(bench: Bench, hello: Clip) -> None:
    still = bench.run(core_clip, clip_of(np.repeat(hello.frames[:1], 4, axis=0)))
    assert still.arrays["consecutive_cosine_prev"][1:].tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert features(still)["embedding_dispersion"] == pytest.approx(0, abs=1e-6)
    assert features(still)["pair_dt_median_s"] == 0.25


def test_repeating_a_frame_changes_no_other_row(bench: Bench, hello: Clip) -> None:
    short = bench.run(core_clip, hello.take(slice(0, 5)))
    repeated = bench.run(core_clip, clip_of(hello.frames[[0, 1, 1, 2, 3, 4]]))
    rows = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(
        repeated.arrays["frame_embeddings"][rows], short.arrays["frame_embeddings"], rtol=1e-4, atol=1e-6
    )


@dataclass(frozen=True)
class Cramped(Respecified):
    """An encoder whose device has memory for two frames."""

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["images"]) > 2:
            raise TrendFlowError("out_of_memory", "The allocation failed.")
        return super().infer(inputs)


def test_scarce_memory_makes_smaller_batches_of_all_frames(bench: Bench, hello: Clip, embedded: Artifact) -> None:
    encoder = Cramped.of(bench.models["image_encoder"])
    assert_same(embedded, bench.run(core_clip, hello, models={"image_encoder": encoder}))


def test_cuts_change_the_embedding_most(bench: Bench, data_dir: Path) -> None:
    """The film has hard cuts at 11.875, 15.75 and 23.042 s."""
    film = decode(data_dir / "video" / "big_buck_bunny_480p_30s.mp4", 0.5)
    cosine = bench.run(core_clip, film).arrays["consecutive_cosine_prev"]
    at_cuts = [int(np.searchsorted(film.times_s, cut)) for cut in (11.875, 15.75, 23.042)]
    elsewhere = np.setdiff1d(np.arange(1, len(film)), at_cuts)
    assert cosine[at_cuts].max() < np.quantile(cosine[elsewhere], 0.1)


def test_each_frame_is_read_once(bench: Bench, hello: Clip) -> None:
    inputs = bench.inputs(core_clip, hello, batch_size=4)
    core_clip.run(inputs)
    assert inputs.samples is not None
    assert isinstance(inputs.samples.reader, ArrayReader)
    assert inputs.samples.reader.reads == list(range(len(hello)))


def test_extreme_frames_are_embedded_like_any_other(bench: Bench, extreme: Clip) -> None:
    artifact = bench.run(core_clip, extreme)
    assert artifact.status == "ok"
    assert np.isnan(features(artifact)["pair_dt_median_s"]) == (len(extreme) == 1)


def test_without_prompts_their_features_are_nan_with_a_reason(embedded: Artifact) -> None:
    absent = embedded.meta["absent_features"]
    values = features(embedded)
    prompt_values = {name: value for name, value in values.items() if name.startswith(tuple(absent))}
    assert len(prompt_values) == 21  # 16 classes and 5 entropies
    assert np.isnan(list(prompt_values.values())).all()
    assert set(absent.values()) == {"role prompt_encoder is not mapped"}
    assert not any(name.endswith("_probs") for name in embedded.arrays)


def test_a_model_that_embeds_no_text_is_no_prompt_encoder(bench: Bench, hello: Clip) -> None:
    with pytest.raises(TrendFlowError) as caught:
        bench.run(core_clip, hello, models={"prompt_encoder": bench.models["image_encoder"]})
    assert caught.value.error_code == "model_spec_invalid"


def test_another_width_than_the_entry_states_is_refused(bench: Bench, hello: Clip) -> None:
    encoder = Respecified.of(bench.models["image_encoder"], embedding_dim=512)
    with pytest.raises(TrendFlowError) as caught:
        bench.run(core_clip, hello, models={"image_encoder": encoder})
    assert caught.value.error_code == "model_spec_invalid"


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_vectors_without_a_direction_are_refused(bad: float) -> None:
    with pytest.raises(TrendFlowError) as caught:
        unit_rows(np.array([[1.0, 2.0], [bad, bad]]), "test")
    assert caught.value.error_code == "artifact_validation_failed"


def test_an_unmapped_encoder_is_named(bench: Bench, hello: Clip) -> None:
    inputs = bench.inputs(core_clip, hello)
    with pytest.raises(TrendFlowError) as caught:
        core_clip.run(type(inputs)(video=inputs.video, upstream={}, samples=inputs.samples))
    assert caught.value.error_code == "dependency_missing"
    assert caught.value.detail == {"kind": "model", "role": "image_encoder"}
