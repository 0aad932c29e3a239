"""The numbers that sum up a run, one per main component."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trendflow.presentation.formatting import MISSING, difference, fixed, number, percent, plural
from trendflow.presentation.measures import class_counts
from trendflow.presentation.run_view import ComponentView, RunView
from trendflow.presentation.texts import empty_text
from trendflow.presentation.timeline import make_axis
from trendflow.presentation.tracks.sound import NO_STEADY_TEMPO, has_steady_tempo

Maker = Callable[[ComponentView], tuple[str, str]]


@dataclass(frozen=True)
class Headline:
    """One number that sums up a component, or its state when it has none."""

    label: str
    value: str
    detail: str
    muted: bool = False


def headlines(view: RunView) -> list[Headline]:
    """One number per main component of the run, in reading order; none when the source was not decoded."""
    if make_axis(view) is None:
        return []
    made = [
        _headline(view, "cut_detection", "Hard cuts", _cuts),
        _headline(view, "story_structure", "Opening energy", _opening),
        _headline(view, "optical_flow", "Motion", _motion),
        _headline(view, "uniqueness", "Repetition", _repetition),
        _headline(view, "loudness_extractor", "Loudness", _loudness),
        _headline(view, "tempo_extractor", "Tempo", _tempo),
        _headline(view, "core_face_landmarks", "Faces", _faces),
        _headline(view, "core_object_detections", "Most seen object", _objects),
    ]
    return [item for item in made if item is not None]


_EMPTY_HEADLINES = {
    "tempo_all_segments_failed": "No beat",
    "no_faces_in_video": "None",
    "no_detections_above_threshold": "None",
    "audio_silent": "Silent",
    "audio_missing_or_extract_failed": "No audio",
    "too_few_frames": "Too short",
}


def _headline(
    view: RunView, component: str, label: str, make: Callable[[ComponentView], tuple[str, str]]
) -> Headline | None:
    found = view.components.get(component)
    if found is None:
        because = view.skipped_because(component)
        return Headline(label, "Not run", because, muted=True) if because is not None else None
    if found.status == "error":
        return Headline(label, "Error", found.row["error_code"], muted=True)
    if found.status == "empty":
        reason = found.row["empty_reason"]
        return Headline(label, _EMPTY_HEADLINES.get(reason, "Empty"), empty_text(reason), muted=True)
    value, detail = make(found)
    return Headline(label, value, detail)


def _cuts(found: ComponentView) -> tuple[str, str]:
    rate, median = found.feature("cuts_per_minute"), found.feature("shot_duration_median_s")
    return (
        number(found.feature("hard_cut_count"), 6),
        f"{fixed(rate, 1)} per minute · median shot {fixed(median, 1, 's')}",
    )


def _opening(found: ComponentView) -> tuple[str, str]:
    energy, faces = found.feature("hook_energy_diff"), found.feature("hook_face_present_ratio")
    if not math.isfinite(energy):
        return MISSING, "too few samples in the opening"
    return difference(energy), f"against the rest of the video · faces in {percent(faces)}"


def _motion(found: ComponentView) -> tuple[str, str]:
    still, fast = found.feature("static_ratio"), found.feature("high_motion_ratio")
    speed = f"{number(found.feature('motion_curve_median'), 2)}\u202f/s"
    return speed, f"median, in frame lengths · still in {percent(still)}, fast in {percent(fast)} of pairs"


def _repetition(found: ComponentView) -> tuple[str, str]:
    duplicates = found.feature("near_duplicate_ratio")
    return (
        percent(found.feature("repetition_ratio")),
        f"of samples look like another moment · {percent(duplicates)} nearly equal",
    )


def _loudness(found: ComponentView) -> tuple[str, str]:
    peak, loudness_range = found.feature("true_peak_dbtp"), found.feature("loudness_range_lu")
    return (
        fixed(found.feature("lufs_integrated"), 1, "LUFS"),
        f"true peak {fixed(peak, 1, 'dBTP')} · range {fixed(loudness_range, 1, 'LU')}",
    )


def _tempo(found: ComponentView) -> tuple[str, str]:
    valid, agreement = found.feature("tempo_valid_ratio"), found.feature("tempo_agreement")
    return (
        fixed(found.feature("tempo_bpm"), 1, "BPM") if has_steady_tempo(found) else NO_STEADY_TEMPO,
        f"evidence in {percent(valid)} of windows · {percent(agreement)} of these agree",
    )


def _faces(found: ComponentView) -> tuple[str, str]:
    at_most = found.feature("face_count_max")
    return percent(found.feature("face_present_ratio")), f"of frames · at most {number(at_most)} at once"


def _objects(found: ComponentView) -> tuple[str, str]:
    counts = class_counts(found.arrays)
    name, count = next(iter(counts.items()))
    share = percent(float((count > 0).mean()))
    return name, f"in {share} of frames · {plural(len(counts), 'class', 'classes')} in all"
