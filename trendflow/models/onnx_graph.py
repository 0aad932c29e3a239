"""Rewrites of ONNX files. Each is a pure function of its input, so the result's digest can be pinned.

Needs the `onnx` package, which only building models does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

MIN_HALVED_SIZE = 256
"""Smaller tensors (biases, pads, constants) stay as they are: they weigh nothing."""


def serialise(model: onnx.ModelProto) -> bytes:
    """Bytes that depend on the graph alone: no producer, no doc strings, no metadata. Checks the model first."""
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        clean.ClearField(field)
    del clean.metadata_props[:]
    graph = clean.graph
    graph.ClearField("doc_string")
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("doc_string")
    onnx.checker.check_model(clean, full_check=True)
    return clean.SerializeToString(deterministic=True)


def halve_lossless(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store float32 weights as float16 where that loses nothing; the model still computes in float32.

    Converted models often carry weights that were float16 once. Such an initializer is stored in float16 again and
    followed by a Cast, which engines fold away at load; outputs stay bit-identical.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            short = values.astype(np.float16)
        if values.size < MIN_HALVED_SIZE or not np.array_equal(short.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(short, f"{name}__float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}__cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return halved


def drop_initializers_from_inputs(model: onnx.ModelProto) -> None:
    """Make weights constants. Files before IR version 4 list them as inputs, which forbids engines to fold them."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = {tensor.name for tensor in graph.initializer}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.input[:]
    graph.input.extend(inputs)


def rename_tensors(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename graph inputs, outputs and the edges between them. Raises KeyError on a name the graph lacks."""
    graph = model.graph
    missing = set(names) - {value.name for value in (*graph.input, *graph.output)}
    if missing:
        raise KeyError(f"the graph has no input or output {sorted(missing)}")
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def set_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Declare the shapes of graph inputs and outputs; a string is a size left open. Forgets inferred inner shapes."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in shapes[value.name]:
                dim = dims.add()
                if isinstance(size, int):
                    dim.dim_value = size
                else:
                    dim.dim_param = size


MUSICNN_NAMES = {"x:0": "patches", "emb:0": "embeddings", "tags:0": "tags"}


def free_musicnn(model: onnx.ModelProto) -> onnx.ModelProto:
    """MusiCNN with an open batch and named tensors.

    The published file fixes the batch to 1 in its inner reshapes, which only move axes that a zero copies as well; its
    weights stay untouched.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    rename_tensors(freed, MUSICNN_NAMES)
    targets = {node.input[1] for node in freed.graph.node if node.op_type == "Reshape"}
    for tensor in freed.graph.initializer:
        if tensor.name in targets:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    set_shapes(freed, {"patches": ("B", 187, 96), "embeddings": ("B", 200), "tags": ("B", 50)})
    return freed


CENTERFACE_NAMES = {"input.1": "images", "537": "heatmap", "538": "scale", "539": "offset", "540": "landmarks"}


def free_centerface(model: onnx.ModelProto) -> onnx.ModelProto:
    """CenterFace with open batch, height and width and with named tensors.

    The published file is fully convolutional but declares `[10, 3, 32, 32]`; its weights stay untouched.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    drop_initializers_from_inputs(freed)
    rename_tensors(freed, CENTERFACE_NAMES)
    maps = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}
    set_shapes(
        freed,
        {"images": ("B", 3, "H", "W"), **{name: ("B", width, "Hq", "Wq") for name, width in maps.items()}},
    )
    return freed


def merge_max_pool_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Padding with −∞ before a max pooling as a property of the pooling, where it is that already by definition.

    Tensors keep finite values, without which their range cannot be quantised; outputs stay bit-identical. Other
    paddings and poolings are left alone.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    paddings = {node.output[0]: node for node in graph.node if node.op_type == "Pad" and len(node.input) == 3}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        padding = paddings.get(pool.input[0])
        if padding is None or readers[padding.output[0]] != 1 or not {*padding.input[1:]} <= set(constants):
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
        sizes = constants[padding.input[1]].reshape(2, -1)
        no_mode = all(attribute.name != "mode" or attribute.s == b"constant" for attribute in padding.attribute)
        if not (no_mode and np.isneginf(constants[padding.input[2]]).all() and (sizes[:, :2] == 0).all()):
            continue
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        pads = sizes[:, 2:] + np.reshape(attributes.get("pads", np.zeros_like(sizes[:, 2:])), (2, -1))
        for attribute in [found for found in pool.attribute if found.name in ("pads", "auto_pad")]:
            pool.attribute.remove(attribute)
        pool.attribute.append(helper.make_attribute("pads", pads.ravel().tolist()))
        pool.input[0] = padding.input[0]
        graph.node.remove(padding)
    drop_initializers_from_inputs(merged)
    return merged


def drop_unused_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """Declare only the operator sets that nodes belong to; optimisers declare every one they know."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    used = {node.domain for node in kept.graph.node} | {""}
    domains = [domain for domain in kept.opset_import if domain.domain in used]
    del kept.opset_import[:]
    kept.opset_import.extend(domains)
    return kept
