"""The call of an inference over gRPC, with tensors copied once.

The client library copies every input tensor three times: to bytes, into a message, and out of it into what is sent.
Here the encoded message and the tensors are joined as they lie in memory. Protocol buffers allow that: a repeated field
may be appended to an encoded message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import InferenceServerException

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH_DELIMITED = 2
_CONTENTS = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number

Answered = Callable[[InferResult | None, Exception | None], None]
"""Gets the result or the failure, in a thread of gRPC."""


class InferenceChannel:
    """A channel to one server for inferences alone. Thread-safe."""

    def __init__(self, url: str, options: Sequence[tuple[str, int]]) -> None:
        self._channel = grpc.insecure_channel(url, options=list(options))
        self._call = self._channel.unary_unary(
            _METHOD,
            request_serializer=None,  # what is sent is encoded already
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def infer(self, message: bytes, timeout_s: float, answered: Answered) -> Callable[[], object]:
        """Send an encoded request; returns what cancels it. `answered` is called once, when it has ended."""

        def finish(call: Any) -> None:
            if call.code() is grpc.StatusCode.OK:
                answered(InferResult(call.result()), None)
            else:
                answered(None, InferenceServerException(str(call.details()), status=str(call.code())))

        call = self._call.future(message, timeout=timeout_s)
        call.add_done_callback(finish)
        cancel: Callable[[], object] = call.cancel
        return cancel

    def close(self) -> None:
        self._channel.close()


def encoded(request: service_pb2.ModelInferRequest, contents: Sequence[np.ndarray]) -> bytes:
    """The request with the bytes of these tensors as its `raw_input_contents`, which it must not have yet."""
    parts: list[bytes | memoryview] = [request.SerializeToString()]
    for array in contents:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [_varint(_CONTENTS << 3 | _LENGTH_DELIMITED), _varint(flat.nbytes), flat.data]
    return b"".join(parts)


def place_in_memory(tensor: Any, region: str, size: int, offset: int) -> None:
    """Say of an input or a requested output that it lies in shared memory."""
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def _varint(number: int) -> bytes:
    """A number as protocol buffers write it: seven bits a byte, the lowest first, the top bit says that more follow."""
    encoded_bytes = bytearray()
    while number >= 0x80:
        encoded_bytes.append(number & 0x7F | 0x80)
        number >>= 7
    encoded_bytes.append(number)
    return bytes(encoded_bytes)
