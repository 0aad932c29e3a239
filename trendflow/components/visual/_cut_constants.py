"""The constants of cut detection, by name. Values and their provenance stand in the thresholds file."""

from __future__ import annotations

from dataclasses import dataclass

from trendflow.contracts.thresholds import THRESHOLDS


@dataclass(frozen=True)
class CutConstants:
    """Times in seconds; luma, differences and distances as shares of full scale."""

    mad_scale: float
    hard_cut_score: float
    hard_cut_ratio: float
    hard_cut_floor: float
    neighbourhood_s: float
    neighbourhood_pairs: int
    cut_separation_s: float
    learned_add: float
    learned_veto: float
    same_picture_correlation: float
    two_pictures_correlation: float
    flat_luma_std: float
    evidence_reach_s: float
    luma_tolerance: float
    fade_min_frames: int
    fade_min_s: float
    fade_min_change: float
    fade_black_luma: float
    flash_step: float
    flash_max_s: float
    flash_net_change: float
    dissolve_min_s: float
    dissolve_max_s: float
    dissolve_mad_min: float
    dissolve_mad_max: float
    dissolve_blend_error: float
    dissolve_blend_distance: float
    dissolve_learned_frames: int
    dissolve_sample_gap_s: float
    dissolve_thumb_gap_s: float
    whip_pan_speed: float
    whip_pan_dispersion: float
    zoom_rate: float
    zoom_background: float
    jump_cosine: float
    jump_move: float
    jump_rescale: float
    contrib_hist: float
    contrib_mad: float
    contrib_ssim_drop: float
    contrib_deep_distance: float


CUTS = THRESHOLDS.bind("cut_detection", CutConstants)
