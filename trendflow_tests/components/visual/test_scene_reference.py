"""Places with the reference architecture, from checkpoint to probabilities, against the library that defines it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._scene_model import GROUPS, HIERARCHY, SceneModel
from trendflow.models.catalogue import Catalogue
from trendflow.models.interface import ModelHandle
from trendflow.models.recipes import RECIPES
from trendflow_tests.components.visual.clips import Clip
from trendflow_tests.components.visual.small_models import loaded
from trendflow_tests.models.builders import random_entry

torch = pytest.importorskip("torch")
exports = pytest.importorskip("trendflow_tests.models.exports")

CATEGORIES_SHA256 = "2affba635eb657e7ca95f4e6cc69bd9fac29ef4c32aeb83cafdfcd06ec6a1ea6"
INDOOR_OUTDOOR_SHA256 = "49f8c7fbeeb70deb055c040a1807a95b234bbac92902e1b6edfffbdd8411e1f1"


@pytest.fixture(scope="module")
def network_and_handle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ModelHandle]:
    """A narrow ResNet with random weights, and the file the entry's recipe makes of its checkpoint."""
    network, checkpoint = exports.published_checkpoint(365)
    entry = Catalogue.load()["places365_resnet50"]
    data = RECIPES[entry.source.recipe].make(checkpoint)
    return network, loaded(tmp_path_factory.mktemp("random_weights"), data, random_entry(entry, data))


def test_probabilities_equal_those_of_transformers(network_and_handle: tuple[Any, ModelHandle], hello: Clip) -> None:
    network, handle = network_and_handle
    frames = hello.frames[[8, 14, 20]]
    height, width = frames.shape[1:3]
    # The published evaluation, written out: shorter side 256, the central 224, ImageNet's mean and deviation.
    small = [Image.fromarray(frame).resize((256 * width // height, 256), Image.Resampling.BILINEAR) for frame in frames]
    left, top = (small[0].width - 224) // 2, 16
    crops = np.stack([np.asarray(image.crop((left, top, left + 224, top + 224))) for image in small]) / 255
    pixels = (crops - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).logits
    expected = logits.softmax(1).numpy()
    assert np.abs(expected[0] - expected[1:]).max(axis=1).min() > 1e-3  # the network tells the frames apart
    np.testing.assert_allclose(SceneModel(handle, StageTimer())(frames), expected, atol=1e-4)
    np.testing.assert_allclose(handle.infer({"images": images})["logits"], logits.numpy(), atol=1e-4)


def test_class_names_are_the_published_list() -> None:
    """The entry's names, written as the published file writes them, have its digest."""
    names = Catalogue.load()["places365_resnet50"].class_names
    text = "\n".join(f"/{name[0]}/{name} {index}" for index, name in enumerate(names))
    assert hashlib.sha256(text.encode()).hexdigest() == CATEGORIES_SHA256


def test_groups_agree_with_the_published_list_of_indoor_and_outdoor_places() -> None:
    """The published table, derived from the groups, has its digest, but for the one class it has indoors."""
    entry = Catalogue.load()["places365_resnet50"]
    assert list(entry.class_groups) == list(GROUPS)
    indoor = {name for group in HIERARCHY["indoor"] for name in entry.class_groups[group]} | {"swimming_hole"}
    text = "".join(f"/{name[0]}/{name} {1 if name in indoor else 2}\n" for name in entry.class_names)
    assert hashlib.sha256(text.encode()).hexdigest() == INDOOR_OUTDOOR_SHA256
