"""The dataset: one row per video, every column with its provenance, and nothing observed after the first snapshot."""
