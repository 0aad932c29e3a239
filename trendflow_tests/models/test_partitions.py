"""Which units share a batch, and with units of which video, changes no result: in process, in torch, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow.models.triton.connection import Session
from trendflow_tests.triton import Served

ENTRY = "efficientnet_lite0_224"
UNITS = 12
"""Half of them from each of two videos."""

Partition = Sequence[Sequence[int]]


@st.composite
def partitions(draw: st.DrawFn) -> list[list[int]]:
    """The units in any order, cut into batches anywhere."""
    order = draw(st.permutations(range(UNITS)))
    cuts = sorted(draw(st.sets(st.integers(1, UNITS - 1))))
    return [list(order[start:stop]) for start, stop in zip([0, *cuts], [*cuts, UNITS], strict=True)]


@pytest.fixture(scope="module")
def units(catalogue: Catalogue, sample_frames: np.ndarray, data_dir: Path) -> np.ndarray:
    """float32 [12, 3, 224, 224]: six frames of the shipped video, six of another, prepared for the encoder."""
    with av.open(str(data_dir / "video" / "people_139s.mp4")) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        others = np.stack([frame for _, frame in zip(range(240), decoded, strict=False)][::40])
    prepare = FramePreprocessing.of(catalogue[ENTRY])
    found = np.concatenate([prepare(frames[: UNITS // 2])[0] for frames in (sample_frames, others)])
    assert len(found) == UNITS
    return found


@pytest.fixture(scope="module")
def alone(pool: ModelPool, catalogue: Catalogue, units: np.ndarray) -> np.ndarray:
    """What each unit gives by itself, in process."""
    handle = pool.get(catalogue[ENTRY])
    return np.concatenate([handle.infer({"images": unit[None]})["embeddings"] for unit in units])


def assert_same(found: Sequence[np.ndarray], partition: Partition, alone: np.ndarray) -> None:
    for embeddings, batch in zip(found, partition, strict=True):
        expected = alone[list(batch)]
        np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", [ENTRY, f"{ENTRY}_torch"])
@settings(max_examples=8)
@given(partition=partitions())
def test_any_partition_gives_the_same_result_in_process(
    pool: ModelPool, catalogue: Catalogue, units: np.ndarray, alone: np.ndarray, name: str, partition: Partition
) -> None:
    if name != ENTRY:
        pytest.importorskip("torch")
    handle = pool.get(catalogue[name])
    assert_same([handle.infer({"images": units[list(batch)]})["embeddings"] for batch in partition], partition, alone)


@pytest.fixture(scope="module")
def ask(served: Served, catalogue: Catalogue) -> Any:
    """Sends batches at once, in turns from two clients, so that the server puts together what comes from both."""
    entry = catalogue[ENTRY].on("triton")
    clients = [Session(served.state.grpc_url) for _ in range(2)]
    clients[0].require(entry)

    def send(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        requests = [
            (clients[number % 2], clients[number % 2].send(entry, {"images": batch}, {"B": len(batch)}))
            for number, batch in enumerate(batches)
        ]
        return [client.result(request)["embeddings"] for client, request in requests]

    yield send
    for client in clients:
        client.close()


@pytest.mark.xdist_group("triton")
@settings(max_examples=8)
@given(partition=partitions())
def test_any_partition_gives_the_same_result_on_a_server_that_mixes_requests(
    ask: Callable[[Sequence[np.ndarray]], list[np.ndarray]], units: np.ndarray, alone: np.ndarray, partition: Partition
) -> None:
    assert_same(ask([units[list(batch)] for batch in partition]), partition, alone)
