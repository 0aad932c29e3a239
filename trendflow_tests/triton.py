"""Pytest plugin: a real Triton server on loopback for the whole session.

It serves the models of the starter profile and a few SYNTHETIC ones that misbehave on purpose. The server is started by
the first test that asks and ended with the session; tests that ask belong to `xdist_group("triton")`, so that only one
worker starts one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from onnx import helper

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool
from trendflow.models.store import WeightsStore

if TYPE_CHECKING:
    from trendflow.models.triton.connection import TritonConnection
    from trendflow.models.triton.environment import ServerEnvironment
    from trendflow.models.triton.state import ServerState

STARTER = (
    "centerface_640",
    "efficientnet_lite0_224",
    "facemesh_192",
    "minilm_l6",
    "musicnn_msd",
    "nanodet_m_416",
)


@dataclass(frozen=True)
class Served:
    """The session's server. `entries` are the test models it serves beside the starter models."""

    state: ServerState
    folder: Path
    store: Path
    entries: dict[str, CatalogueEntry]

    def connection(self, **options: bool) -> TritonConnection:
        from trendflow.models.triton.connection import TritonConnection

        return TritonConnection(lambda: self.state.grpc_url, **options)


def double_entry(name: str, **overrides: object) -> tuple[CatalogueEntry, bytes]:
    """y = x + x, float32 [B, 4], on a Triton server."""
    from trendflow_tests.models.builders import entry_for, onnx_bytes

    data = onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])])
    return entry_for(data, **{"name": name, "runtime": "triton", "deadline_ms": 20000, **overrides}), data


def made_here() -> tuple[CatalogueEntry, bytes]:
    """The same function, as a file that was converted from a download."""
    source = {
        "kind": "url",
        "locator": "https://example.org/{path}",
        "revision": "1.0",
        "member": "checkpoint",
        "recipe": "resnet",
        "recipe_version": "1",
        "sha256": "1" * 64,
    }
    return double_entry("made_here", files=[{"path": "model.onnx", "sha256": "from_source"}], source=source)


@pytest.fixture(scope="session")
def triton_environment() -> ServerEnvironment:
    """The server's own Python environment, kept between sessions; skips where its wheel cannot be installed."""
    from trendflow.models.triton.environment import ensure_environment, open_environment
    from trendflow_tests.conftest import CACHE

    given = os.environ.get("TRENDFLOW_TRITON_ENV")
    if given:
        return open_environment(Path(given))
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "triton-env.lock"):
        try:
            return ensure_environment(CACHE / "triton-env")
        except TrendFlowError as error:
            pytest.skip(f"the Triton server cannot be installed here: {error.detail.get('output', error.message)}")


@pytest.fixture(scope="session")
def served(
    triton_environment: ServerEnvironment, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server with the starter models and these test models: `double`, `faulty`, `not_a_number`, `unloadable`.

    And `made_here`, whose weights nobody could pin because this machine made them.
    """
    from trendflow.models.triton.repository import write_repository
    from trendflow.models.triton.server import start, stop
    from trendflow_tests.models.builders import entry_for, onnx_bytes, place
    from trendflow_tests.models.triton.faulty import FAULTY

    folder = tmp_path_factory.mktemp("triton")
    store = folder / "models"
    nan = onnx_bytes([helper.make_node("Div", ["x", "x"], ["y"])])
    made = [
        double_entry("double"),
        double_entry("faulty"),
        (entry_for(nan, name="not_a_number", runtime="triton"), nan),
        double_entry("unloadable"),
    ]
    for entry, data in made:
        place(store, entry, data)
    entry, data = made_here()
    made.append((entry, data))
    candidate = store / "candidate"
    candidate.write_bytes(data)
    WeightsStore(store).prepare(entry, entry.files[0])
    WeightsStore(store).accept(entry, entry.files[0], candidate)
    for name in STARTER:
        (store / name).symlink_to(models_dir / name)
    catalogue = Catalogue.load()
    entries = [entry for entry, _ in made]
    repository = write_repository(
        [*entries, *(catalogue[name] for name in STARTER)], WeightsStore(store), folder / "repository", threads=1
    )
    (repository.path / "faulty" / "1" / "model.py").write_text(FAULTY)
    damaged = repository.path / "unloadable" / "1" / "model.onnx"
    damaged.unlink()  # a link into the store, whose bytes must not change
    damaged.write_bytes(b"not the weights")
    state = start(folder, triton_environment, repository)
    try:
        yield Served(state, folder, store, {entry.name: entry for entry in entries})
    finally:
        stop(folder, state)


@pytest.fixture(scope="session")
def served_pool(served: Served, models_dir: Path) -> Iterator[ModelPool]:
    """Models through the session's server, tensors in shared memory."""
    connection = served.connection()
    yield ModelPool(models_dir, 1, lambda: connection)
    connection.close()
