"""Components that measure visual."""
