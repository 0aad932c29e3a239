"""Typed errors as Dagster shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import AssetExecutionContext, Failure, MetadataValue

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.queue.names import ERROR_CODE_TAG


def failure(error: TrendFlowError) -> Failure:
    """The failure of the asset that runs here, which stands for no component; its code becomes a tag of the run.

    Only what may pass by itself is tried again.
    """
    context = AssetExecutionContext.get()
    context.instance.add_run_tags(context.run.run_id, {ERROR_CODE_TAG: error.error_code})
    return Failure(
        description=str(error),
        metadata={
            "error_code": MetadataValue.text(error.error_code),
            "error_class": MetadataValue.text(error.error_class),
        },
        allow_retries=error.error_class == "transient",
    )


@contextmanager
def typed_failures() -> Iterator[None]:
    """Whatever typed error leaves the block fails the asset as `failure` says."""
    try:
        yield
    except TrendFlowError as error:
        raise failure(error) from error
