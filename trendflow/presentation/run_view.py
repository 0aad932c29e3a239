"""What a page needs of one run, gathered once. Rendering never touches a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import DerivedStatus, run_status
from trendflow.presentation.thumbnails import (
    FrameReader,
    Thumbnail,
    load_thumbnails,
    make_thumbnails,
    plan_thumbnails,
    store_thumbnails,
)

if TYPE_CHECKING:
    from trendflow.contracts.schema import SchemaRegistry
    from trendflow.storage.object_store import ObjectStore
    from trendflow.storage.result_store import ResultStore

Arrays = Mapping[str, np.ndarray]

SEGMENTER = "segmenter"
DENSE = "dense_signals"
TEXT = "text_processor"
FEATURES = ("feature_names", "feature_values")

# Members each page reads. The rest (image embeddings, meshes) is most of the bytes and stays in the store.
PAGE_ARRAYS: dict[str, tuple[str, ...]] = {
    SEGMENTER: ("union_timestamps_sec", "component_names", "component_indices_row_splits", "component_budget"),
    "core_clip": ("frame_indices", "times_s", "consecutive_cosine_prev"),
    "core_object_detections": (
        "frame_indices",
        "times_s",
        "det_row_splits",
        "boxes_norm",
        "scores",
        "class_ids",
        "class_names",
    ),
    "core_face_landmarks": ("frame_indices", "times_s", "face_row_splits", "face_boxes_norm", "face_count"),
    "core_optical_flow": (
        "times_s",
        "pair_reliable_mask",
        "motion_norm_per_sec_mean",
        "cam_tx_per_sec_norm",
        "cam_ty_per_sec_norm",
        "cam_zoom_rate_per_sec",
        "cam_rotation_per_sec",
        "cam_shake_std_norm",
    ),
    "cut_detection": (
        "cut_score",
        "event_type_id",
        "event_time_s",
        "event_start_time_s",
        "event_end_time_s",
        "event_strength",
        "event_is_jump_cut",
        "shot_start_time_s",
        "shot_end_time_s",
    ),
    "shot_quality": ("times_s", "frame_feature_names", "frame_features", "shot_ids", "shot_features_mean"),
    "story_structure": (
        "times_s",
        "story_energy_curve",
        "story_energy_peaks_times_s",
        "story_energy_peaks_values",
    ),
    "uniqueness": ("times_s", "max_sim_to_other"),
    "video_pacing": ("times_s", "semantic_change_rate_per_sec", "color_change_rate_per_sec", "cut_density_8"),
    # The embeddings of the windows are few; the change from one to the next is drawn.
    "clap_extractor": ("segment_center_sec", "segment_mask", "embedding_sequence"),
    "loudness_extractor": ("segment_center_sec", "segment_mask", "segment_lufs"),
    "tempo_extractor": (
        "segment_start_sec",
        "segment_end_sec",
        "segment_center_sec",
        "segment_mask",
        "bpm_by_segment",
        "pulse_clarity_by_segment",
        "tempo_warnings",
    ),
}
DENSE_ARRAYS = ("pts_sec", "lowres_mad", "luma_mean", "hist_l1", "corrupt_mask")


@dataclass(frozen=True)
class ComponentView:
    """One component of the run: its manifest row, the arrays the page shows and the artifact's meta."""

    row: Mapping[str, Any]
    arrays: Arrays = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.row["status"])

    def feature(self, name: str) -> float:
        """A scalar feature; NaN when this artifact does not hold it."""
        return features_of(self.arrays).get(name, math.nan)


@dataclass(frozen=True)
class RunView:
    """One run as pages see it.

    `units` maps component → feature → unit, `dense` holds the
    Segmenter's per-frame signals (empty when it failed).
    """

    manifest: Mapping[str, Any]
    status: DerivedStatus
    components: Mapping[str, ComponentView] = field(default_factory=dict)
    dense: Arrays = field(default_factory=dict)
    thumbnails: Sequence[Thumbnail] = ()
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def run(self) -> Mapping[str, Any]:
        """The run block of the manifest."""
        block: Mapping[str, Any] = self.manifest["run"]
        return block

    @property
    def duration_sec(self) -> float | None:
        """Length of the time axis; None when the source was never decoded."""
        for value in (self.feature(SEGMENTER, "duration_sec"), self.run["source"].get("duration_sec")):
            if value is not None and math.isfinite(value) and value > 0:
                return float(value)
        return None

    def arrays(self, component: str) -> Arrays:
        """Arrays of a component; an empty map when it has none."""
        found = self.components.get(component)
        return found.arrays if found else {}

    def feature(self, component: str, name: str) -> float:
        found = self.components.get(component)
        return found.feature(name) if found else math.nan

    def skipped_because(self, component: str) -> str | None:
        """Why a component of this run's profile did not run, or None."""
        return next((entry["because"] for entry in self.run["skipped"] if entry["name"] == component), None)


