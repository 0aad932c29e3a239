"""Models behind a real Triton server, against the same models in process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.keys import model_signature
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import TextEncoder
from trendflow.models.pool import ModelPool
from trendflow.models.triton.connection import Session, TritonConnection
from trendflow.models.triton.runtime import TritonHandle
from trendflow.models.triton.wire import Answered, InferenceChannel
from trendflow_tests.models.triton.faulty import (
    BREAKS,
    HANGS,
    LARGEST_BATCH_IN_MEMORY,
    NO_OUTPUT,
    SAYS_REQUESTS,
    SAYS_ROWS,
    TOO_LARGE,
    WRONG_DTYPE,
    WRONG_SHAPE,
    code_of,
    hanging,
    rows,
    until,
    waiting_requests,
)
from trendflow_tests.triton import STARTER, Served, double_entry

pytestmark = pytest.mark.xdist_group("triton")


@pytest.fixture(params=[True, False], ids=["shared memory", "wire"])
def connection(request: pytest.FixtureRequest, served: Served) -> Iterator[TritonConnection]:
    found = served.connection(shared_memory=request.param)
    assert found.session().uses_shared_memory is request.param
    yield found
    found.close()


@pytest.fixture
def load(connection: TritonConnection, served: Served) -> Callable[..., TritonHandle]:
    def make(name: str, **facts: Any) -> TritonHandle:
        entry = served.entries[name]
        return TritonHandle.load(entry.model_copy(update=facts), "cpu", connection)

    return make


def realistic(entry: CatalogueEntry, batch: int) -> dict[str, np.ndarray]:
    """Random inputs in the entry's own range, of its smallest usual size."""
    rng = np.random.default_rng(7)
    sizes = {"B": batch, "H": 96, "W": 160, "L": 11}
    arrays = {}
    for spec in entry.inputs:
        low, high = spec.value_range or (0.0, 1.0)
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape]
        arrays[spec.name] = rng.uniform(low, high, shape).astype(spec.dtype)
    if "attention_mask" in arrays:
        arrays["attention_mask"][:] = 1
    return arrays


@pytest.mark.parametrize("name", STARTER)
def test_a_starter_model_gives_what_it_gives_in_process(
    name: str, models_dir: Path, connection: TritonConnection
) -> None:
    entry = Catalogue.load()[name]
    inputs = realistic(entry, min(3, entry.max_batch_size))
    here = ModelPool(models_dir, 1).get(entry)
    there = ModelPool(models_dir, 1, lambda: connection).get(entry.on("triton"))
    expected, found = here.infer(inputs), there.infer(inputs)
    assert list(found) == list(expected)
    for output, array in expected.items():
        assert found[output].dtype == array.dtype
        np.testing.assert_allclose(found[output], array, rtol=1e-5, atol=1e-5, err_msg=output)
        found[output][...] = 0  # results belong to the caller
    assert there.device_used == here.device_used
    assert there.used.runtime == "triton"
    assert model_signature([there.used]) != model_signature([here.used])


def test_a_text_encoder_keeps_its_tokenizer_and_sends_its_model_away(models_dir: Path, served_pool: ModelPool) -> None:
    entry = Catalogue.load()["minilm_l6"]
    encoders = [ModelPool(models_dir, 1).get(entry), served_pool.get(entry.on("triton"))]
    vectors = []
    for encoder in encoders:
        assert isinstance(encoder, TextEncoder)
        vectors.append(encoder.embed([*encoder.split("A cat on a mat."), *encoder.split("Rain, and more of it.")]))
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-5)


def test_a_batch_beyond_the_limit_is_sent_in_parts(load: Callable[..., TritonHandle]) -> None:
    handle, inputs = load("faulty"), rows(27, SAYS_ROWS)
    found = handle.infer(inputs)["y"]
    assert handle.entry.max_batch_size == 8
    np.testing.assert_array_equal(found[:, 0], [8] * 24 + [3] * 3)
    np.testing.assert_array_equal(found[:, 1:], inputs["x"][:, 1:] * 2)


