"""Depth measures on maps that are known, and the component on models without trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import helper
from PIL import Image

from trendflow.components.visual import _depth_maps as maps
from trendflow.components.visual import core_depth_midas
from trendflow.components.visual._depth_model import DepthModel
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.visual.clips import Bench, Clip, Respecified, clip_of, features, flat_clip
from trendflow_tests.components.visual.small_models import (
    brightness_as_depth,
    loaded,
    random_depth,
    random_midas,
)
from trendflow_tests.models.builders import UNLICENSED, entry_for, onnx_bytes

MEASURES = core_depth_midas.MEASURED_ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("depth")


@pytest.fixture(scope="module")
def random_model(folder: Path) -> ModelHandle:
    return random_depth(folder)


@pytest.fixture(scope="module")
def brightness(folder: Path) -> ModelHandle:
    return brightness_as_depth(folder)


def run(bench: Bench, clip: Clip, model: ModelHandle, **arguments: Any) -> Artifact:
    return bench.run(core_depth_midas, clip, models={"depth": model}, **arguments)


def grey_clip(*planes: np.ndarray) -> Clip:
    return clip_of(np.stack([np.repeat(plane.astype(np.uint8)[..., None], 3, axis=2) for plane in planes]))


def otsu_by_force(d: np.ndarray) -> float:
    """Every threshold at an edge of 128 bins, class by class."""
    best = 0.0
    for edge in np.arange(1, 128) / 128:
        low, high = d[d < edge], d[d >= edge]
        if low.size and high.size:
            share = low.size / d.size
            best = max(best, share * (1 - share) * (low.mean() - high.mean()) ** 2)
    return float(best / d.var())


@pytest.mark.parametrize("seed", range(4))
def test_separation_is_the_best_of_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near, far = rng.normal(0.75, 0.08, 900), rng.normal(0.3, 0.05 + 0.1 * seed, 1600)
    d = np.clip(rng.permutation(np.concatenate([near, far])), 0, 1).reshape(50, 50)
    assert maps.separation(d) == pytest.approx(otsu_by_force(d), rel=1e-9)


def test_separation_agrees_with_the_threshold_of_opencv() -> None:
    """On 256 grey levels, pooled in pairs, OpenCV's Otsu threshold splits the same pixels."""
    rng = np.random.default_rng(9)
    levels = np.clip(np.concatenate([rng.normal(60, 12, 3000), rng.normal(180, 20, 2000)]), 0, 255)
    picture = (levels.astype(np.uint8) // 2 * 2).reshape(50, 100)
    threshold, _ = cv2.threshold(picture, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    low, high = picture[picture <= threshold].astype(float), picture[picture > threshold].astype(float)
    share = low.size / picture.size
    expected = share * (1 - share) * (low.mean() - high.mean()) ** 2 / picture.astype(float).var()
    assert maps.separation(picture / 256) == pytest.approx(expected, rel=1e-6)


def test_separation_of_two_planes_is_one_and_of_a_slope_three_quarters() -> None:
    assert maps.separation(np.repeat([0.0, 1.0], 50).reshape(10, 10)) == pytest.approx(1)
    # A uniform distribution split in the middle: 4 · (1/4)² · 1/4 over 1/12.
    assert maps.separation(np.linspace(0, 1, 128 * 50).reshape(80, 80)) == pytest.approx(0.75, abs=1e-3)
    assert np.isnan(maps.separation(np.full((10, 10), 0.4)))


def test_complexity_of_a_slope_is_its_gradient() -> None:
    across = np.tile(np.linspace(0, 1, 41), (30, 1))
    assert maps.complexity(across) == pytest.approx(1 / 40)
    assert maps.complexity(across + np.linspace(0, 1, 30)[:, None]) == pytest.approx(np.hypot(1 / 40, 1 / 29))


def test_thirds_and_foreground_of_known_maps() -> None:
    d = np.zeros((90, 60))
    d[60:] = 1
    assert maps.near_bottom_bias(d) == 1
    assert maps.near_bottom_bias(d[::-1]) == -1
    assert maps.foreground_share(d) == pytest.approx(1 / 3)
    assert maps.foreground_share(np.full((4, 4), 0.5)) == 0


def test_measures_ignore_scale_and_shift(bench: Bench, hello: Clip, folder: Path, random_model: ModelHandle) -> None:
    clip = hello.take(slice(0, 6))
    moved = random_depth(folder, scale=37.5, shift=-4.0)
    first, second = run(bench, clip, random_model), run(bench, clip, moved)
    for name in (*MEASURES, "feature_values", "depth_maps_lowres"):
        np.testing.assert_allclose(second.arrays[name], first.arrays[name], rtol=2e-3, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(
        second.arrays["depth_range_robust"], 37.5 * first.arrays["depth_range_robust"], rtol=1e-4
    )
    np.testing.assert_allclose(second.arrays["depth_mean"], 37.5 * first.arrays["depth_mean"] - 4, rtol=1e-3)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_picture_is_flat(bench: Bench, brightness: ModelHandle, value: int) -> None:
    artifact = run(bench, flat_clip(value), brightness)
    assert artifact.status == "ok"
    assert artifact.arrays["depth_valid_mask"].tolist() == [False] * 3
    for name in (*MEASURES, *core_depth_midas.RAW_ROWS, "depth_maps_lowres", "preview_depth_maps_norm"):
        assert np.isnan(artifact.arrays[name]).all(), name
    values = features(artifact)
    assert values.pop("flat_frame_ratio") == 1
    assert np.isnan(list(values.values())).all()


def test_turning_a_picture_upside_down_negates_its_bias(bench: Bench, hello: Clip, brightness: ModelHandle) -> None:
    clip = hello.take(slice(0, 4))
    flipped = Clip(np.ascontiguousarray(clip.frames[:, ::-1]), clip.times_s)
    up, down = run(bench, clip, brightness), run(bench, flipped, brightness)
    np.testing.assert_allclose(down.arrays["near_bottom_bias"], -up.arrays["near_bottom_bias"], atol=0.01)
    assert np.abs(up.arrays["near_bottom_bias"]).min() > 0.02
    np.testing.assert_allclose(down.arrays["foreground_area_frac"], up.arrays["foreground_area_frac"], atol=0.01)


def test_known_pictures_give_known_rows(bench: Bench, brightness: ModelHandle) -> None:
    """The brightness is the depth: a bright floor is near, and a change of half the picture is half a change."""
    floor = np.zeros((96, 96))
    floor[48:] = 200
    wall = np.zeros((96, 96))
    wall[:, :48] = 100
    artifact = run(bench, grey_clip(floor, wall, np.full((96, 96), 90), wall), brightness)
    arrays, values = artifact.arrays, features(artifact)
    assert arrays["depth_valid_mask"].tolist() == [True, True, False, True]
    np.testing.assert_allclose(arrays["near_bottom_bias"], [1, 0, np.nan, 0], atol=0.01)
    np.testing.assert_allclose(arrays["foreground_area_frac"], [0.5, 0.5, np.nan, 0.5], atol=0.02)
    assert arrays["foreground_background_separation_proxy"][[0, 1, 3]].min() > 0.97
    np.testing.assert_allclose(arrays["depth_p95"], [200 / 255, 100 / 255, np.nan, 100 / 255], atol=0.01)
    assert values["flat_frame_ratio"] == 0.25
    # Only the first pair has two maps; they differ in two of four quarters.
    assert values["depth_change_mean"] == pytest.approx(0.5, abs=0.02)
    assert values["near_bottom_bias_mean"] == pytest.approx(1 / 3, abs=0.01)
    assert values["near_bottom_bias_std"] == pytest.approx(np.std([1, 0, 0]), abs=0.01)


def test_small_maps_are_area_averages(bench: Bench, folder: Path) -> None:
    rng = np.random.default_rng(5)
    model = brightness_as_depth(folder, side=96)
    plane = rng.integers(0, 256, (96, 96))
    artifact = run(bench, grey_clip(plane), model, keep_maps=True)
    d = artifact.arrays["depth_maps_norm"][0].astype(np.float64)
    low, high = np.percentile(plane, (5, 95))
    np.testing.assert_allclose(d, np.clip((plane - low) / (high - low), 0, 1), atol=1e-3)
    np.testing.assert_allclose(
        artifact.arrays["depth_maps_lowres"][0], d.reshape(48, 2, 48, 2).mean(axis=(1, 3)), atol=1e-3
    )
    np.testing.assert_allclose(artifact.arrays["preview_depth_maps_norm"][0], d, atol=1e-3)


def test_previews_are_spread_over_the_clip(bench: Bench, hello: Clip, brightness: ModelHandle) -> None:
    artifact = run(bench, hello, brightness)
    rows = artifact.arrays["preview_frame_indices"]
    assert len(rows) == 10
    assert (rows[0], rows[-1]) == (0, len(hello) - 1)
    assert set(np.diff(rows).tolist()) <= {2, 3}
    np.testing.assert_array_equal(artifact.arrays["preview_times_s"], hello.times_s[rows])
    assert artifact.meta["preview_k"] == 10
    assert "depth_maps_norm" not in artifact.arrays


def refused(bench: Bench, clip: Clip, model: ModelHandle) -> str:
    with pytest.raises(TrendFlowError) as caught:
        run(bench, clip, model)
    return caught.value.error_code


def test_an_entry_that_is_no_relative_depth_model_is_refused(
    bench: Bench, hello: Clip, random_model: ModelHandle
) -> None:
    clip = hello.take(slice(0, 1))
    facts = random_model.entry.preprocessing
    for change in (
        {"postprocessing": {"quantity": "metres"}},
        {"postprocessing": {}},
        {"preprocessing": {**facts, "geometry": "letterbox"}},
        {"preprocessing": {**facts, "interpolation": "nearest"}},
        {"outputs": random_model.entry.outputs * 2},
    ):
        assert refused(bench, clip, Respecified.of(random_model, **change)) == "model_spec_invalid"


def test_a_map_of_another_size_is_refused(bench: Bench, hello: Clip, folder: Path) -> None:
    data = onnx_bytes(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)], ("B", 3, 48, 48), ("B", 48)
    )
    entry = entry_for(
        data,
        name="rows_not_maps",
        roles=["depth"],
        inputs=[{"name": "x", "dtype": "float32", "shape": ["B", 3, 48, 48], "layout": "NCHW"}],
        outputs=[{"name": "y", "dtype": "float32", "shape": ["B", 48], "layout": "NC"}],
        preprocessing=dict(random_depth(folder).entry.preprocessing),
        postprocessing={"quantity": "relative_inverse_depth"},
        **UNLICENSED,
    )
    assert refused(bench, hello.take(slice(0, 1)), loaded(folder, data, entry)) == "model_spec_invalid"


def test_a_map_that_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(TrendFlowError) as caught:
            maps.RawDepth.of(np.array([[1.0, bad], [2.0, 3.0]]))
        assert caught.value.error_code == "artifact_validation_failed"


def test_the_tensors_of_the_midas_entry_fit_the_component(bench: Bench, hello: Clip, folder: Path) -> None:
    artifact = run(bench, hello.take(slice(0, 3)), random_midas(folder))
    assert artifact.arrays["depth_valid_mask"].all()
    assert {name for name, value in features(artifact).items() if np.isnan(value)} == set()


def test_pictures_reach_midas_as_its_script_prepares_them(random_model: ModelHandle, hello: Clip) -> None:
    """RGB in 0..1, four-tap cubic on floats, nothing subtracted: the graph does that itself."""
    entry = Catalogue.load()["midas_v21_small_256"]
    seen: list[np.ndarray] = []

    class Recording:
        used, device_used = random_model.used, "cpu"

        def __init__(self) -> None:
            self.entry = entry

        def infer(self, inputs: Any) -> dict[str, np.ndarray]:
            seen.append(inputs["0"])
            return {"797": np.zeros((1, 256, 256), np.float32)}

    frame = hello.frames[:1]
    DepthModel(Recording(), StageTimer())(frame)
    expected = cv2.resize(frame[0] / 255.0, (256, 256), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)[None]
    assert seen[0].dtype == np.float32
    np.testing.assert_allclose(seen[0], expected, atol=1e-4)


def test_pictures_reach_dpt_as_its_image_processor_prepares_them(folder: Path, hello: Clip) -> None:
    """Pillow's bicubic stretch to 384 x 384, then (x - .5) / .5."""
    facts = Catalogue.load()["dpt_hybrid_384"]
    assert [tensor.shape for tensor in (*facts.inputs, *facts.outputs)] == [(1, 3, 384, 384), (1, 384, 384)]
    given: list[np.ndarray] = []

    class Recording(Respecified):
        def infer(self, inputs: Any) -> dict[str, np.ndarray]:
            given.append(inputs["x"])
            return super().infer(inputs)

    model = random_depth(folder, side=384, **facts.preprocessing)
    maps_of = DepthModel(Recording.of(model, postprocessing=facts.postprocessing), StageTimer())
    assert maps_of(hello.frames[:2]).shape == (2, 384, 384)
    scaled = np.asarray(Image.fromarray(hello.frames[1]).resize((384, 384), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(given[0][1], ((scaled - 0.5) / 0.5).transpose(2, 0, 1), atol=1e-4)
