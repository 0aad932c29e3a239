"""Models behind a real Triton server, against the same models in process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.keys import model_signature
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import TextEncoder
from trendflow.models.pool import ModelPool
from trendflow.models.triton.connection import Session, TritonConnection
from trendflow.models.triton.runtime import TritonHandle
from trendflow.models.triton.shared_memory import SharedMemoryPool
from trendflow_tests.triton import LARGEST_BATCH_IN_MEMORY, STARTER, Served, double_entry

pytestmark = pytest.mark.xdist_group("triton")

# First number of an input of the model `faulty`; see trendflow_tests/triton.py.
HANGS, BREAKS, TOO_LARGE, NO_OUTPUT, WRONG_SHAPE, WRONG_DTYPE = range(1, 7)


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


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(TrendFlowError) as error:
        work()
    return error.value.error_code


def rows(count: int, first: float = 0.0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    x[:, 0] = first
    return {"x": x}


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


def test_a_batch_beyond_the_limit_is_sent_in_parts(load: Callable[..., TritonHandle], served: Served) -> None:
    handle = load("double")
    before = statistics(served, "double")
    inputs = rows(27)
    np.testing.assert_array_equal(handle.infer(inputs)["y"], inputs["x"] * 2)
    after = statistics(served, "double", before.inference_count + 27)
    assert handle.entry.max_batch_size == 8
    assert after.inference_count - before.inference_count == 27
    assert max(batch.batch_size for batch in after.batch_stats) <= 8


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


def test_the_server_puts_requests_of_several_clients_together(served: Served, served_pool: ModelPool) -> None:
    """The first image occupies the model; what arrives meanwhile is executed as one batch."""
    entry = Catalogue.load()["efficientnet_lite0_224"].on("triton")
    served_pool.get(entry)
    images = realistic(entry, 8)["images"]
    sessions = [Session(served.state.grpc_url) for _ in range(2)]
    before = statistics(served, entry.name)
    requests = [
        (session, session.send(entry, {"images": images[row : row + 1]}, {"B": 1}))
        for row in range(8)
        for session in sessions
    ]
    vectors = np.concatenate([session.result(request)["embeddings"] for session, request in requests])
    after = statistics(served, entry.name, before.inference_count + 16)
    for session in sessions:
        session.close()
    assert after.inference_count - before.inference_count == 16
    assert after.execution_count - before.execution_count < 16
    alone = served_pool.get(entry).infer({"images": images})["embeddings"]
    np.testing.assert_allclose(vectors, np.repeat(alone, 2, axis=0), rtol=1e-4, atol=1e-5)


def test_a_slow_model_is_a_timeout_and_harms_no_later_request(
    load: Callable[..., TritonHandle], served: Served
) -> None:
    release = served.folder / "repository" / "faulty" / "release"
    try:
        handle = load("faulty", deadline_ms=300)
        assert code_of(lambda: handle.infer(rows(2, HANGS))) == "triton_timeout"
    finally:
        release.touch()
    handle = load("faulty")
    for size in (2, 3, 4):  # the late answer must not land in a later request's memory
        inputs = rows(size)
        np.testing.assert_array_equal(handle.infer(inputs)["y"], inputs["x"] * 2)
    release.unlink()


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
    load: Callable[..., TritonHandle], served: Served, inputs: dict[str, np.ndarray]
) -> None:
    handle = load("double")
    before = statistics(served, "double").inference_stats.fail.count
    assert code_of(lambda: handle.infer(inputs)) == "model_spec_invalid"
    assert statistics(served, "double").inference_stats.fail.count == before


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


def test_no_memory_stays_behind(served: Served) -> None:
    """Neither a name in /dev/shm nor a region that the server keeps."""
    before = own_regions(served)
    session = Session(served.state.grpc_url)
    entry = served.entries["double"]
    session.result(session.send(entry, rows(8), {"B": 8}))
    assert session.uses_shared_memory
    assert [name for name in os.listdir("/dev/shm") if name.startswith("trendflow")] == []
    assert own_regions(served) != before
    session.close()
    assert own_regions(served) == before


def test_a_session_that_is_dropped_gives_its_memory_back(served: Served) -> None:
    before = own_regions(served)
    session = Session(served.state.grpc_url)
    assert own_regions(served) != before
    del session
    assert own_regions(served) == before


def test_weights_that_were_made_on_this_machine_are_served(load: Callable[..., TritonHandle]) -> None:
    inputs = rows(3)
    np.testing.assert_array_equal(load("made_here").infer(inputs)["y"], inputs["x"] * 2)


def test_memory_of_a_request_that_came_too_late_is_given_up(served: Served) -> None:
    """While the server may write into it, it refuses; the next region that is needed finds it done."""
    release = served.folder / "repository" / "faulty" / "release"
    entry = served.entries["faulty"]
    slow = entry.model_copy(update={"deadline_ms": 300})
    before = own_regions(served)
    session = Session(served.state.grpc_url)
    try:
        assert code_of(lambda: session.result(session.send(slow, rows(2, HANGS), {"B": 2}))) == "triton_timeout"
        late = set(own_regions(served)) - set(before)
        assert len(late) == 1
        session.result(session.send(served.entries["double"], rows(2), {"B": 2}))
        assert late < set(own_regions(served)), "it is in use"
    finally:
        release.touch()
    session.result(session.send(entry, rows(2), {"B": 2}))  # executed after the late one
    session.close()
    release.unlink()
    assert own_regions(served) == before


def test_memory_of_a_client_that_was_killed_is_given_up_by_the_next(served: Served) -> None:
    before = own_regions(served)
    killed = f"""
import os, signal
from trendflow.models.triton.connection import Session
session = Session({served.state.grpc_url!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed], capture_output=True).returncode == -signal.SIGKILL
    left = set(own_regions(served)) - set(before)
    assert len(left) == 1
    alive = Session(served.state.grpc_url)
    assert not left & set(own_regions(served))
    other = Session(served.state.grpc_url)
    assert len(own_regions(served)) == len(before) + 2, "nobody takes the memory of those who live"
    for session in (alive, other):
        session.close()
    assert own_regions(served) == before


def test_a_host_without_room_for_a_batch_is_out_of_memory_and_not_a_crash(served: Served) -> None:
    """Memory that is only promised would end the process at the first byte beyond what the host has."""
    with InferenceServerClient(served.state.grpc_url) as client:
        pool = SharedMemoryPool.open(client)
        assert pool is not None
        host = os.statvfs("/dev/shm")
        assert code_of(lambda: pool.lease(host.f_blocks * host.f_frsize + 1)) == "out_of_memory"
        region = pool.lease(1)
        region.write(0, np.ones(1, np.uint8))
        pool.give_back(region)
        pool.close()
    assert [name for name in os.listdir("/dev/shm") if name.startswith("trendflow")] == []


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    connection = TritonConnection(lambda: f"127.0.0.1:{free_port()}")
    entry = double_entry("double")[0]
    assert code_of(lambda: TritonHandle.load(entry, "cpu", connection)) == "triton_unavailable"


def statistics(served: Served, name: str, units: int = 0) -> Any:
    """What the server has counted, once it has counted `units`.

    It answers first and counts afterwards; a count that never comes ends the test by its time limit.
    """
    with InferenceServerClient(served.state.grpc_url) as client:
        while True:
            (found,) = client.get_inference_statistics(name).model_stats
            if found.inference_count >= units:
                return found


def own_regions(served: Served) -> list[str]:
    with InferenceServerClient(served.state.grpc_url) as client:
        return sorted(client.get_system_shared_memory_status().regions)