def test_answers_find_their_requests_when_many_threads_ask(load: Callable[..., TritonHandle]) -> None:
    handle, wrong = load("double"), []

    def ask(number: int) -> None:
        for size in (1, 5, 8, 13):
            inputs = rows(size * 31 + number)
            if not np.array_equal(handle.infer(inputs)["y"], inputs["x"] * 2):
                wrong.append((number, size))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_server_puts_requests_of_several_clients_together(served: Served) -> None:
    """One request occupies the model; of what arrives meanwhile, one request of each client, much is one batch."""
    entry, sessions = served.entries["faulty"], [Session(served.state.grpc_url) for _ in range(6)]
    inputs = np.repeat(np.arange(6, dtype=np.float32)[:, None], 4, axis=1)
    inputs[:, 0] = SAYS_REQUESTS
    with hanging(served) as started:
        first = sessions[0].send(entry, rows(1, HANGS), {"B": 1})
        until(started.exists)
        requests = [session.send(entry, {"x": x[None]}, {"B": 1}) for session, x in zip(sessions, inputs, strict=True)]
        until(lambda: waiting_requests(served) == len(requests))
    sessions[0].result(first)
    found = np.concatenate([session.result(request)["y"] for session, request in zip(sessions, requests, strict=True)])
    for session in sessions:
        session.close()
    assert found[:, 0].max() > 1
    np.testing.assert_array_equal(found[:, 1:], inputs[:, 1:] * 2)


