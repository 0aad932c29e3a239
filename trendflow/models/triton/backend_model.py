"""Executes an ONNX file inside Triton's Python backend. Copied into the model repository as `model.py`.

It runs in the server's own environment, where numpy and onnxruntime are all there is: nothing of this project can be
imported, and everything it must know stands in the model's configuration. Session options are those of the in-process
runtime, so both compute the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider"}


class TritonPythonModel:
    """One instance of a served model; the backend calls its methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights. Raising makes the model unavailable, with the message as reason."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        if hashlib.sha256(path.read_bytes()).hexdigest() != parameters["model_sha256"]:
            raise pb_utils.TritonModelException("The weights are not the file the catalogue pins.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_num_threads"])
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        kind = args["model_instance_kind"]
        settings = {"device_id": args["model_instance_device_id"]} if kind == "GPU" else {}
        self._session = ort.InferenceSession(str(path), options, providers=[(_PROVIDERS[kind], settings)])
        # onnxruntime quietly continues on the CPU when a provider fails to start.
        if _PROVIDERS[kind] not in self._session.get_providers():
            raise pb_utils.TritonModelException(f"onnxruntime cannot run on {kind}.")
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests Triton put together as one batch, and take the results apart again.

        Raising fails all of them with the engine's message.
        """
        arrays = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            for request in requests
        ]
        sizes = [len(first) for first, *_ in arrays]
        joined = arrays[0] if len(requests) == 1 else [np.concatenate(column) for column in zip(*arrays, strict=True)]
        values = self._session.run(self._outputs, dict(zip(self._inputs, joined, strict=True)))
        ends = np.cumsum(sizes)
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(value[end - size : end]))
                    for name, value in zip(self._outputs, values, strict=True)
                ]
            )
            for size, end in zip(sizes, ends, strict=True)
        ]

    def finalize(self) -> None:
        """Release the engine's memory when the model is unloaded."""
        del self._session
