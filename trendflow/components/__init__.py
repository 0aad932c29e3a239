"""Components: pure functions from frames, audio or text plus upstream arrays to an `Artifact`."""
