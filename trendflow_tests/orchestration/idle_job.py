"""SYNTHETIC: a job of which runs are made for their places in the history alone."""

from dagster import job, op


@op
def nothing() -> None:
    pass


@job
def of_a_partition() -> None:
    nothing()