def features_of(arrays: Arrays) -> dict[str, float]:
    """The scalars of an artifact by name."""
    if "feature_names" not in arrays:
        return {}
    return dict(zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True))


def load_run_view(
    results: ResultStore,
    run_path: str,
    *,
    required: Collection[str],
    registry: SchemaRegistry | None = None,
) -> RunView:
    """Read what the report shows of the run at `<platform_id>/<video_id>/<run_id>`.

    `required` names the components of the run's profile that must not fail; they decide its status. Every artifact is
    checked against the sha256 of its manifest row. Raises `dependency_missing` when the run has no manifest,
    `artifact_validation_failed` when a file is not what the manifest says.
    """
    manifest = results.read_manifest(run_path)
    if manifest is None:
        raise TrendFlowError("dependency_missing", "This run has no manifest.", kind="manifest")
    components: dict[str, ComponentView] = {}
    dense: Arrays = {}
    for row in manifest["components"]:
        name = row["name"]
        sha256 = {_stem(artifact["path"]): artifact["sha256"] for artifact in row["artifacts"]}
        wanted = () if row["status"] == "error" else (*PAGE_ARRAYS.get(name, ()), *FEATURES)
        stored = results.read_artifact(run_path, name, names=wanted, expected_sha256=sha256[name])
        components[name] = ComponentView(row, stored.arrays, stored.meta)
        if DENSE in sha256:
            dense = results.read_artifact(
                run_path, name, DENSE, names=DENSE_ARRAYS, expected_sha256=sha256[DENSE]
            ).arrays
    return RunView(
        manifest=manifest,
        status=run_status(manifest, required),
        components=components,
        dense=dense,
        units=feature_units(registry, components) if registry else {},
    )


def feature_units(registry: SchemaRegistry, components: Mapping[str, ComponentView]) -> dict[str, dict[str, str]]:
    """Units the schemas declare, by component and feature."""
    units: dict[str, dict[str, str]] = {}
    for name, component in components.items():
        schema = registry.get(component.row["schema_version"])
        declared = {feature: schema.feature(feature) for feature in features_of(component.arrays)}
        units[name] = {feature: found.unit or "" for feature, found in declared.items() if found}
    return units


def with_thumbnails(view: RunView, store: ObjectStore, open_frames: Callable[[], FrameReader] | None) -> RunView:
    """The view with its pictures: those in the render cache, else new ones from the frames, which are then cached.

    `open_frames` is called only when pictures are missing; pass None when the run keeps no frames. A run whose
    Segmenter was reused has the frames of the run it came from, hence also its pictures. Without any of them (frames
    expired, cache cleared) the view stays without pictures.
    """
    segmenter = view.arrays(SEGMENTER)
    if "union_timestamps_sec" not in segmenter:
        return view
    wanted = plan_thumbnails(
        segmenter,
        view.arrays("cut_detection"),
        view.arrays("core_object_detections"),
        view.arrays("core_face_landmarks"),
    )
    run_path = "/".join(view.run[key] for key in ("platform_id", "video_id", "run_id"))
    made = load_thumbnails(store, run_path)
    if not _covers(made, wanted):
        if open_frames is not None:
            made = make_thumbnails(open_frames(), wanted, segmenter["union_timestamps_sec"][wanted])
        elif reused := view.components[SEGMENTER].row["reused_from"]:
            made = load_thumbnails(store, f"{run_path.rpartition('/')[0]}/{reused['run_id']}")
        store_thumbnails(store, run_path, made)
    return replace(view, thumbnails=tuple(made))


def _covers(thumbnails: Sequence[Thumbnail], wanted: np.ndarray) -> bool:
    return set(wanted.tolist()) <= {thumb.union_index for thumb in thumbnails}


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]
