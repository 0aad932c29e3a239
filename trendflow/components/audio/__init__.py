"""Components that measure audio."""
