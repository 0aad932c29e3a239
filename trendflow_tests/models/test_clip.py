"""The towers of CLIP against transformers: graph, tokenizer, vectors. Random weights, no trained model."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.prompt_bank import PROMPTS
from trendflow.models.catalogue import Catalogue
from trendflow.models.clip_graph import clip_image_tower, clip_text_tower
from trendflow.models.clip_tokenizer import clip_tokenizer
from trendflow.models.interface import PromptEncoder, TextEncoder
from trendflow.models.onnx_graph import serialise
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.pool import ModelPool
from trendflow.models.prompt_encoder import VOCABULARY, PromptEncoderHandle
from trendflow.models.pull import pull_models
from trendflow.models.recipes import RECIPES
from trendflow.models.sources import WeightsFile
from trendflow_tests.models.builders import catalogue_of
from trendflow_tests.models.tiny_clip import (
    CONTEXT,
    HEAD_WIDTH,
    SIDE,
    VOCABULARY_SIZE,
    WIDTH,
    image_tower,
    published_names,
    random_clip,
    text_entry,
    text_tower,
    vocabulary,
)

torch = pytest.importorskip("torch")

TRICKY = [
    "a photo of a cat",
    "It's we'll I'd they're don't 'sup 's",
    "naïve café 3.14 2024!!",
    "Как испечь хлеб дома",
    "日本語のタイトル 🔥🔥",
    "  multiple   spaces\n\ttabs ",
    "AT&T's “quotes” – dash",
    "ÀÉÎ ß İstanbul",
    "a\u0301 combined",
    "\u00a0nbsp\u3000wide",
    "hello...world??! #1 @you",
    "x" * 60,
    "",
]


@pytest.fixture(scope="module")
def reference() -> Any:
    return random_clip()


@pytest.fixture(scope="module")
def weights(reference: Any) -> dict[str, np.ndarray]:
    return published_names(reference)


@pytest.fixture(scope="module")
def tower(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> PromptEncoderHandle:
    return text_tower(tmp_path_factory.mktemp("clip"), weights)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise, a flat picture, and a ramp; uint8 [3, S, S, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 255, SIDE, dtype=np.uint8)[None, :, None], SIDE, axis=0).repeat(3, axis=2)
    return np.stack([noise, np.full_like(noise, 40), ramp])


def pixel_values(images: np.ndarray) -> Any:
    """What transformers' processor makes of pictures that need no scaling."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    return processor(list(images), return_tensors="pt").pixel_values


def unit(vectors: Any) -> np.ndarray:
    tensor = getattr(vectors, "pooler_output", vectors)
    return (tensor / tensor.norm(dim=-1, keepdim=True)).detach().numpy()


def transformers_tokenizer(merges: int) -> Any:
    """transformers' tokenizer with the same merges; its vocabulary is put together here."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(vocabulary(merges)).decode().splitlines()[1:]
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *(line.replace(" ", "") for line in lines)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=ids, merges=[tuple(line.split()) for line in lines])


@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_the_image_graph_is_the_model(
    reference: Any, weights: dict[str, np.ndarray], images: np.ndarray, precision: type
) -> None:
    """The published checkpoint stores float16; it is computed in float32."""
    stored = {name: values.astype(precision) for name, values in weights.items()}
    session = ort.InferenceSession(serialise(clip_image_tower(stored, HEAD_WIDTH)), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    with torch.no_grad():
        expected = reference.get_image_features(pixel_values(images))
    expected = getattr(expected, "pooler_output", expected).numpy()
    limit = 1e-4 if precision is np.float32 else 0.05
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()


def test_the_text_graph_is_the_model(
    reference: Any, weights: dict[str, np.ndarray], tower: PromptEncoderHandle
) -> None:
    texts = list(PROMPTS.sets["shot_quality"].prompts.values())
    ids = tower.tokenize(texts)
    with torch.no_grad():
        expected = unit(reference.get_text_features(input_ids=torch.from_numpy(ids)))
    found = tower.embed_texts(texts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.05


@pytest.mark.parametrize("merges", [300, 48894])
def test_tokens_equal_those_of_transformers(merges: int) -> None:
    size = 512 + merges + 2
    ours, theirs = clip_tokenizer(vocabulary(merges), size), transformers_tokenizer(merges)
    for text in [*TRICKY, *PROMPTS.places[:40]]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert [size - 2, *ids, size - 1] == theirs(text).input_ids, text


def test_published_token_ids() -> None:
    """The start of the tokenizer's documentation: ids of a well-known prompt."""
    entry = Catalogue.load()["clip_vit_b32_text"]
    shipped = (data_path("models") / "weights" / "clip_bpe_vocab_16e6.txt.gz").read_bytes()
    tokenizer = clip_tokenizer(shipped, entry.preprocessing["vocabulary_size"])
    assert tokenizer.get_vocab_size() == 49408 == entry.inputs[0].value_range[1] + 1
    assert tokenizer.encode("a photo of a cat", add_special_tokens=False).ids == [320, 1125, 539, 320, 2368]


