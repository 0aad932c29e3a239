"""Everything one process needs to work on runs, opened once and shared by all of its assets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from trendflow.components.registry import Registry, load_registry
from trendflow.config import Settings
from trendflow.contracts.graph import ComponentGraph, load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow.state.store import StateStore
from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.observed_backend import StoreObserver
from trendflow.storage.result_store import ResultStore
from trendflow.storage.retry import OPENING

if TYPE_CHECKING:
    from trendflow.models.triton.connection import TritonConnection


@dataclass(frozen=True, eq=False)
class Deployment:
    """Settings plus the opened parts. The parts open on first use, so reading the graph touches no store.

    `observer` hears of the requests to the store.
    """

    settings: Settings
    observer: StoreObserver | None = None

    @cached_property
    def graph(self) -> ComponentGraph:
        return load_graph(self.settings.graph_file or data_path("component_graph.yaml"))

    @cached_property
    def registry(self) -> Registry:
        return load_registry(self.graph, self.schemas, self.catalogue)

    @cached_property
    def schemas(self) -> SchemaRegistry:
        return SchemaRegistry.load()

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.load()

    @cached_property
    def store(self) -> ObjectStore:
        """The object store, after it proved that its conditional writes can be relied on."""
        url, options = self.settings.resolved_store_url, self.settings.store_options
        ObjectStore.open(url, options, retry=OPENING).probe()
        store = ObjectStore.open(url, options)
        return store if self.observer is None else store.observed(self.observer)

    @cached_property
    def results(self) -> ResultStore:
        return ResultStore(self.store)

    @cached_property
    def index(self) -> ArtifactIndex:
        return ArtifactIndex(self.store)

    @cached_property
    def states(self) -> StateStore:
        return StateStore(self.store, self.schemas)

    @cached_property
    def pool(self) -> ModelPool:
        return ModelPool(self.settings.models_dir, self.settings.onnx_threads, lambda: self.triton)

    @cached_property
    def triton(self) -> TritonConnection:
        """The model server, found when it is first needed and again after it was lost."""
        from trendflow.models.triton.connection import TritonConnection
        from trendflow.models.triton.state import endpoint

        return TritonConnection(lambda: endpoint(self.settings.triton_url, self.settings.triton_dir))


_opened: dict[str, Deployment] = {}


def open_deployment(settings: Settings, observer: StoreObserver | None = None) -> Deployment:
    """The deployment for these settings; one per process, so that models and connections stay warm.

    The first call decides on the observer.
    """
    return _opened.setdefault(settings.model_dump_json(), Deployment(settings, observer))
