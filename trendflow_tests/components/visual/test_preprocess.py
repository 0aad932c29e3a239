"""Input tensors against closed forms: ramps stay ramps, colours follow the entry, points travel back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.visual._preprocess import FramePreprocessing, resize
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry

COLOR = {"color_order": "RGB", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
LETTERBOX = {
    **COLOR,
    "geometry": "letterbox",
    "interpolation": "bilinear",
    "pad_value": 114,
    "width": 416,
    "height": 416,
}


DETECTOR = Catalogue.load()["nanodet_m_416"]


def entry(**preprocessing: Any) -> CatalogueEntry:
    return DETECTOR.model_copy(update={"preprocessing": preprocessing})


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows with x, green with y, blue is 40."""
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_keeps_a_ramp(interpolation: str) -> None:
    small = resize(ramp(512, 300), (256, 150), interpolation)
    assert small.shape == (150, 256, 3)
    expected = (np.arange(256) + 0.5) / 256 * 255
    np.testing.assert_allclose(small[75, :, 0], expected, atol=2)


def test_shrinking_with_bicubic_does_not_alias() -> None:
    stripes = np.zeros((64, 512, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = resize(stripes, (128, 16), "bicubic")[:, 4:-4]
    np.testing.assert_allclose(inner, 127, atol=3)


def test_letterbox_keeps_the_aspect_and_fills_with_grey() -> None:
    tensor, placement = FramePreprocessing.of(entry(**LETTERBOX))(ramp(568, 320)[None])
    assert tensor.shape == (1, 3, 416, 416)
    inner = round(320 * 416 / 568)
    top = (416 - inner) // 2
    assert (tensor[0, :, :top] == 114).all()
    assert (tensor[0, :, top + inner :] == 114).all()
    np.testing.assert_allclose(tensor[0, 2, top : top + inner], 40, atol=0.5)
    assert placement.offset == (0.0, float(top))


def test_mirrored_frames_give_mirrored_tensors() -> None:
    preprocess = FramePreprocessing.of(entry(**{**LETTERBOX, "width": 256, "height": 416}))
    frame = np.random.default_rng(0).integers(0, 256, (1, 120, 200, 3), dtype=np.uint8)
    straight, _ = preprocess(frame)
    mirrored, _ = preprocess(np.ascontiguousarray(frame[:, :, ::-1]))
    np.testing.assert_allclose(mirrored[..., ::-1], straight, atol=1)


@pytest.mark.parametrize(("width", "height"), [(568, 320), (320, 568), (320, 320), (570, 320), (100, 60)])
def test_open_canvas_is_the_smallest_that_fits(width: int, height: int) -> None:
    facts = {k: v for k, v in LETTERBOX.items() if k not in ("width", "height")}
    preprocess = FramePreprocessing.of(entry(**facts, longer_side=640, multiple_of=32))
    tensor, placement = preprocess(ramp(width, height)[None])
    canvas = tensor.shape[3], tensor.shape[2]
    for side, length, scale in zip(canvas, (width, height), placement.scale, strict=True):
        assert side % 32 == 0
        assert 0 <= side - length * scale < 32
    assert max(canvas) == 640


@settings(max_examples=30)
@given(st.integers(33, 700), st.integers(33, 700), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_points_travel_to_the_canvas_and_back(width: int, height: int, point: list[float]) -> None:
    _, placement = FramePreprocessing.of(entry(**LETTERBOX))(np.zeros((1, height, width, 3), np.uint8))
    frame = np.array([point]) * [width, height, width, height]
    canvas = frame * np.tile(placement.scale, 2) + np.tile(placement.offset, 2)
    assert (canvas >= -1e-9).all()
    assert (canvas <= 416 + 1e-9).all()
    np.testing.assert_allclose(placement.to_frame(canvas), frame, atol=1e-6)


def test_colours_follow_the_entry() -> None:
    facts = {"color_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]}
    stretch = {"geometry": "stretch", "interpolation": "bilinear", "width": 4, "height": 4}
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    frame[...] = (10, 20, 30)
    tensor, _ = FramePreprocessing.of(entry(**stretch, **facts))(frame)
    expected = [(30 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395]
    np.testing.assert_allclose(tensor[0, :, 1, 1], expected, rtol=1e-6)


def test_center_crop_takes_the_middle() -> None:
    facts = {**COLOR, "geometry": "shorter_side_center_crop", "interpolation": "bicubic"}
    preprocess = FramePreprocessing.of(entry(**facts, resize_shorter=256, width=224, height=224))
    tensor, placement = preprocess(ramp(512, 256)[None])
    assert tensor.shape == (1, 3, 224, 224)
    # Columns 144…367 of 512 and rows 16…239 of 256 remain.
    np.testing.assert_allclose(tensor[0, 0, 0, [0, -1]], np.array([144, 367]) / 511 * 255, atol=1)
    np.testing.assert_allclose(tensor[0, 1, [0, -1], 0], np.array([16, 239]) / 255 * 255, atol=1)
    assert placement.to_frame(np.array([112.0, 112.0])).tolist() == [256.0, 128.0]


@pytest.mark.parametrize(
    "broken",
    [
        {"geometry": "squash"},
        {"interpolation": "nearest"},
        {"color_order": "GRB"},
        {"mean": [0.0]},
        {"std": [1.0, 0.0, 1.0]},
        {"width": None},
        {"pad_value": 300},
    ],
)
def test_senseless_facts_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        FramePreprocessing.of(entry(**{**LETTERBOX, **broken}))
    assert caught.value.error_code == "model_spec_invalid"


@pytest.mark.parametrize("missing", sorted(LETTERBOX))
def test_missing_facts_are_refused(missing: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        FramePreprocessing.of(entry(**{name: value for name, value in LETTERBOX.items() if name != missing}))
    assert caught.value.error_code == "model_spec_invalid"
    assert missing in caught.value.message


def clip_entry() -> CatalogueEntry:
    return Catalogue.load()["clip_vit_b32_image"]


def test_a_model_that_takes_pixels_gets_pixels() -> None:
    images, placement = FramePreprocessing.of(clip_entry())(ramp(448, 224)[None])
    assert (images.dtype, images.shape) == (np.uint8, (1, 224, 224, 3))
    # The picture is as high as the model wants it, so the middle is taken as it is.
    np.testing.assert_array_equal(images[0], ramp(448, 224)[:, 112:336])
    assert placement.offset == (-112.0, 0.0)


@pytest.mark.parametrize("change", [{"layout": "NCHW"}, {"color_order": "BGR"}])
def test_pixels_in_another_order_are_refused(change: dict[str, str]) -> None:
    entry = clip_entry()
    tensor = entry.inputs[0].model_copy(update={"layout": change.get("layout", "NHWC")})
    facts = {**entry.preprocessing, "color_order": change.get("color_order", "RGB")}
    with pytest.raises(TrendFlowError) as caught:
        FramePreprocessing.of(entry.model_copy(update={"inputs": (tensor,), "preprocessing": facts}))
    assert caught.value.error_code == "model_spec_invalid"


# Among them sizes whose ratio in floating point ends just below a whole number of pixels: 340, 360 and 660.
@pytest.mark.parametrize(
    ("width", "height"), [(568, 320), (320, 568), (320, 320), (340, 320), (320, 660), (360, 320), (224, 300)]
)
def test_clip_pixels_are_those_of_transformers(width: int, height: int) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    frames = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    ours, _ = FramePreprocessing.of(clip_entry())(frames)
    processor = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    theirs = np.stack([np.asarray(image) for image in processor(list(frames)).pixel_values]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=1)


@pytest.mark.parametrize(("width", "offset"), [(340, 7), (336, 6), (333, 4), (338, 6)])
def test_a_margin_of_half_a_pixel_goes_where_torchvision_puts_it(width: int, offset: int) -> None:
    """The longer side is ⌊224 · width / 320⌋ and the margin half of what is left, rounded to even."""
    _, placement = FramePreprocessing.of(clip_entry())(np.zeros((1, 320, width, 3), np.uint8))
    assert placement.scale == (224 * width // 320 / width, 224 / 320)
    assert placement.offset == (-offset, 0)
