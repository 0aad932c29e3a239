"""What is checked of every training run: names and sentences alone, for whoever shows them without training."""

from __future__ import annotations

from collections.abc import Mapping

MODELS, SPLITS, LEAKAGE = "stored_models", "split_disjointness", "leakage"
COVERAGE, GATE = "coverage", "quality_gate"

RULES: Mapping[str, str] = {
    MODELS: "Every model file has the digest its manifest states and loads.",
    SPLITS: "No channel in two parts, times in order, no golden video trained on: proven on the written file.",
    LEAKAGE: "No feature of the dataset could only be known after the first snapshot.",
    COVERAGE: "The interval from p10 to p90 covers 75 to 95 % of the test rows, in every head.",
    GATE: "The model may replace the current one: beats all comparators, is calibrated and not worse than it.",
}
