"""The production shape on one machine: servers and workers as local processes, started from installed packages.

A `Blueprint` declares one service as data; `Fleet` starts, repairs and ends them, and the keeper, a service itself,
repairs without being asked. None of it imports Dagster. Nothing stays in memory: processes are found again by the state
file.
"""
