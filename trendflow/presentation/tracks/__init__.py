"""The tracks of the report: one chart per signal, in groups over one time axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trendflow.presentation.run_view import SEGMENTER, RunView
from trendflow.presentation.timeline import Axis, Track, make_axis
from trendflow.presentation.tracks import content, cuts, picture, sound

Builder = Callable[[RunView, Axis], list[Track]]


@dataclass(frozen=True)
class TrackGroup:
    """Tracks that answer one question."""

    id: str
    title: str
    tracks: list[Track]


# Title, and the component each builder draws, in reading order.
_GROUPS: tuple[tuple[str, str, tuple[tuple[str, Builder], ...]], ...] = (
    ("cuts", "Cuts and pace", (("cut_detection", cuts.shots), ("video_pacing", cuts.pace))),
    (
        "story",
        "Story",
        (
            ("story_structure", content.story),
            ("core_clip", content.image_change),
            ("uniqueness", content.repetition),
        ),
    ),
    ("motion", "Motion", (("core_optical_flow", picture.motion), (SEGMENTER, picture.frame_difference))),
    ("picture", "Picture", ((SEGMENTER, picture.brightness), ("shot_quality", picture.shot_quality))),
    (
        "content",
        "Faces and objects",
        (("core_face_landmarks", content.faces), ("core_object_detections", content.objects)),
    ),
    (
        "sound",
        "Sound",
        (
            ("loudness_extractor", sound.loudness),
            ("tempo_extractor", sound.tempo),
            ("clap_extractor", sound.change),
        ),
    ),
)


def build_groups(view: RunView) -> list[TrackGroup]:
    """Every track of the run in reading order. A component outside the run's profile has none."""
    axis = make_axis(view)
    if axis is None:
        return []
    groups = []
    for group_id, title, builders in _GROUPS:
        tracks = [
            track
            for component, build in builders
            if component in view.components or view.skipped_because(component) is not None
            for track in build(view, axis)
        ]
        if tracks:
            groups.append(TrackGroup(group_id, title, tracks))
    return groups
