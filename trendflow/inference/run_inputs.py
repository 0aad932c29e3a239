"""What a stored run offers to a forecast: its feature vector, the versions that made it, and how much was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import partition_key_of
from trendflow.contracts.manifest import Manifest, find_row
from trendflow.contracts.vocab import WARNINGS
from trendflow.dataset.corpus import VECTOR
from trendflow.dataset.table.columns import family_of
from trendflow.dataset.table.content_features import Content, read_content
from trendflow.dataset.table.selection import ComponentVersion, component_versions, models_for_tests
from trendflow.storage.object_store import ObjectNotFound
from trendflow.storage.result_store import ResultStore

_SEGMENTER = "segmenter"
_SEGMENTER_MEMBERS = ("union_timestamps_sec", "segment_mask")


@dataclass(frozen=True)
class RunInputs:
    """A finished run. `content`: its feature vector, None where it has none. `components`: what computed each.

    `frames` and `audio_segments`: how many the Segmenter gave to the components, None where its artifact is not kept.
    `test_models`: those with random weights or fixtures. `warnings`: of the run and its components, from the closed
    list of the contracts.
    """

    platform_id: str
    video_id: str
    run_id: str
    created_at: str
    sampling_policy_version: str
    config_hash: str
    duration_seconds: float | None
    components: Mapping[str, ComponentVersion]
    test_models: tuple[str, ...]
    content: Content | None
    frames: int | None
    audio_segments: int | None
    warnings: tuple[str, ...]

    @property
    def kinds(self) -> Mapping[str, str]:
        """Component → kind, from which its family follows."""
        return {name: found.kind for name, found in self.components.items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Families of which the vector holds at least one value."""
        if self.content is None:
            return ()
        present = np.isfinite(self.content.values)
        components = {self.content.layout.components[at] for at in np.flatnonzero(present).tolist()}
        held = {family_of(self.kinds.get(name, "")) for name in components}
        return tuple(name for name in ("visual", "audio", "text") if name in held)


def read_run_inputs(results: ResultStore, run_path: str) -> RunInputs:
    """Read a finished run. `run_path`: platform, video and run.

    Raises `dependency_missing` for a run that is not there or not finished, and what reading its artifacts raises.
    """
    manifest = results.read_manifest(run_path)
    key = partition_key_of(run_path)
    if manifest is None:
        raise TrendFlowError("dependency_missing", f"The store holds no run {key}.", kind="manifest")
    if manifest["run"]["finished_at"] is None:
        raise TrendFlowError("dependency_missing", f"The run {key} is not finished.", kind="manifest")
    vector = find_row(manifest, VECTOR)
    content = None
    if vector is not None and vector["status"] == "ok":
        content = read_content(results, run_path, vector["artifacts"][0]["sha256"])
    frames, segments = _looked_at(results, manifest, run_path)
    block = manifest["run"]
    told = {*block["warnings"], *(code for row in manifest["components"] for code in row["warnings"])}
    return RunInputs(
        platform_id=block["platform_id"],
        video_id=block["video_id"],
        run_id=block["run_id"],
        created_at=block["created_at"],
        sampling_policy_version=block["sampling_policy_version"],
        config_hash=block["config_hash"],
        duration_seconds=block["source"].get("duration_sec"),
        components=component_versions(manifest),
        test_models=models_for_tests(manifest),
        content=content,
        frames=frames,
        audio_segments=segments,
        warnings=tuple(sorted(told & WARNINGS)),
    )


def _looked_at(results: ResultStore, manifest: Manifest, run_path: str) -> tuple[int | None, int | None]:
    """Frames and audio windows; only the two members needed are fetched."""
    row = find_row(manifest, _SEGMENTER)
    if row is None or row["status"] != "ok":
        return None, None
    try:
        arrays = results.read_artifact(run_path, _SEGMENTER, names=_SEGMENTER_MEMBERS).arrays
    except ObjectNotFound:
        return None, None
    return len(arrays["union_timestamps_sec"]), int(np.count_nonzero(arrays["segment_mask"]))
