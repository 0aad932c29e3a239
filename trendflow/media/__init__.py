"""From a source medium to what components may see: frames, audio windows and per-frame signals."""
