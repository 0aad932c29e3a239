"""The OpenAPI document and the answers agree, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.service.deployment import (
    Keeper,
    accepted,
    begun_run,
    body,
    client,
    make_parts,
    served,
    with_artifact,
)
from trendflow_tests.submission.desks import Deployment

TOKEN = {"Authorization": "Bearer admin-token"}
EXAMPLES = 25
KNOWN_RUN = "known-run"
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
FRAMING = {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
PATHS = {
    "POST /api/v1/process",
    "GET /api/v1/runs/{run_id}",
    "GET /api/v1/runs/{run_id}/status",
    "GET /api/v1/runs/{run_id}/events",
    "GET /api/v1/runs/{run_id}/manifest",
    "GET /api/v1/runs/{run_id}/artifacts/{path}",
    "GET /api/v1/runs/{run_id}/report",
    "POST /api/v1/runs/{run_id}/cancel",
    "DELETE /api/v1/videos/{platform_id}/{video_id}",
    "GET /api/v1/deletions/{request_id}",
    "POST /api/v1/admin/retention/cleanup",
    "GET /health",
    "GET /health/live",
    "GET /metrics",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    keeper, behind = Keeper(), Deployment()
    with served(make_parts(behind, erasure=keeper, retention=keeper)) as found:
        with client(found) as api:
            message = accepted(api, behind, run_id=KNOWN_RUN)
        with_artifact(behind, message)
        begun_run(behind, message).fail(TrendFlowError("timeout", "The run took too long."))  # its streams end
        yield found


@pytest.fixture(scope="module")
def schema(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json", headers=TOKEN)


def test_the_document_names_every_path_and_no_other(schema: Any) -> None:
    found = {
        f"{method.upper()} {path}" for path, operations in schema.raw_schema["paths"].items() for method in operations
    }
    assert found == PATHS


def test_refusals_are_documented_in_one_form(schema: Any) -> None:
    for operations in schema.raw_schema["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            for status, answer in operation["responses"].items():
                if status in ("400", "401", "403", "404", "409", "413", "416", "429", "500", "501"):
                    form = answer["content"]["application/json"]["schema"]
                    assert form == {"$ref": "#/components/schemas/ErrorBody"}
    assert "HTTPValidationError" not in json.dumps(schema.raw_schema)


def test_a_request_in_order_fits_the_document(schema: Any) -> None:
    """The document is not narrower than the contract."""
    operation = schema["/api/v1/process"]["POST"]
    case = operation.Case(body=body(99), media_type="application/json")
    answer = case.call(headers=TOKEN)
    assert answer.status_code == 202
    case.validate_response(answer, checks=CHECKS)


lazy = schemathesis.pytest.from_fixture("schema")


@lazy.parametrize()
@settings(max_examples=EXAMPLES)
def test_every_answer_is_documented(case: Any) -> None:
    """Requests in order and out of order, made from the document: about runs that nobody has, and about one."""
    assert_documented(case)
    if "run_id" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "run_id": KNOWN_RUN}
        assert_documented(case)
    if "path" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "path": "core_clip/core_clip.npz"}
        assert_documented(case)


def assert_documented(case: Any) -> None:
    # How a message is framed is HTTP's matter: the server refuses a wrong frame before any operation is known.
    for name in FRAMING & {name.lower() for name in case.headers or ()}:
        del case.headers[name]
    case.validate_response(case.call(headers=TOKEN, timeout=60), checks=CHECKS)
