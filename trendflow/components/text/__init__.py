"""Components that measure text."""