def test_no_more_requests_are_under_way_than_a_session_may_have(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them hang, so that the others have to wait for a slot."""
    entry, session, lock = served.entries["faulty"], Session(served.state.grpc_url, max_in_flight=3), threading.Lock()
    under_way, most = 0, 0
    real = session._channel.infer

    def infer(message: bytes, timeout_s: float, answered: Answered) -> Callable[[], object]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)

        def ended(*outcome: Any) -> None:
            nonlocal under_way
            with lock:
                under_way -= 1
            answered(*outcome)

        return real(message, timeout_s, ended)

    monkeypatch.setattr(session._channel, "infer", infer)

    about_to_send = threading.Barrier(6)

    def ask(number: int) -> None:
        about_to_send.wait()
        session.result(session.send(entry, rows(number), {"B": number}))

    with ThreadPoolExecutor(5) as clients:
        with hanging(served):
            first = [session.send(entry, rows(1, HANGS), {"B": 1}) for _ in range(3)]
            later = [clients.submit(ask, number) for number in range(1, 6)]
            about_to_send.wait()
        for answer in later:
            answer.result()
    for request in first:
        session.result(request)
    session.close()
    assert (most, under_way) == (3, 0)


def test_a_slow_model_is_a_timeout_and_harms_no_later_request(
    load: Callable[..., TritonHandle], served: Served
) -> None:
    with hanging(served):
        handle = load("faulty", deadline_ms=300)
        assert code_of(lambda: handle.infer(rows(2, HANGS))) == "triton_timeout"
    handle = load("faulty")
    for size in (2, 3, 4):  # the late answer must not land in a later request's memory
        inputs = rows(size)
        np.testing.assert_array_equal(handle.infer(inputs)["y"], inputs["x"] * 2)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (BREAKS, "triton_bad_response"),
        (NO_OUTPUT, "triton_bad_response"),
        (WRONG_SHAPE, "triton_bad_response"),
        (WRONG_DTYPE, "triton_bad_response"),
    ],
)
def test_a_broken_answer_is_refused(load: Callable[..., TritonHandle], fault: int, code: str) -> None:
    handle = load("faulty")
    assert code_of(lambda: handle.infer(rows(1, fault))) == code
    inputs = rows(2)
    np.testing.assert_array_equal(handle.infer(inputs)["y"], inputs["x"] * 2)


def test_outputs_that_are_not_finite_are_refused(load: Callable[..., TritonHandle]) -> None:
    handle = load("not_a_number")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(handle.infer({"x": x})["y"], x)
    x[1, 2] = 0
    assert code_of(lambda: handle.infer({"x": x})) == "triton_bad_response"


def test_a_server_out_of_memory_gets_smaller_batches_until_they_fit(load: Callable[..., TritonHandle]) -> None:
    handle = load("faulty")
    inputs = rows(11, TOO_LARGE)
    assert code_of(lambda: handle.infer({"x": inputs["x"][:8]})) == "out_of_memory"
    runner = BatchRunner(batch_size=8, pause_s=0)
    parts = runner.run(11, lambda start, stop: handle.infer({"x": inputs["x"][start:stop]})["y"], 8)
    np.testing.assert_array_equal(np.concatenate(parts), inputs["x"] * 2)
    assert runner.effective_batch_size == 2 <= LARGEST_BATCH_IN_MEMORY
    assert runner.oom_retries == 2  # 8 → 4 → 2


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((1, 4), np.float64)},
        {"x": np.zeros((1, 5), np.float32)},
        {"z": np.zeros((1, 4), np.float32)},
    ],
    ids=["dtype", "shape", "name"],
)
def test_wrong_inputs_are_refused_before_anything_is_sent(
    load: Callable[..., TritonHandle], monkeypatch: pytest.MonkeyPatch, inputs: dict[str, np.ndarray]
) -> None:
    def infer(*_: object) -> None:
        raise AssertionError("a request was sent")

    handle = load("double")
    monkeypatch.setattr(InferenceChannel, "infer", infer)
    assert code_of(lambda: handle.infer(inputs)) == "model_spec_invalid"


@pytest.mark.parametrize(("name", "code"), [("absent", "model_not_found"), ("unloadable", "model_load_failed")])
def test_a_model_the_server_cannot_offer_has_its_own_code(
    connection: TritonConnection, served: Served, name: str, code: str
) -> None:
    entry = served.entries.get(name, double_entry(name)[0])
    assert code_of(lambda: TritonHandle.load(entry, "cpu", connection)) == code
    assert code_of(lambda: connection.require(entry)) == code
    # A request that is sent all the same ends with the same code.
    session = connection.session()
    assert code_of(lambda: session.result(session.send(entry, rows(1), {"B": 1}))) == code


def changed(tensor: str, **facts: Any) -> dict[str, Any]:
    entry = double_entry("double")[0]
    specs = [spec.model_copy(update=facts) for spec in getattr(entry, tensor)]
    return {tensor: tuple(specs)}


@pytest.mark.parametrize(
    "facts",
    [{"max_batch_size": 16}, changed("inputs", dtype="float16"), changed("inputs", shape=("B", 5))],
    ids=["batch", "dtype", "shape"],
)
def test_what_the_server_itself_refuses_has_the_same_code(
    connection: TritonConnection, served: Served, facts: dict[str, Any]
) -> None:
    """Sent all the same, as to a server that was exchanged after it had been checked."""
    session, entry = connection.session(), served.entries["double"].model_copy(update=facts)
    (spec,), batch = entry.inputs, entry.max_batch_size
    wrong = {"x": np.zeros((batch, int(spec.shape[1])), spec.dtype)}
    assert code_of(lambda: session.result(session.send(entry, wrong, {"B": batch}))) == "model_spec_invalid"
    right = session.send(served.entries["double"], rows(2), {"B": 2})
    np.testing.assert_array_equal(session.result(right)["y"], rows(2)["x"] * 2)


@pytest.mark.parametrize(
    "facts",
    [
        {"max_batch_size": 16},
        {"version": "2.0"},
        {"class_names": ("a", "b", "c", "d")},
        {"device_policy": "cuda"},
        {"precision": "fp16"},
        changed("inputs", dtype="float16"),
        changed("inputs", name="images"),
        changed("inputs", shape=("B", 5)),
        changed("outputs", dtype="int64"),
        changed("outputs", shape=("B", "N")),
    ],
    ids=[
        "batch",
        "version",
        "classes",
        "device",
        "precision",
        "input dtype",
        "input name",
        "input shape",
        "output dtype",
        "output shape",
    ],
)
def test_a_server_that_serves_something_else_is_refused(
    load: Callable[..., TritonHandle], facts: dict[str, Any]
) -> None:
    assert code_of(lambda: load("double", **facts)) == "model_spec_invalid"


def test_other_weights_are_refused(connection: TritonConnection) -> None:
    entry = double_entry("double")[0]
    (file,) = entry.files
    other = CatalogueEntry.model_validate({**entry.model_dump(), "files": [{**file.model_dump(), "sha256": "a" * 64}]})
    assert code_of(lambda: TritonHandle.load(other, "cpu", connection)) == "model_spec_invalid"


def test_weights_that_were_made_on_this_machine_are_served(load: Callable[..., TritonHandle]) -> None:
    inputs = rows(3)
    np.testing.assert_array_equal(load("made_here").infer(inputs)["y"], inputs["x"] * 2)


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    connection = TritonConnection(lambda: f"127.0.0.1:{free_port()}")
    entry = double_entry("double")[0]
    assert code_of(lambda: TritonHandle.load(entry, "cpu", connection)) == "triton_unavailable"
