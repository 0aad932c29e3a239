"""Typed errors as Dagster shows them."""

from __future__ import annotations

from dagster import Failure, MetadataValue

from trendflow.contracts.errors import TrendFlowError


def failure(error: TrendFlowError) -> Failure:
    """The failure of an asset that stands for no component; only what may pass by itself is tried again."""
    return Failure(
        description=str(error),
        metadata={
            "error_code": MetadataValue.text(error.error_code),
            "error_class": MetadataValue.text(error.error_class),
        },
        allow_retries=error.error_class == "transient",
    )
