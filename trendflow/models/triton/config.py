"""A catalogue entry as a Triton model: the configuration it is served with, and the proof that a server has the same.

Names, data types, dimensions and batching do not depend on the backend, so clients cannot tell which one answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tritonclient.grpc.model_config_pb2 import DataType as PbDataType
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensors import BATCH, TensorSpec, smallest_inputs

Backend = Literal["python", "onnxruntime", "tensorrt"]

SERVED_VERSION = "1"
"""The version every model is served as.

Triton's versions are integers that order themselves; versions of the catalogue are names (`0.1.0`, a revision) and have
no such order. The catalogue offers one version of an entry at a time, so the number would say nothing: which weights
answer is stated by the parameters `catalogue_version` and `weights_digest`, and clients refuse any other.
"""

WIRE_DTYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
"""numpy's names of the data types → Triton's."""

MAX_QUEUE_DELAY_US = 2000
"""How long a request may wait for company: little beside the tens of milliseconds an inference takes on a CPU."""

_KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU"}


def backend_for(entry: CatalogueEntry, *, containers: bool) -> Backend:
    """The backend that executes `entry` in a container image of Triton, or in the server from the Python wheel.

    The wheel carries the Python backend alone. Raises `dependency_missing` for an engine the server cannot execute.
    """
    backends: dict[str, Backend] = {"onnx": "onnxruntime", "tensorrt": "tensorrt"} if containers else {"onnx": "python"}
    if entry.engine not in backends:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} needs the engine {entry.engine}, which this Triton server does not have.",
            kind="triton_backend",
            entry=entry.name,
        )
    return backends[entry.engine]


def model_config(
    entry: CatalogueEntry,
    backend: Backend,
    threads: int = 0,
    model_sha256: str | None = None,
    gpus: Sequence[int] = (),
) -> ModelConfig:
    """The `config.pbtxt` of an entry. `threads` per operator on the CPU, 0 lets the engine choose.

    `model_sha256` is that of the file in the repository: the catalogue does not know it of weights that are made on the
    user's machine. `gpus` get one instance each, none means every GPU that the server sees. Raises
    `model_spec_invalid` for tensors that Triton cannot batch.
    """
    config = ModelConfig(name=entry.name, backend=backend, max_batch_size=entry.max_batch_size)
    for spec in entry.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=_dims(entry, spec))
    for spec in entry.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=_dims(entry, spec))
    config.instance_group.add(count=1, kind=ModelInstanceGroup.Kind.Value(_KINDS[entry.device_policy]), gpus=gpus)
    config.version_policy.specific.versions.append(int(SERVED_VERSION))
    if entry.max_batch_size > 1:
        sizes = {max(1, entry.max_batch_size // 2), entry.max_batch_size}
        config.dynamic_batching.preferred_batch_size.extend(sorted(sizes))
        config.dynamic_batching.max_queue_delay_microseconds = MAX_QUEUE_DELAY_US
    for name, value in {**identity(entry), **_engine_settings(backend, threads, model_sha256)}.items():
        config.parameters[name].string_value = value
    if entry.warmup:
        warmup = config.model_warmup.add(name="zeros", batch_size=1, count=entry.warmup)
        for name, array in smallest_inputs(entry.inputs).items():
            spec = next(spec for spec in entry.inputs if spec.name == name)
            zeros = warmup.inputs[name]
            zeros.data_type, zeros.zero_data = _data_type(spec), True
            zeros.dims.extend(array.shape[1:])
    return config


def identity(entry: CatalogueEntry) -> dict[str, str]:
    """The parameters by which a served model says which entry it is."""
    return {
        "catalogue_version": entry.version,
        "weights_digest": entry.weights_digest,
        "precision": entry.precision,
        "class_names_digest": digest_of(list(entry.class_names)),
    }


def difference(entry: CatalogueEntry, served: ModelConfig) -> str | None:
    """What a served configuration says otherwise than `entry`, or None. Tuning (queue delay, instances) is free."""
    expected = model_config(entry, "python")
    if served.max_batch_size != expected.max_batch_size:
        return f"accepts batches up to {served.max_batch_size}, not {expected.max_batch_size}"
    for kind, ours, theirs in (("input", expected.input, served.input), ("output", expected.output, served.output)):
        found = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in theirs}
        wanted = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in ours}
        if set(found) != set(wanted):
            return f"has the {kind}s {sorted(found)}, not {sorted(wanted)}"
        for name, (dtype, dims) in wanted.items():
            if found[name] != (dtype, dims):
                return (
                    f"has {kind} {name!r} as {PbDataType.Name(found[name][0])} {list(found[name][1])}, "
                    f"not {PbDataType.Name(dtype)} {list(dims)}"
                )
    for name, value in identity(entry).items():
        stated = served.parameters[name].string_value if name in served.parameters else None
        if stated != value:
            return f"states {stated!r} as {name}, not {value!r}"
    kinds = {ModelInstanceGroup.Kind.Name(group.kind) for group in served.instance_group}
    if kinds != {_KINDS[entry.device_policy]}:
        return f"runs on {sorted(kinds)}, not on {entry.device_policy}"
    return None


def _engine_settings(backend: Backend, threads: int, model_sha256: str | None) -> dict[str, str]:
    """Parameters the backend reads: ours is `backend_model.py`, onnxruntime's has its own names."""
    names = {"python": "intra_op_num_threads", "onnxruntime": "intra_op_thread_count"}
    settings = {names[backend]: str(threads)} if backend in names else {}
    if backend == "python" and model_sha256 is not None:
        settings["model_sha256"] = model_sha256
    return settings


def _data_type(spec: TensorSpec) -> int:
    return int(PbDataType.Value(f"TYPE_{WIRE_DTYPES[spec.dtype]}"))


def _dims(entry: CatalogueEntry, spec: TensorSpec) -> list[int]:
    """Dimensions without the batch axis, which Triton adds itself; -1 is open."""
    first = (BATCH,) if entry.max_batch_size > 1 else (BATCH, 1)
    if len(spec.shape) < 2 or spec.shape[0] not in first or BATCH in spec.shape[1:]:
        raise TrendFlowError(
            "model_spec_invalid",
            f"{entry.name} cannot be served: {spec.name!r} has no batch axis in front of its own dimensions.",
            entry=entry.name,
        )
    return [dim if isinstance(dim, int) else -1 for dim in spec.shape[1:]]
