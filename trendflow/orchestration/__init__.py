"""Orchestration: what runs when, what is reused, and how it is recorded. The only package that knows Dagster."""
