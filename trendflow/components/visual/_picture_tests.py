"""Tests on small pictures that confirm or refute what the dense signals suggest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trendflow.components.visual._cut_constants import CUTS
from trendflow.components.visual._cut_events import Event, EventType, gradual_event
from trendflow.components.visual._cut_score import DenseSignals
from trendflow.components.visual._sampled_pictures import Pictures


def without_exposure_steps(dense: DenseSignals, candidates: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Cut candidates but for those with the same picture on both sides, up to brightness and contrast.

    A sudden change of exposure moves every bin of the histogram and every pixel, so the score alone takes it for a
    cut. It is refuted only where two pictures within ±`evidence_reach_s` have no other candidate between them.

    Method: no hard cut is where the thumbnails right before and after it, each at most `evidence_reach_s` away and with
    no other candidate between them, correlate in luma (Pearson) by at least `same_picture_correlation`; a thumbnail
    whose luma spreads by less than `flat_luma_std` correlates with none.
    """
    kept = []
    for j in candidates:
        after = int(np.searchsorted(pictures.times_s, dense.t[j] - 5e-7))
        if 0 < after < len(pictures):
            before_s, after_s = pictures.times_s[after - 1], pictures.times_s[after]
            near = dense.t[j] - before_s <= CUTS.evidence_reach_s and after_s - dense.t[j] <= CUTS.evidence_reach_s
            between = (dense.t[candidates] > before_s) & (dense.t[candidates] <= after_s)
            if near and between.sum() == 1 and same_picture(pictures.luma(after - 1), pictures.luma(after)):
                continue
        kept.append(j)
    return np.array(kept, dtype=np.int64)


