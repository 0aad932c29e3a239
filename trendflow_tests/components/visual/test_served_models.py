"""The visual core with its models on a Triton server: the artifacts it gives with the models in process."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from trendflow.components.visual import core_clip, core_face_landmarks, core_object_detections
from trendflow.contracts.artifact import Artifact
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool
from trendflow_tests.components.visual.clips import ENTRIES, Bench, Clip, assert_same

pytestmark = pytest.mark.xdist_group("triton")


@pytest.fixture(scope="module")
def remote(served_pool: ModelPool) -> dict[str, ModelHandle]:
    catalogue = Catalogue.load()
    return {
        role: served_pool.get(catalogue[name].on("triton"))
        for role, name in ENTRIES.items()
        if catalogue[name].is_servable
    }


def served(bench: Bench, module: ModuleType, clip: Clip, remote: dict[str, ModelHandle], **more: object) -> Artifact:
    used = {role: remote[role] for role in module.SPEC.roles}
    artifact = bench.run(module, clip, models=used, **more)
    assert {model.runtime for model in artifact.models_used} == {"triton"}
    return artifact


def assert_same_up_to_runtime(there: Artifact, here: Artifact) -> None:
    assert_same(there, here)
    assert [replace(model, runtime="inprocess") for model in there.models_used] == list(here.models_used)
    assert there.device_used == here.device_used
    assert there.warnings == here.warnings


def test_image_embeddings(bench: Bench, hello: Clip, remote: dict[str, ModelHandle]) -> None:
    here = bench.run(core_clip, hello)
    assert here.status == "ok"
    assert_same_up_to_runtime(served(bench, core_clip, hello, remote), here)


def test_object_detections(bench: Bench, hello: Clip, hello_objects: Artifact, remote: dict[str, ModelHandle]) -> None:
    assert hello_objects.status == "ok"
    assert_same_up_to_runtime(served(bench, core_object_detections, hello, remote), hello_objects)


def test_face_landmarks(
    bench: Bench, hello: Clip, hello_objects: Artifact, hello_faces: Artifact, remote: dict[str, ModelHandle]
) -> None:
    """Two models in one component, one of them with pictures of any size."""
    assert np.isfinite(hello_faces.arrays["feature_values"]).any()
    found = served(bench, core_face_landmarks, hello, remote, upstream=hello_objects)
    assert_same_up_to_runtime(found, hello_faces)
