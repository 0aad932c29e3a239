"""The table of Triton's failures, and requests whose end comes twice."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.triton.errors import typed
from trendflow.models.triton.request import Request
from trendflow_tests.triton import double_entry


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", "triton_unavailable"),
        ("CANCELLED", "Locally cancelled by application!", "triton_unavailable"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "triton_timeout"),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", "model_not_found"),
        ("INVALID_ARGUMENT", "unexpected shape for input 'x'", "model_spec_invalid"),
        ("INTERNAL", "std::bad_alloc", "out_of_memory"),
        ("INTERNAL", "CUDA out of memory", "out_of_memory"),
        (
            "INTERNAL",
            "Failed to increase the shared memory pool size for key k to 9633856 bytes. Error: No space left on it",
            "out_of_memory",
        ),
        ("INTERNAL", "Stub process 'x_0_0' is not healthy.", "triton_unavailable"),
        ("INTERNAL", "the model broke", "triton_bad_response"),
        ("UNKNOWN", "", "triton_bad_response"),
    ],
)
def test_every_failure_has_its_code_and_quotes_nothing(status: str, message: str, code: str) -> None:
    error = typed(InferenceServerException(message, status=f"StatusCode.{status}"), "x")
    assert error.error_code == code
    assert not message or message not in error.message
    assert error.detail == {"status": status, "entry": "x"}


def test_a_request_that_was_interrupted_ends_once_though_its_answer_comes() -> None:
    """The sender cannot know whether the request went out; a slot given back twice would be two slots."""
    ends: list[str] = []
    request = Request(double_entry("double")[0], "1", {"B": 1}, None, lambda: ends.append("end"))
    request.prepare({"x": np.zeros((1, 4), np.float32)})
    request.fail(None)
    request.answer(None, InferenceServerException("late", status="StatusCode.CANCELLED"))
    assert ends == ["end"]
    with pytest.raises(TrendFlowError) as error:
        request.future.result(timeout=0)
    assert error.value.error_code == "cancelled"
