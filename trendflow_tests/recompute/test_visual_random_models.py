"""Depth and places of a stored run's frames with models of RANDOM weights, computed again from what these models say.

The weights of the real models are not shipped. Nothing measured here means anything; everything behind the model is
the component's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream, VideoInfo
from trendflow.components.visual import core_depth_midas, scene_classification
from trendflow.models.batching import BatchRunner
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.visual.small_models import place_model, random_midas
from trendflow_tests.recompute.compare import duration_s
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun
from trendflow_tests.recompute.written_rules import centre_crop, coloured, outputs, session

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

Arrays = dict[str, np.ndarray]
STEP = 3
"""Of so many frames of core_clip one is measured."""


@pytest.fixture(scope="module")
def depth(finished: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, np.ndarray]:
    """The artifact, and the raw maps float64 `[N, 256, 256]`."""
    folder = tmp_path_factory.mktemp("depth")
    handle = random_midas(folder)
    stored = _run(core_depth_midas, finished, "depth", handle)
    model, facts = session(folder / f"{handle.entry.name}.onnx"), dict(handle.entry.preprocessing)
    assert facts["interpolation"] == "bicubic_unclipped"
    size = facts["width"], facts["height"]
    raw = []
    for frame in finished.frames(stored["frame_indices"]):
        scaled = cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        raw.append(next(iter(outputs(model, coloured(scaled[None], facts)).values()))[0])
    return stored, np.stack(raw).astype(np.float64)


def test_depth_rows(depth: tuple[Arrays, np.ndarray]) -> None:
    stored, maps = depth
    for i, z in enumerate(maps):
        low, high = np.percentile(z, [5, 95])
        d = np.clip((z - low) / (high - low), 0, 1)
        down, across = np.gradient(d)
        separation = max(_between(d, k / 128) for k in range(1, 128)) / d.var()
        third = len(d) // 3
        expected = {
            "depth_mean": z.mean(),
            "depth_std": z.std(),
            "depth_range_robust": high - low,
            "depth_complexity_score": np.hypot(down, across).mean(),
            "foreground_background_separation_proxy": separation,
            "foreground_area_frac": np.mean(d > 0.5),
            "near_bottom_bias": d[-third:].mean() - d[:third].mean(),
        }
        for name, value in expected.items():
            assert stored[name][i] == pytest.approx(value, rel=1e-4, abs=1e-5), f"{name} of row {i}"


def test_depth_scalars(depth: tuple[Arrays, np.ndarray]) -> None:
    stored, maps = depth
    scalars = _scalars(stored)
    for name in ("depth_complexity_score", "foreground_area_frac", "near_bottom_bias"):
        assert scalars[f"{name}_mean"] == pytest.approx(stored[name].astype(float).mean(), rel=1e-5)
        assert scalars[f"{name}_std"] == pytest.approx(stored[name].astype(float).std(), rel=1e-4)
    assert scalars["flat_frame_ratio"] == 0
    low, high = np.percentile(maps, [5, 95], axis=(1, 2), keepdims=True)
    small = [cv2.resize(d, (48, 48), interpolation=cv2.INTER_AREA) for d in np.clip((maps - low) / (high - low), 0, 1)]
    changes = [np.abs(after - before).mean() for before, after in pairwise(small)]
    assert scalars["depth_change_mean"] == pytest.approx(np.mean(changes), rel=1e-4)


@pytest.fixture(scope="module")
def places(finished: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, np.ndarray, ModelHandle]:
    """The artifact, the class probabilities float64 `[N, 365]`, and the model."""
    folder = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(5)
    handle = place_model(folder, 0.03 * rng.normal(size=(3, 365)), rng.normal(size=365), name="random_weights_places")
    stored = _run(scene_classification, finished, "scene_classifier", handle)
    facts = dict(handle.entry.preprocessing)
    assert facts["interpolation"] == "bilinear_antialiased"
    frames = finished.frames(stored["frame_indices"])
    crops = np.stack([centre_crop(frame, facts, Image.Resampling.BILINEAR) for frame in frames])
    (logits,) = outputs(session(folder / f"{handle.entry.name}.onnx"), coloured(crops, facts)).values()
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return stored, raised / raised.sum(axis=1, keepdims=True), handle


def test_places_of_frames(places: tuple[Arrays, np.ndarray, ModelHandle]) -> None:
    stored, probs, handle = places
    ranked = np.sort(probs, axis=1)[:, ::-1]
    entropy = -(probs * np.log(probs)).sum(axis=1) / np.log(365)
    members = handle.entry.class_groups
    names = list(handle.entry.class_names)
    groups = {group: probs[:, [names.index(name) for name in members[group]]].sum(axis=1) for group in members}
    indoor, natural, manmade = (
        sum(share for group, share in groups.items() if group.startswith(kind))
        for kind in ("indoor_", "natural_", "manmade_")
    )
    expected = {
        "frame_topk_probs": ranked[:, :5],
        "frame_top1_prob": ranked[:, 0],
        "frame_top1_top2_gap": ranked[:, 0] - ranked[:, 1],
        "frame_entropy": entropy,
        "scene_io_probs": np.stack([indoor, natural, manmade], axis=1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(stored[name], values, atol=1e-4, err_msg=name)
    scalars = _scalars(stored)
    for group, share in groups.items():
        assert scalars[f"group_prob_mean__{group}"] == pytest.approx(share.mean(), abs=1e-4)
    assert scalars["io_prob_mean__indoor"] == pytest.approx(np.mean(indoor), abs=1e-4)
    assert scalars["entropy_mean"] == pytest.approx(entropy.mean(), abs=1e-4)
    assert scalars["high_confidence_ratio"] == np.float32(np.mean(ranked[:, 0] >= 0.5))


def test_scenes(finished: StoredRun, places: tuple[Arrays, np.ndarray, ModelHandle]) -> None:
    stored, probs, _ = places
    cuts = finished.arrays("cut_detection")
    shots = cuts["union_shot_ids"][stored["frame_indices"]]
    scenes = [np.flatnonzero(shots == shot) for shot in np.unique(shots)]
    starts = cuts["shot_start_time_s"]

    def length(scene: np.ndarray) -> float:
        last = shots[scene[-1]]
        return float(cuts["shot_end_time_s"][last] - starts[shots[scene[0]]])

    assert len(scenes) == len(starts)  # every shot has a sample, so scenes begin where their first shot does
    scenes = list(_one_label(scenes, probs))
    while len(scenes) > 1 and min(map(length, scenes)) < 2:
        k = int(np.argmin([length(scene) for scene in scenes]))
        near = [
            _jensen_shannon(probs[scenes[k]], probs[scenes[j]]) if 0 <= j < len(scenes) else 9 for j in (k - 1, k + 1)
        ]
        left = k - 1 if near[0] <= near[1] else k
        joined = np.concatenate(scenes[left : left + 2])
        scenes = list(_one_label([*scenes[:left], joined, *scenes[left + 2 :]], probs))
    assert len(scenes) >= 2
    labels = [_label(probs[scene]) for scene in scenes]
    top = probs.argmax(axis=1)
    expected = {
        "start_time_s": [starts[shots[scene[0]]] for scene in scenes],
        "length_seconds": [length(scene) for scene in scenes],
        "scene_label_id": labels,
        "mean_score": [probs[scene, label].mean() for scene, label in zip(scenes, labels, strict=True)],
        "label_stability": [np.mean(top[scene] == label) for scene, label in zip(scenes, labels, strict=True)],
        "class_entropy_mean": [stored["frame_entropy"][scene].mean() for scene in scenes],
        "scene_change_score": [np.nan, *(_jensen_shannon(probs[a], probs[b]) for a, b in pairwise(scenes))],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(stored[name], values, atol=1e-4, err_msg=name)
    scalars = _scalars(stored)
    assert scalars["scene_count_per_min"] == pytest.approx(60 * len(scenes) / duration_s(finished))
    assert scalars["scene_length_median_s"] == pytest.approx(np.median(expected["length_seconds"]))
    assert scalars["label_stability_mean"] == pytest.approx(np.mean(expected["label_stability"]))
    assert scalars["scene_change_mean"] == pytest.approx(np.mean(expected["scene_change_score"][1:]), abs=1e-4)


def _run(module: ModuleType, finished: StoredRun, role: str, handle: ModelHandle) -> Arrays:
    """What a component stores for some frames of core_clip."""
    names = ("segmenter", "core_clip", "cut_detection")
    clip = finished.arrays("core_clip")
    height, width = finished.frames(clip["frame_indices"][:1]).shape[1:3]
    inputs = ComponentInputs(
        video=VideoInfo(duration_s(finished), width, height, 30.0, 30.0),
        upstream={name: Upstream(name, "ok", None, finished.arrays(name), finished.meta(name)) for name in names},
        samples=FrameSamples(clip["frame_indices"][::STEP], clip["times_s"][::STEP], _Frames(finished)),
        models={role: handle},
        params={name: param.default for name, param in module.SPEC.params.items()},
        runner=BatchRunner(batch_size=1),
    )
    return dict(module.run(inputs).arrays)


class _Frames:
    def __init__(self, finished: StoredRun) -> None:
        self._finished = finished

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self._finished.frames(union_indices)


def _scalars(stored: Arrays) -> dict[str, float]:
    return dict(zip(stored["feature_names"].tolist(), stored["feature_values"].tolist(), strict=True))


def _between(d: np.ndarray, limit: float) -> float:
    below = d < limit
    share = below.mean()
    return 0.0 if share in (0, 1) else float(share * (1 - share) * (d[~below].mean() - d[below].mean()) ** 2)


def _label(probs: np.ndarray) -> int:
    votes = np.bincount(probs.argmax(axis=1), minlength=probs.shape[1])
    return int(max(np.flatnonzero(votes == votes.max()), key=lambda k: probs[:, k].mean()))


def _one_label(scenes: list[np.ndarray], probs: np.ndarray) -> Iterator[np.ndarray]:
    """Neighbours of one label joined."""
    held = scenes[0]
    for scene in scenes[1:]:
        if _label(probs[held]) == _label(probs[scene]):
            held = np.concatenate([held, scene])
        else:
            yield held
            held = scene
    yield held


def _jensen_shannon(a: np.ndarray, b: np.ndarray) -> float:
    p, q = a.mean(axis=0), b.mean(axis=0)
    m = (p + q) / 2
    return float(np.sqrt(((p * np.log2(p / m)).sum() + (q * np.log2(q / m)).sum()) / 2))
