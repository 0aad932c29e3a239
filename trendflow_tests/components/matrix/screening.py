"""Runs a film through every component of the graph, as a user's video is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.graph import Profile, ProfileComponent
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.loaded import OwnedHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.pool import ModelPool
from trendflow.models.resolve import ResolvedModel, resolve_models
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.inputs import build_inputs
from trendflow.orchestration.runs import RunContext, new_run_id, submit_run
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.components.matrix.films import Film
from trendflow_tests.components.visual.small_models import random_depth, random_places
from trendflow_tests.orchestration.runs import edit_profile


@dataclass(frozen=True)
class Screening:
    """A finished run of one film and what every component made of it."""

    run: RunContext
    film: Film
    finished: Mapping[str, Finished]

    def arrays(self, component: str, stem: str | None = None) -> Mapping[str, np.ndarray]:
        return self.finished[component].artifacts[stem or component][0]

    def meta(self, component: str) -> Mapping[str, Any]:
        return self.finished[component].artifacts[component][1]

    def feature(self, component: str, name: str) -> float:
        arrays = self.arrays(component)
        return float(arrays["feature_values"][arrays["feature_names"].tolist().index(name)])

    def inputs(self, component: str) -> ComponentInputs:
        """What the component was given."""
        with providing(self.run, self.film.document):
            return build_inputs(self.run, component, self.run.manifest())


Screen = Callable[[str], Screening]


class RandomModels:
    """A pool and beside it models with RANDOM weights, for the roles whose weights are not shipped."""

    def __init__(self, shipped: ModelPool, models_dir: Path, folder: Path) -> None:
        self.shipped = shipped
        self.folder = models_dir
        self.handles: dict[str, OnnxHandle] = {}
        for role, handle in {"depth": random_depth(folder), "scene_classifier": random_places(folder)}.items():
            assert isinstance(handle, OnnxHandle)
            self.handles[role] = handle

    @property
    def entries(self) -> dict[str, CatalogueEntry]:
        """By role."""
        return {role: handle.entry for role, handle in self.handles.items()}

    def get(self, entry: CatalogueEntry, device: str | None = None) -> OwnedHandle:
        for handle in self.handles.values():
            if handle.entry.name == entry.name:
                return handle
        return self.shipped.get(entry, device)


def screen(name: str, film: Film, folder: Path, models: RandomModels) -> Screening:
    """Process `film` with every component of the graph, each enabled and required. The run is kept in `folder`.

    Never raises for a component that fails: its error is what it made of the film.
    """
    settings = Settings(home=folder, models=models.folder, min_duration_sec=film.min_duration_sec)
    deployment = Deployment(settings)
    shipped = Catalogue.load()
    entries = {**shipped.entries, **{entry.name: entry for entry in models.entries.values()}}
    vars(deployment).update(pool=models, catalogue=Catalogue(entries, shipped.roles, shipped.unpinned))
    mapping = deployment.graph.profile("starter").models
    edit_profile(deployment, lambda profile: _everything(deployment, profile, film, models.entries))
    run = submit_run(
        deployment,
        locator=str(film.path),
        source_type="local_path",
        platform_id="upload",
        video_id=f"matrix-film-{name.replace('_', '-')}",
        run_id=new_run_id(),
        profile="starter",
        document=film.document,
    )
    # Weights without a licence are refused when a run resolves its models, so they are put beside what it resolved.
    vars(run)["resolved"] = {
        **resolve_models(shipped, mapping, mapping, models.folder),
        **{
            role: ResolvedModel(entry, entry.engine, entry.precision, entry.device_policy)
            for role, entry in models.entries.items()
        },
    }
    finished = {}
    with providing(run, film.document):
        for node in run.enabled:
            finished[node.name] = run_component(run, node.name, sleep=lambda seconds: None)
            persist(run, finished[node.name])
    return Screening(run, film, finished)


def _everything(deployment: Deployment, profile: Profile, film: Film, random: Mapping[str, CatalogueEntry]) -> Profile:
    low, target = film.pictures
    components = {}
    for name, node in deployment.graph.components.items():
        looks = node.sampling is not None and node.sampling.family is None
        sampling = {"min_frames": low, "target_frames": target, "max_frames": target} if looks else {}
        components[name] = ProfileComponent(required=True, params={}, sampling=sampling, line=1)
    models = {**profile.models, **{role: entry.name for role, entry in random.items()}}
    return dataclasses.replace(profile, components=components, models=models)
