"""What the tests of runs share: types of their fixtures, edits of a deployment, and questions to a stored run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from trendflow.contracts.graph import Profile, ProfileComponent
from trendflow.contracts.package_data import data_path
from trendflow.contracts.video_document import VideoDocument
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext, new_run_id, submit_run
from trendflow.orchestration.validation import validate_run
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import run_error, run_status
from trendflow.storage.run_validation import Finding

AUDIO = {"segmenter", "loudness_extractor", "tempo_extractor"}
"""The components that need no model: the smallest run there is to reuse."""
TEXT = VideoDocument(title="A title", description="What the clip would be about if it were about anything.")


class Submit(Protocol):
    def __call__(
        self,
        deployment: Deployment,
        source: Path,
        video_id: str = "synthetic-clip",
        force: bool = False,
        document: VideoDocument | None = None,
    ) -> RunContext: ...


def submit_file(
    deployment: Deployment,
    source: Path | str,
    video_id: str = "synthetic-clip",
    force: bool = False,
    document: VideoDocument | None = None,
    *,
    run_id: str | None = None,
    profile: str = "starter",
) -> RunContext:
    """A run of a file on this machine, with an id of its own where none is given."""
    return submit_run(
        deployment,
        locator=str(source),
        source_type="local_path",
        platform_id="upload",
        video_id=video_id,
        run_id=run_id or new_run_id(),
        profile=profile,
        force_recompute=force,
        document=document,
    )


class Here(Protocol):
    def __call__(self, run: RunContext) -> str: ...


class Execute(Protocol):
    def __call__(self, run: RunContext, only: set[str] | None = None) -> dict[str, Finished]: ...


def write_graph(path: Path, *components: str) -> Path:
    """The shipped graph with a starter profile of these components alone, and the models they need."""
    graph = yaml.safe_load(data_path("component_graph.yaml").read_text(encoding="utf-8"))
    profile = graph["profiles"]["starter"]
    profile["components"] = {name: profile["components"][name] for name in components}
    roles = {role for name in components for role in graph["components"][name]["roles"]["required"]}
    profile["models"] = {role: entry for role, entry in profile["models"].items() if role in roles}
    # What adds components extends the starter as it is shipped.
    graph["profiles"].pop("baseline")
    graph["drafts"].pop("profiles")
    path.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    return path


def write_quick_graph(path: Path, low: int = 8, target: int = 12) -> Path:
    """The shipped graph; those who run a model on pictures of a starter video see `low` to `target` of them."""
    graph = yaml.safe_load(data_path("component_graph.yaml").read_text(encoding="utf-8"))
    for name, node in graph["profiles"]["starter"]["components"].items():
        if _looks_at_pictures(name):
            node["sampling"] = {"min_frames": low, "target_frames": target}
    path.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    return path


def edit_profile(deployment: Deployment, edit: Callable[[Profile], Profile]) -> None:
    """Put an edited starter profile in place of the deployment's own, before anything is submitted."""
    graph = deployment.graph
    vars(deployment)["graph"] = dataclasses.replace(graph, profiles={"starter": edit(graph.profile("starter"))})
    vars(deployment).pop("registry", None)


def with_profile(deployment: Deployment, change: Callable[[dict[str, ProfileComponent]], None]) -> None:
    """Edit which components the starter profile has, and how."""

    def edit(profile: Profile) -> Profile:
        components = dict(profile.components)
        change(components)
        return dataclasses.replace(profile, components=components)

    edit_profile(deployment, edit)


def optional(*names: str) -> Callable[[dict[str, ProfileComponent]], None]:
    def change(components: dict[str, ProfileComponent]) -> None:
        for name in names:
            components[name] = dataclasses.replace(components[name], required=False)

    return change


def only(*names: str) -> Callable[[dict[str, ProfileComponent]], None]:
    def change(components: dict[str, ProfileComponent]) -> None:
        for name in set(components) - set(names):
            del components[name]

    return change


def _looks_at_pictures(component: str) -> bool:
    return component.startswith("core_") or component in ("shot_quality", "optical_flow")


def fewer_pictures(low: int, target: int) -> Callable[[dict[str, ProfileComponent]], None]:
    """A clip of some seconds needs no 200 frames for whoever runs a model on them."""

    def change(components: dict[str, ProfileComponent]) -> None:
        for name, node in components.items():
            if _looks_at_pictures(name):
                sampling = {"min_frames": low, "target_frames": target}
                components[name] = dataclasses.replace(node, sampling=sampling)

    return change


def replace_code(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, component: str, run: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Let `run` stand in for the component's own function, which is returned."""
    module = deployment.registry[component].module
    assert module is not None
    real = module.run
    monkeypatch.setattr(module, "run", run)
    return real


def breaking(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, component: str, error: Exception) -> None:
    def run(inputs: object) -> None:
        raise error

    replace_code(deployment, monkeypatch, component, run)


def problems(deployment: Deployment, run_path: str) -> list[Finding]:
    """Why `validate` would refuse the run."""
    return [found for found in validate_run(deployment, run_path) if found.severity == "problem"]


def assert_state_agrees(run: RunContext) -> None:
    """What the journal says of a run that ended is what its manifest says, in the export and in the state files too."""
    deployment, manifest = run.deployment, run.manifest()
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    rows = {row["name"]: row for row in manifest["components"]}
    skipped = {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]}
    assert rows.keys() | skipped.keys() == view.components.keys()
    for name, row in rows.items():
        found = view.components[name]
        assert found["status"] == {"ok": "success", "empty": "empty", "error": "error"}[row["status"]]
        assert (found["error"], found["error_code"]) == (row["error"], row["error_code"])
        assert (found["cache_hit"], found["retry_count"]) == (row["cache_hit"], row["retry_count"])
        assert found["artifact_paths"] == [artifact["path"] for artifact in row["artifacts"]]
    for name, because in skipped.items():
        assert (view.components[name]["status"], view.components[name]["error"]) == ("skipped", because)
    error = run_error(run, manifest)
    assert view.run["status"] == run_status(run, manifest)
    assert (view.run["error_code"], view.run["error"]) == (error and error.error_code, error and error.message)
    assert view.run["warnings"] == manifest["run"]["warnings"]
    assert view.run["resolved_models"] == manifest["run"]["resolved_models"]
    folder = f"state/{run.run_path}"
    assert json.loads(deployment.store.get(f"{folder}/run_state.json")) == view.run
    assert [json.loads(line) for line in deployment.store.get(f"{folder}/state_events.jsonl").splitlines()] == [
        event.as_dict() for event in deployment.states.events(run.run_path)
    ]


def origins(results: Mapping[str, Finished]) -> dict[str, str]:
    return {name: result.origin for name, result in results.items()}


def statuses(run: RunContext) -> dict[str, str]:
    return {row["name"]: row["status"] for row in run.manifest()["components"]}


def digests(run: RunContext) -> dict[str, dict[str, str]]:
    """Component → artifact path → content digest, as the manifest has them."""
    return {
        row["name"]: {artifact["path"]: artifact["content_digest"] for artifact in row["artifacts"]}
        for row in run.manifest()["components"]
    }
