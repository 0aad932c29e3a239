"""The way from a reference to a judged variant, on a small model with RANDOM weights and SYNTHETIC frames."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from onnx import helper, numpy_helper

from trendflow.commands import optimise as command
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.onnx_graph import merge_max_pool_padding
from trendflow.optimisation.catalogue_entry import render_entry
from trendflow.optimisation.clips import MAX_CALIBRATION, Clip, split, video_files
from trendflow.optimisation.onnx_variants import MAKERS, layers_in_float, output_noise
from trendflow.optimisation.parity import Move
from trendflow.optimisation.pipeline import Optimised, optimise
from trendflow.optimisation.quantise import Quantiser
from trendflow.optimisation.report import Speed, Verdict
from trendflow_tests.models.builders import onnx_bytes
from trendflow_tests.optimisation.tiny import clips, encoder_bytes, inputs, placed_encoder

# The variants are made once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("optimisation")

QUANTISE_TINY = """
import hashlib, sys
from pathlib import Path
from trendflow.optimisation.quantise import Quantiser
from trendflow_tests.optimisation.tiny import inputs
quantiser = Quantiser(Path(sys.argv[1]), Path(sys.argv[2]))
quantiser.calibrate(iter(inputs()))
print(hashlib.sha256(quantiser.quantise(quantiser.last)).hexdigest())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Optimised:
    folder = tmp_path_factory.mktemp("models")
    return optimise(placed_encoder(folder), folder, clips(), MAKERS["int8"])