def same_picture(a: np.ndarray, b: np.ndarray) -> bool:
    """True when two luma pictures differ in gain and offset only. Pictures without structure never qualify."""
    return _correlation(a, b) >= CUTS.same_picture_correlation


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two luma pictures; NaN, which fails every comparison, when one has no structure."""
    if min(a.std(), b.std()) < CUTS.flat_luma_std:
        return float("nan")
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))


def dissolves_by_blending(dense: DenseSignals, pictures: Pictures, cuts: np.ndarray) -> list[Event]:
    """Dissolves whose middle picture is the mean of a picture before and one after.

    Every window of three pictures a < m < b, m in the middle, 0.3 to 3 s long, is tested while all frame
    differences inside stay in the range of a slow change and no hard cut falls into it. Of overlapping windows the
    one with the largest distance ‖x_a - x_b‖₁ that is not blend error is the dissolve.

    The blend must hold for the pictures as they are and with their mean colour removed: a scene whose exposure
    adapts blends perfectly otherwise.

    Method: of thumbnails at least `dissolve_thumb_gap_s` apart, a and b equally many before and after m are a dissolve
    if they are `dissolve_min_s` to `dissolve_max_s` apart, lowres_mad of every frame between stays in
    `dissolve_mad_min`…`dissolve_mad_max` without a hard cut, the mean |a − b| is at least `dissolve_blend_distance` and
    the mean |m − (a + b)/2| at most `dissolve_blend_error` of it, both also after each picture's mean colour is taken
    off, and a and b are not the same picture by `same_picture_correlation`. Of overlapping ones the one with the
    largest difference of the two means is kept; its strength is the mean |a − b|, R, G and B in [0, 1].
    """
    pictures = _thinned(pictures)
    frames = np.searchsorted(dense.t, pictures.times_s - 5e-7)
    slow = (dense.mad >= CUTS.dissolve_mad_min) & (dense.mad <= CUTS.dissolve_mad_max)
    slow[cuts] = False
    blocked = np.concatenate([[0], np.cumsum(~slow)])
    found: list[tuple[float, Event]] = []
    count = len(pictures)
    for half in range(1, (count - 1) // 2 + 1):
        middle = np.arange(half, count - half)
        length = pictures.times_s[middle + half] - pictures.times_s[middle - half]
        if length.min() > CUTS.dissolve_max_s:
            break
        fits = (length >= CUTS.dissolve_min_s - 1e-9) & (length <= CUTS.dissolve_max_s + 1e-9)
        fits &= blocked[frames[middle + half] + 1] == blocked[frames[middle - half] + 1]
        for m in middle[fits]:
            distance, error = _blend(pictures.rgb, m - half, m, m + half)
            if distance > 0 and not same_picture(pictures.luma(m - half), pictures.luma(m + half)):
                start, end = int(frames[m - half]), int(frames[m + half])
                event = gradual_event(EventType.DISSOLVE, dense, start, end, distance)
                found.append((distance - error, event))
    return without_overlap([event for _, event in sorted(found, key=lambda item: (-item[0], item[1].frame))])


def _blend(rgb: np.ndarray, a: int, m: int, b: int) -> tuple[float, float]:
    """(‖x_a - x_b‖₁, ‖x_m - ½(x_a + x_b)‖₁) as means over pixels; (0, 0) when m is no blend of a and b."""
    first, middle, last = (rgb[i].astype(np.float32) / 255 for i in (a, m, b))
    across, off = first - last, middle - (first + last) / 2
    distance, error = float(np.abs(across).mean()), float(np.abs(off).mean())
    if not _is_blend(distance, error):
        return 0.0, 0.0
    across -= across.mean(axis=(0, 1))
    off -= off.mean(axis=(0, 1))
    return (distance, error) if _is_blend(float(np.abs(across).mean()), float(np.abs(off).mean())) else (0.0, 0.0)


def _is_blend(distance: float, error: float) -> bool:
    return distance >= CUTS.dissolve_blend_distance and error <= CUTS.dissolve_blend_error * distance


def fades_or_dissolves(
    fades: Sequence[Event], dissolves: Sequence[Event], pictures: Pictures
) -> tuple[list[Event], list[Event]]:
    """Give every change that looks like a fade and like a dissolve one name; returns (fades, dissolves).

    A fade is a blend with black and a dissolve out of a dark picture starts at black's luma. The change is a
    dissolve when both ends show structure and not the same one, else it is a fade.

    Method: where a fade and a dissolve overlap, it is the dissolve if the thumbnails around both correlate by at most
    `two_pictures_correlation`, else the fade.
    """
    kept = list(fades)
    confirmed: list[Event] = []
    for dissolve in dissolves:
        rivals = [fade for fade in kept if fade.overlaps(dissolve)]
        if all(_two_pictures(fade, dissolve, pictures) for fade in rivals):
            kept = [fade for fade in kept if fade not in rivals]
            confirmed.append(dissolve)
    return kept, confirmed


def _two_pictures(fade: Event, dissolve: Event, pictures: Pictures) -> bool:
    first = int(np.searchsorted(pictures.times_s, min(fade.start_s, dissolve.start_s) + 5e-7, side="right")) - 1
    last = int(np.searchsorted(pictures.times_s, max(fade.end_s, dissolve.end_s) - 5e-7))
    if first < 0 or last >= len(pictures):
        return False
    return _correlation(pictures.luma(first), pictures.luma(last)) <= CUTS.two_pictures_correlation


def _thinned(pictures: Pictures) -> Pictures:
    """Pictures at least `dissolve_thumb_gap_s` apart; the test gains nothing from denser ones."""
    kept: list[int] = []
    last = -np.inf
    for i, time in enumerate(pictures.times_s.tolist()):
        if time - last >= CUTS.dissolve_thumb_gap_s - 1e-9:
            kept.append(i)
            last = time
    return Pictures(pictures.times_s[kept], pictures.rgb[kept])


def without_overlap(events: Sequence[Event]) -> list[Event]:
    """Events in the given order of preference, without those that overlap a preferred one."""
    kept: list[Event] = []
    for event in events:
        if not any(event.overlaps(other) for other in kept):
            kept.append(event)
    return kept


def can_confirm_dissolves(pictures: Pictures) -> bool:
    """True when the pictures are close enough for three of them to fall into a dissolve of usual length."""
    gaps = np.diff(pictures.times_s)
    return len(gaps) >= 2 and float(np.median(gaps)) <= CUTS.dissolve_sample_gap_s
