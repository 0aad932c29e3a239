"""Measured ratios: every number compares two things on one machine in one run, because absolute times do not travel."""