def _op_types(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def test_an_int8_variant_computes_in_int8_and_stays_close(made: Optimised) -> None:
    graph = onnx.load_model_from_string(made.data).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    assert "QuantizeLinear" in _op_types(made.data)
    assert made.report["metrics"]["cosine_mean"] > 0.99
    assert made.report["variant"]["weights_digest"] != made.report["reference"]["weights_digest"]


def test_the_report_says_what_was_measured_on_what(made: Optimised) -> None:
    report = made.report
    assert [video["name"] for video in report["videos"]] == [f"synthetic_{k}.mp4" for k in range(3)]
    assert [video["calibration_frames"] for video in report["videos"]] == [68, 68, 68]
    assert [video["held_out_frames"] for video in report["videos"]] == [102, 102, 102]
    assert report["component"]["name"] == "core_clip"
    assert "conv2" in report["method"]["layers_in_float"]  # the last layer
    assert set(report["scalars"]["moved_std"]) == {"embedding_dispersion", "pair_dt_median_s"}
    for name, typical in report["scalars"]["moved_std"].items():
        assert typical <= report["scalars"]["largest_std"][name]
    assert report["published"] == (not report["reasons"])
    # The file's digest, computed from the definition: sha256 of canonical JSON {path: sha256}.
    files = json.dumps({"model.onnx": hashlib.sha256(made.data).hexdigest()}, separators=(",", ":"))
    assert report["variant"]["weights_digest"] == hashlib.sha256(files.encode()).hexdigest()
    assert report["variant"]["bytes"] == len(made.data)


def test_the_same_inputs_give_the_same_bytes_in_every_process(tmp_path: Path, repo_root: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(encoder_bytes())
    digests = set()
    for seed in ("1", "2"):  # the order of sets differs
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", QUANTISE_TINY, str(model), str(folder)],
            cwd=repo_root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(repo_root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_layer_in_float_keeps_its_weights_and_its_activation(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(encoder_bytes())
    quantiser = Quantiser(model, tmp_path)
    assert quantiser.layers == ("conv0", "conv1", "conv2")
    assert quantiser.last == ("conv2",)
    quantiser.calibrate(iter(inputs()))
    graph = onnx.load_model_from_string(quantiser.quantise(["conv1"])).graph
    original = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(encoder_bytes()).graph.initializer
    }
    kept = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert any(np.array_equal(value, original["w1"]) for value in kept)
    assert not any(np.array_equal(value, original["w0"]) for value in kept)
    (convolution,) = [node for node in graph.node if node.name == "conv1"]
    (reader,) = [node for node in graph.node if convolution.output[0] in node.input]
    assert reader.op_type == "Relu"


def test_all_layers_in_float_change_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(encoder_bytes())
    quantiser = Quantiser(model, tmp_path)
    quantiser.calibrate(iter(inputs()))
    feed = inputs()[0]
    expected = ort.InferenceSession(encoder_bytes()).run(None, feed)[0]
    found = ort.InferenceSession(quantiser.quantise(quantiser.layers)).run(None, feed)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _branches() -> bytes:
    """RANDOM weights: two convolutions whose sum a third one reads; their pooled sum goes on to a fourth."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 4, 3, 3)).astype(np.float32), f"w{layer}") for layer in range(4)
    ]

    def layer(number: int, x: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [x, f"w{number}"], [f"c{number}"], f"conv{number}", pads=[1, 1, 1, 1])

    nodes = [
        layer(0, "x"),
        layer(1, "x"),
        helper.make_node("Add", ["c0", "c1"], ["sum"], "add"),
        layer(2, "sum"),
        helper.make_node("MaxPool", ["c2"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        layer(3, "pooled"),
        helper.make_node("Sigmoid", ["c3"], ["y"], "sigmoid"),
    ]
    return onnx_bytes(nodes, ("B", 4, 8, 8), ("B", 4, 4, 4), weights)


@pytest.mark.parametrize(
    ("in_float", "rounded"),
    [((), {"add", "pool"}), (("conv1",), {"pool"}), (("conv2",), set()), (("conv3",), {"add"})],
)
def test_what_hands_values_to_or_from_a_layer_in_float_is_not_rounded(
    tmp_path: Path, in_float: tuple[str, ...], rounded: set[str]
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(_branches())
    quantiser = Quantiser(model, tmp_path)
    values = np.random.default_rng(1).normal(size=(6, 1, 4, 8, 8)).astype(np.float32)
    quantiser.calibrate({"x": value} for value in values)
    graph = onnx.load_model_from_string(quantiser.quantise(in_float)).graph
    readers = {x: node.op_type for node in graph.node for x in node.input}
    makers = {node.output[0]: node.op_type for node in graph.node}
    found = {
        node.name
        for node in graph.node
        if node.name in ("add", "pool")
        and readers[node.output[0]] == "QuantizeLinear"
        and all(makers[x] == "DequantizeLinear" for x in node.input)
    }
    assert found == rounded


def test_products_are_weights_times_the_places_they_are_used_for(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(_branches())
    weights = 4 * 4 * 3 * 3
    assert Quantiser(model, tmp_path).products == {
        **dict.fromkeys(("conv0", "conv1", "conv2"), weights * 8 * 8),
        "conv3": weights * 4 * 4,
    }


def test_noise_is_a_share_of_the_variance() -> None:
    rng = np.random.default_rng(0)
    expected = [{"a": rng.normal(size=100), "b": np.ones(3)} for _ in range(50)]
    found = [{"a": one["a"] + 0.1 * rng.normal(size=100), "b": one["b"]} for one in expected]
    assert output_noise(expected, expected) == 0.0
    assert output_noise(expected, found) == pytest.approx(0.01 / 2, rel=0.1)  # the other output has none
    assert output_noise([{"b": np.ones(3)}], [{"b": np.zeros(3)}]) == 1.0


@pytest.mark.parametrize(("bearable", "kept"), [(9, "cf"), (3, "acf"), (2, "abcf"), (1, "abcdf"), (0, "abcdf")])
def test_as_many_candidates_as_the_limits_bear_become_int8(bearable: int, kept: str) -> None:
    tried: list[int] = []

    def holds(in_float: Collection[str]) -> bool:
        tried.append(6 - len(in_float))
        return tried[-1] <= bearable

    assert layers_in_float("abcdef", ["e", "d", "b", "a"], holds) == tuple(kept)
    assert len(tried) <= 3


def test_half_precision_keeps_inputs_and_outputs(tmp_path: Path) -> None:
    found = optimise(placed_encoder(tmp_path), tmp_path, clips(), MAKERS["fp16"])
    graph = onnx.load_model_from_string(found.data).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}
    assert found.report["metrics"]["cosine_min"] > 0.9999


@pytest.mark.parametrize(("explicit", "expected"), [([0, 0, 0, 0], [0, 0, 1, 1]), ([1, 1, 0, 0], [1, 1, 1, 1])])
def test_padding_with_minus_infinity_becomes_part_of_the_pooling(explicit: list[int], expected: list[int]) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads", "low"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=explicit),
    ]
    constants = [
        numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=np.int64), "pads"),
        numpy_helper.from_array(np.array(-np.inf, dtype=np.float32), "low"),
    ]
    model = onnx.load_model_from_string(onnx_bytes(nodes, ("B", 2, 8, 8), ("B", 2, "H", "W"), constants))
    merged = merge_max_pool_padding(model)
    assert [node.op_type for node in merged.graph.node] == ["MaxPool"]
    (pads,) = [attribute.ints for attribute in merged.graph.node[0].attribute if attribute.name == "pads"]
    assert list(pads) == expected
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    before, after = (ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in (model, merged))
    np.testing.assert_array_equal(before, after)


def test_padding_with_zero_before_a_pooling_is_left_alone() -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads", "zero"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=np.int64), "pads"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
    ]
    model = onnx.load_model_from_string(onnx_bytes(nodes, ("B", 2, 8, 8), ("B", 2, "H", "W"), constants))
    assert [node.op_type for node in merge_max_pool_padding(model).graph.node] == ["Pad", "MaxPool"]


def test_calibration_and_judgement_share_no_frame_and_no_moment() -> None:
    calibration, held_out = split(clips(videos=4, count=300))
    assert sum(len(part.samples) for part in calibration) <= MAX_CALIBRATION
    for fit, held in zip(calibration, held_out, strict=True):
        assert fit.clip is held.clip
        assert fit.samples.times_s.max() < held.samples.times_s.min()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (clips(videos=2, count=400), "different videos"),
        ([clips(1, 200)[0]] * 3, "none twice"),
        (clips(videos=3, count=100), "to calibrate with are too few"),
    ],
)
def test_too_little_to_judge_by_is_refused(found: list[Clip], words: str) -> None:
    with pytest.raises(TrendFlowError, match=words) as caught:
        split(found)
    assert caught.value.error_code == "input_constraint_violated"


def _verdict(**changes: Any) -> Verdict:
    good = Verdict(
        kind="embedding",
        precision="int8",
        metrics={"cosine_mean": 0.995, "cosine_min": 0.98},
        scalars={"embedding_dispersion": Move(0.05, 0.3)},
        speed=Speed(10.0, 5.0, 2.0, 8, 15, "a processor"),
    )
    return replace(good, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": {"cosine_mean": 0.98, "cosine_min": 0.98}}, "cosine_mean is 0.9800 instead of ≥ 0.99"),
        ({"scalars": {"embedding_dispersion": Move(0.2, 0.3)}}, "embedding_dispersion by 0.20"),
        ({"speed": Speed(10.0, 10.0, 1.0, 8, 15, "a processor")}, "not faster"),
    ],
)
def test_every_limit_can_stop_a_variant(changes: dict[str, Any], words: str) -> None:
    assert _verdict().published
    (reason,) = _verdict(**changes).reasons
    assert words in reason


def test_what_is_not_published_leaves_its_report_alone(made: Optimised, tmp_path: Path) -> None:
    report = {**made.report, "published": False, "reasons": ["it is not faster (0.90 times the speed)"]}
    with pytest.raises(TrendFlowError, match=r"not published: it is not faster") as caught:
        command.publish(replace(made, report=report), tmp_path)
    assert caught.value.exit_code != 0
    assert [file.name for file in tmp_path.iterdir()] == ["tiny_random_int8.parity.json"]


def test_what_is_published_comes_with_an_entry_that_the_catalogue_takes(made: Optimised, tmp_path: Path) -> None:
    command.publish(replace(made, report={**made.report, "published": True, "reasons": []}), tmp_path)
    names = {"tiny_random_int8.parity.json", "tiny_random_int8.onnx", "tiny_random_int8.catalogue.yaml"}
    assert {file.name for file in tmp_path.iterdir()} == names
    digest = hashlib.sha256((tmp_path / "tiny_random_int8.parity.json").read_bytes()).hexdigest()
    assert f'parity_report_digest: "{digest}"' in (tmp_path / "tiny_random_int8.catalogue.yaml").read_text()


def test_a_rendered_entry_differs_from_its_reference_only_where_it_must(made: Optimised, tmp_path: Path) -> None:
    reference = placed_encoder(tmp_path).model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    text = yaml.safe_dump({"entries": {"tiny_random": reference}}, sort_keys=False)
    text = text.replace("  tiny_random:", "  tiny_random: &tiny_random")
    roles = "version: model_catalogue_v1\nroles: {image_encoder: {used_by: [core_clip]}}\n"
    sha256 = hashlib.sha256(made.data).hexdigest()
    catalogue = Catalogue.parse(roles + text + render_entry(made.report, sha256, "0" * 64))
    entry, variant = catalogue["tiny_random"], catalogue["tiny_random_int8"]
    changed = {name for name in CatalogueEntry.model_fields if getattr(variant, name) != getattr(entry, name)}
    assert changed == {
        *("name", "status", "files", "source", "precision", "derived_from", "parity_report_digest", "notes")
    }
    assert variant.weights_digest == made.report["variant"]["weights_digest"]


@pytest.mark.parametrize(
    ("name", "to", "code", "words"),
    [
        ("nanodet_m_416", "int4", "config_invalid", "int8, fp16, tensorrt, not 'int4'"),
        ("nanodet_m_417", "int8", "model_not_found", "nanodet_m_417"),
        ("dis_flow_320", "int8", "config_invalid", "variants are made from ONNX models in fp32"),
        ("minilm_l6", "tensorrt", "config_invalid", "parity can be measured for"),
        ("efficientnet_lite0_224_int8", "tensorrt", "config_invalid", "variants are made from ONNX models in fp32"),
        ("efficientnet_lite0_224_torch", "fp16", "config_invalid", "variants are made from ONNX models in fp32"),
        ("nanodet_m_416", "int8", "source_unavailable", "no video 'absent.mp4'"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    models_dir: Path,
    name: str,
    to: str,
    code: str,
    words: str,
) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRENDFLOW_MODELS", str(models_dir))
    with pytest.raises(TrendFlowError, match=words) as caught:
        command.optimise(name, to, [tmp_path / "absent.mp4"], None, tmp_path / "out")
    assert caught.value.error_code == code
    assert not (tmp_path / "out").exists()


def test_what_ends_the_command_is_found_before_a_video_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path
) -> None:
    """The sources are no videos at all, so whoever decoded them would say so."""
    sources = [tmp_path / f"{name}.mp4" for name in "abc"]
    for source in sources:
        source.write_text("no video")
    (tmp_path / "taken").write_text("kept")
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))

    def complaint(target: str, files: list[Path]) -> TrendFlowError:
        with pytest.raises(TrendFlowError) as caught:
            command.optimise("nanodet_m_416", "int8", files, None, tmp_path / target)
        return caught.value

    assert complaint("out", sources).error_code == "weights_missing"
    monkeypatch.setenv("TRENDFLOW_MODELS", str(models_dir))
    assert complaint("taken", sources).error_code == "config_invalid"
    twice = complaint("out", sources)  # all three are equal
    assert (twice.error_code, twice.message) == (
        "input_constraint_violated",
        "At least 3 different videos are needed, and none twice; 3 were given, 1 of them different.",
    )
    for source in sources:
        source.write_text(f"no video either: {source.name}")
    assert complaint("out", sources).message.startswith("a.mp4: ")
    none = complaint("out", [])
    assert "The store has frames of 0 videos for core_object_detections and 3 are needed" in none.message
    assert not (tmp_path / "out").exists()


def test_folders_give_their_videos_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in video_files([tmp_path])] == ["a.MKV", "b.mp4"]
