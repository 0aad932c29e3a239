"""The production shape on one machine: servers and workers as local processes, started from installed packages.

A `Blueprint` declares one service as data; `Fleet` starts, repairs and ends them. It knows neither Dagster nor what the
services do. Nothing of it stays in memory: processes are found again by the state file.
"""