def test_ids_are_framed_and_padded_with_zeros(tower: PromptEncoderHandle) -> None:
    ids = tower.tokenize(["a", ""])
    assert ids.shape == (2, CONTEXT)
    assert ids[0, 0] == ids[1, 0] == VOCABULARY_SIZE - 2
    assert ids[0, 2] == VOCABULARY_SIZE - 1
    assert ids[1, 1] == VOCABULARY_SIZE - 1
    assert not ids[0, 3:].any()
    assert not ids[1, 2:].any()


def test_the_name_of_a_mark_in_a_text_is_text(tower: PromptEncoderHandle) -> None:
    ids = tower.tokenize(["<|endoftext|>"])[0]
    assert (ids == VOCABULARY_SIZE - 1).sum() == 1
    assert ids.argmax() > 1


def test_a_text_beyond_the_context_is_refused(tower: PromptEncoderHandle) -> None:
    assert tower.tokenize(["1 " * (CONTEXT - 2)])[0, -1] == VOCABULARY_SIZE - 1
    with pytest.raises(TrendFlowError) as caught:
        tower.tokenize(["1 " * (CONTEXT - 1)])
    assert caught.value.error_code == "config_invalid"


def test_neighbours_and_order_change_nothing(tower: PromptEncoderHandle, weights: Any, tmp_path: Path) -> None:
    texts = ["a photo", "sharp", "a photo", "blurry"]
    together = tower.embed_texts(texts)
    fresh = text_tower(tmp_path, weights)
    alone = np.concatenate([fresh.embed_texts([text]) for text in reversed(texts)])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_array_equal(together[0], together[2])


def test_a_text_is_computed_once(weights: Any, tmp_path: Path) -> None:
    tower = text_tower(tmp_path, weights)
    first = tower.embed_texts(["a cat", "a dog"])
    tower.close()  # a closed model refuses to run, so what still comes was remembered
    np.testing.assert_array_equal(tower.embed_texts(["a dog", "a cat"]), first[::-1])
    with pytest.raises(TrendFlowError):
        tower.embed_texts(["a bird"])


def test_only_new_texts_count_towards_the_batch(weights: Any, tmp_path: Path) -> None:
    tower = text_tower(tmp_path, weights, max_batch_size=2)
    tower.embed_texts(["a", "b"])
    assert tower.embed_texts(["a", "b", "c", "d"]).shape[0] == 4
    with pytest.raises(TrendFlowError) as caught:
        tower.embed_texts(["e", "f", "g"])
    assert caught.value.error_code == "model_spec_invalid"


def test_it_is_a_prompt_encoder_and_no_text_encoder(tower: PromptEncoderHandle) -> None:
    assert isinstance(tower, PromptEncoder)
    assert not isinstance(tower, TextEncoder)
    assert tower.describe()["vocabulary"] == VOCABULARY_SIZE
    assert tower.used == tower.entry.model_used("cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": ()},
        {"embedding_dim": None},
        {"postprocessing": {"pooling": "end_of_text"}},
        {"postprocessing": {"pooling": "mean_over_mask", "projection": "in_graph"}},
        {"preprocessing": {"tokenizer": "wordpiece", "vocabulary_size": VOCABULARY_SIZE}},
        {"preprocessing": {"tokenizer": "clip_bpe"}},
    ],
)
def test_entries_that_are_no_text_tower_are_refused(weights: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        text_tower(tmp_path, weights, **change)
    assert caught.value.error_code == "model_spec_invalid"


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        vocabulary()[:-9],
        vocabulary()[:60] + b"\xff" * 40 + vocabulary()[100:],
        gzip.compress(bytes(1 << 25)),
        gzip.compress(b"header\na b\n"),
        gzip.compress(b"h\n" + b"a b c\n" * 300),
        gzip.compress(b"h\n" + b"a b\n" * 300),
        gzip.compress(b"h\n" + b"".join(b"never%d made\n" % number for number in range(300))),
    ],
    ids=["no gzip", "cut off", "damaged", "bomb", "short", "three parts", "twice", "unknown parts"],
)
def test_a_broken_vocabulary_is_model_load_failed(weights: Any, tmp_path: Path, content: bytes) -> None:
    entry = text_tower(tmp_path, weights).entry
    model = OnnxHandle.load(entry, tmp_path / "clip_text.onnx")
    (tmp_path / VOCABULARY).write_bytes(content)
    with pytest.raises(TrendFlowError) as caught:
        PromptEncoderHandle.load(model, tmp_path / VOCABULARY)
    assert caught.value.error_code == "model_load_failed"


