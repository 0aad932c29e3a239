"""The encoded request, read back with Triton's own protocol buffers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc.service_pb2 import ModelInferRequest

from trendflow.models.triton.config import WIRE_DTYPES
from trendflow.models.triton.wire import encoded

TENSORS = st.lists(
    arrays.arrays(st.sampled_from(sorted(WIRE_DTYPES)), arrays.array_shapes(max_dims=4, max_side=9)), max_size=3
)


@given(TENSORS, st.booleans())
def test_an_encoded_request_holds_the_bytes_of_its_tensors(tensors: list[np.ndarray], turned: bool) -> None:
    """Also of tensors that do not lie in memory in their own order."""
    given_tensors = [tensor.T if turned else tensor for tensor in tensors]
    message = ModelInferRequest(model_name="double", id="1")
    read = ModelInferRequest.FromString(encoded(message, given_tensors))
    message.raw_input_contents.extend(tensor.tobytes() for tensor in given_tensors)
    assert read == message


def test_lengths_of_many_bytes_are_encoded() -> None:
    tensor = np.arange(1 << 22, dtype=np.float32)  # 16 MiB: a length of four encoded bytes
    (content,) = ModelInferRequest.FromString(encoded(ModelInferRequest(), [tensor])).raw_input_contents
    np.testing.assert_array_equal(np.frombuffer(content, np.float32), tensor)
