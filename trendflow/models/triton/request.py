"""One inference request: its tensors out, its answer in, over the wire or through shared memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import numpy as np
from tritonclient.grpc import InferResult
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.tensors import TensorSpec, size_of
from trendflow.models.triton.config import SERVED_VERSION, WIRE_DTYPES
from trendflow.models.triton.shared_memory import Region, SharedMemoryPool, layout
from trendflow.models.triton.wire import encoded, place_in_memory

_STILL_RUNNING = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "StatusCode.UNAVAILABLE")
"""Failures after which the server may yet finish the inference and write its outputs."""


class Request:
    """A request in flight. `future` gets the outputs by name, or the exception of the failure.

    `symbols` are the sizes of the symbolic dimensions in this batch; `done` is called exactly once, when the request
    has ended one way or the other.
    """

    def __init__(
        self,
        entry: CatalogueEntry,
        request_id: str,
        symbols: Mapping[str, int],
        memory: SharedMemoryPool | None,
        done: Callable[[], None],
    ) -> None:
        self.entry = entry
        self.id = request_id
        self.future: Future[dict[str, np.ndarray]] = Future()
        self.cancel: Callable[[], object] = lambda: None
        self._memory = memory
        self._done = done
        self._ending = threading.Lock()
        self._ended = False
        self._region: Region | None = None
        self._offsets: dict[str, int] = {}
        self._shapes = {spec.name: _shape(spec, symbols) for spec in entry.outputs}

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> bytes:
        """The encoded request. Inputs are copied; the caller may change them afterwards.

        Raises `InferenceServerException`, OSError or `out_of_memory` when memory cannot be shared.
        """
        message = ModelInferRequest(model_name=self.entry.name, model_version=SERVED_VERSION, id=self.id)
        for spec in self.entry.inputs:
            message.inputs.add(name=spec.name, datatype=WIRE_DTYPES[spec.dtype], shape=inputs[spec.name].shape)
        for spec in self.entry.outputs:
            message.outputs.add(name=spec.name)
        if self._memory is None:
            return encoded(message, [inputs[spec.name] for spec in self.entry.inputs])
        sizes = {name: array.nbytes for name, array in inputs.items()}
        # An output whose size only the model knows comes over the wire.
        sizes |= {
            f"output {spec.name}": int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            for spec in self.entry.outputs
            if (shape := self._shapes[spec.name]) is not None
        }
        offsets, total = layout(list(sizes.values()))
        self._offsets = dict(zip(sizes, offsets, strict=True))
        self._region = region = self._memory.lease(total)
        for tensor in message.inputs:
            region.write(self._offsets[tensor.name], inputs[tensor.name])
            place_in_memory(tensor, region.name, sizes[tensor.name], self._offsets[tensor.name])
        for output in message.outputs:
            key = f"output {output.name}"
            if key in sizes:
                place_in_memory(output, region.name, sizes[key], self._offsets[key])
        return encoded(message, [])

    def answer(self, result: InferResult | None, error: Exception | None) -> None:
        """Called by the client library's thread, which must never see an exception."""
        if result is None:
            self.fail(error)
            return
        try:
            outputs = self._read(result)
        except Exception as exc:  # whatever breaks here must reach the thread that waits
            self.fail(exc)
            return
        if self._end(reusable=True):
            self.future.set_result(outputs)

    def fail(self, error: Exception | None) -> None:
        """End the request with an error; None when the caller raises by itself."""
        refused = isinstance(error, InferenceServerException) and error.status() not in _STILL_RUNNING
        if self._end(reusable=refused or isinstance(error, TrendFlowError)):
            self.future.set_exception(error or TrendFlowError("cancelled", "The request was not sent."))

    def _end(self, *, reusable: bool) -> bool:
        """Release what the request holds; False when it has ended before.

        A sender that is interrupted cannot know whether the request went out, so its answer may still come.
        """
        with self._ending:
            if self._ended:
                return False
            self._ended = True
        region, self._region = self._region, None
        if region is not None and self._memory is not None:
            (self._memory.give_back if reusable else self._memory.abandon)(region)
        self._done()
        return True

    def _read(self, result: InferResult) -> dict[str, np.ndarray]:
        """The outputs as arrays of their own. Raises `triton_bad_response`."""
        if result.get_response().id != self.id:
            raise self._bad("answered another request")
        return {spec.name: self._output(spec, result) for spec in self.entry.outputs}

    def _output(self, spec: TensorSpec, result: InferResult) -> np.ndarray:
        found = result.get_output(spec.name)
        if found is None:
            raise self._bad(f"left out the output {spec.name!r}")
        shape, expected = tuple(found.shape), self._shapes[spec.name]
        if found.datatype != WIRE_DTYPES[spec.dtype] or (expected is not None and shape != expected):
            raise self._bad(f"gave {spec.name!r} as {found.datatype} {list(shape)}")
        offset = self._offsets.get(f"output {spec.name}")
        if self._region is not None and offset is not None:
            return self._region.read(offset, shape, np.dtype(spec.dtype))
        try:
            return np.array(result.as_numpy(spec.name))  # a copy: what the library gives cannot be written to
        except ValueError:
            raise self._bad(f"gave {spec.name!r} with too few or too many bytes") from None

    def _bad(self, problem: str) -> TrendFlowError:
        return TrendFlowError(
            "triton_bad_response", f"The Triton server {problem} ({self.entry.name}).", entry=self.entry.name
        )


def _shape(spec: TensorSpec, symbols: Mapping[str, int]) -> tuple[int, ...] | None:
    """The output's shape in this batch, None where the inputs do not decide it."""
    sizes = [size_of(dim, symbols) for dim in spec.shape]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None