@pytest.mark.parametrize("lacking", ["visual.proj", "visual.transformer.resblocks.1.mlp.c_fc.bias", "text_projection"])
def test_a_checkpoint_without_a_tensor_is_refused(weights: dict[str, np.ndarray], lacking: str) -> None:
    kept = {name: values for name, values in weights.items() if name != lacking}
    with pytest.raises(TrendFlowError) as caught:
        (clip_image_tower if lacking.startswith("visual") else clip_text_tower)(kept, HEAD_WIDTH)
    assert caught.value.error_code == "weights_missing"


def test_the_graph_is_the_same_bytes_every_time(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    backwards = dict(reversed(weights.items()))
    for make in (clip_image_tower, clip_text_tower):
        assert serialise(make(weights, HEAD_WIDTH)) == serialise(make(backwards, HEAD_WIDTH))


def torchscript(weights: dict[str, np.ndarray]) -> bytes:
    """An archive of modules that hold these tensors in float16, as the published checkpoint does."""
    root = torch.nn.Module()
    for name, values in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(last, torch.from_numpy(values.astype(np.float16)))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(root), buffer)
    return buffer.getvalue()


def test_the_recipes_make_both_towers_from_one_archive() -> None:
    weights = published_names(random_clip(head_width=64))
    archive = torchscript(weights)
    short = {name: values.astype(np.float16) for name, values in weights.items()}
    assert RECIPES["clip_image_tower"].make(archive) == serialise(clip_image_tower(short))
    assert RECIPES["clip_text_tower"].make(archive) == serialise(clip_text_tower(short))
    for name in ("clip_image_tower", "clip_text_tower"):
        assert "torch" not in RECIPES[name].packages


def test_the_catalogues_entry_is_pulled_made_and_loaded(tmp_path: Path) -> None:
    """The shipped entry with the digest and the width of a small checkpoint; the shipped vocabulary in full."""
    weights = published_names(random_clip(head_width=64))
    rng = np.random.default_rng(0)
    weights["token_embedding.weight"] = rng.normal(size=(49408, weights["positional_embedding"].shape[1]))
    archive = torchscript(weights)
    shipped = Catalogue.load()["clip_vit_b32_text"]
    digest = hashlib.sha256(archive).hexdigest()
    source = shipped.source.model_copy(update={"sha256": digest, "bytes": len(archive)})
    output = shipped.outputs[0].model_copy(update={"shape": ("B", CONTEXT, WIDTH)})
    entry = shipped.model_copy(update={"source": source, "outputs": (output,), "embedding_dim": WIDTH})
    asked: list[str] = []

    def publisher(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=archive)

    pull_models(catalogue_of(entry), tmp_path, transport=httpx.MockTransport(publisher))
    assert asked == [f"https://openaipublic.azureedge.net/clip/models/{shipped.checkpoint}/ViT-B-32.pt"]
    handle = ModelPool(tmp_path).get(entry)
    assert isinstance(handle, PromptEncoderHandle)
    assert handle.tokenize(["a photo of a cat"])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    np.testing.assert_allclose(np.linalg.norm(handle.embed_texts(["a cat", "a dog"]), axis=1), 1, atol=1e-6)


def test_the_pool_loads_a_text_tower_with_its_tokenizer(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = serialise(clip_text_tower(weights, HEAD_WIDTH))
    contents = {"model.onnx": data, VOCABULARY: vocabulary()}
    files = tuple(
        WeightsFile(path=path, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for path, content in contents.items()
    )
    entry = text_entry(weights, data).model_copy(update={"files": files})
    for path, content in contents.items():
        target = tmp_path / entry.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    handle = ModelPool(tmp_path).get(entry)
    assert isinstance(handle, PromptEncoderHandle)
    assert handle.embed_texts(["a photo"]).shape == (1, entry.embedding_dim)


def test_both_entries_come_from_one_checkpoint() -> None:
    image, text = (Catalogue.load()[name] for name in ("clip_vit_b32_image", "clip_vit_b32_text"))
    assert image.checkpoint == text.checkpoint == image.source.sha256 == text.source.sha256
    # The publisher's address contains the digest.
    assert image.source.revision == image.source.sha256


def test_the_image_tower_takes_pixels(weights: dict[str, np.ndarray], images: np.ndarray, tmp_path: Path) -> None:
    handle = image_tower(tmp_path, weights)
    assert handle.infer({"images": images})["embeddings"].shape == (3, handle.entry.embedding_dim)
    with pytest.raises(TrendFlowError) as caught:
        handle.infer({"images": images.astype(np.float32)})
    assert caught.value.error_code == "model_spec_invalid"
