"""The asset `prediction`: the forecast of one video run and its page."""

from collections.abc import Iterator, Mapping
from typing import Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetObservation,
    AssetsDefinition,
    Config,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field

from trendflow import __version__
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.schema_docs import markdown_table
from trendflow.dataset.corpus import VECTOR
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.dataset_assets import SNAPSHOTS
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.failures import typed_failures
from trendflow.orchestration.forecast_step import (
    StoredForecast,
    choose_snapshot,
    content_of,
    find_models,
    forecast,
    store_forecast,
)
from trendflow.orchestration.partitions import video_runs
from trendflow.orchestration.report_step import report_location
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.presentation.forecast_texts import head_order, head_title
from trendflow.presentation.formatting import compact

PREDICTION = "prediction"
NO_MODEL = (
    "No model is configured: set TRENDFLOW_FORECAST_MODEL, or `models` of the run, for example to baseline_catboost."
)


class PredictionConfig(Config):
    """What forecasts, and what was seen first."""

    models: list[str] = Field(
        default_factory=list,
        description="Training runs, one of each tier: folders, keys of the store, or assets such as baseline_catboost "
        "for their current run; default is TRENDFLOW_FORECAST_MODEL.",
    )
    snapshot: str | None = Field(
        default=None,
        description="First snapshot: a file, or views=…,published=…,at=…; default is that of the asset `snapshots`.",
    )
    allow_synthetic: bool = Field(default=False, description="Use a SYNTHETIC model; the report is stamped.")


def build_prediction_asset() -> AssetsDefinition:
    """Skipped with the reason as an observation where no model is configured; a failure with its code otherwise."""

    @asset(
        name=PREDICTION,
        deps=[VECTOR, AssetDep(SNAPSHOTS)],
        partitions_def=video_runs,
        group_name="forecast",
        owners=OWNERS,
        kinds={"python", "html"},
        code_version=__version__,
        output_required=False,
        description="Views and likes after 7, 14 and 21 days with intervals, drivers and degraded modes, and the page. "
        "Skipped, with the reason, where no model is configured.",
    )
    def prediction(
        context: AssetExecutionContext, config: PredictionConfig, trendflow: TrendFlowResource
    ) -> Iterator[AssetObservation | MaterializeResult[Any]]:
        opened = trendflow.deployment
        default = opened.settings.forecast_model
        names = config.models or ([] if default is None else [default])
        if not names:
            context.log.warning(NO_MODEL)
            yield AssetObservation(
                asset_key=PREDICTION, partition=context.partition_key, metadata={"skipped": NO_MODEL}
            )
            return
        with typed_failures():
            stored, origin = _forecast(opened, context.partition_key, names, config, context.run.run_id)
        yield MaterializeResult(
            data_version=DataVersion(digest_of(content_of(stored.document))),
            metadata={**_metadata(opened, stored), "first_snapshot": origin},
        )

    return prediction


def _forecast(
    opened: Deployment, run_key: str, names: list[str], config: PredictionConfig, job_id: str
) -> tuple[StoredForecast, str]:
    """The forecast, and where its first snapshot comes from."""
    first, origin = choose_snapshot(opened, run_key, config.snapshot)
    models = find_models(opened, names)
    document = forecast(opened, run_key, models, first, allow_synthetic=config.allow_synthetic, job_id=job_id)
    return store_forecast(opened, document), origin


def _metadata(opened: Deployment, stored: StoredForecast) -> dict[str, Any]:
    document = stored.document
    used = document["model_used"]
    steps = [(step["from"], step["to"], step["reason"]) for step in document["degraded_path"]]
    return {
        **({"SYNTHETIC": True} if document["synthetic"] else {}),
        "status": document["prediction_status"],
        "model": "none" if used is None else used["training_run_id"],
        "forecast": MetadataValue.md(_forecasts(document)),
        "degraded_path": MetadataValue.md(markdown_table(("from", "to", "reason"), steps) if steps else "none"),
        "page": MetadataValue.path(report_location(opened.store, stored.page_key)),
        "json": MetadataValue.path(report_location(opened.store, stored.json_key)),
    }


def _forecasts(document: Mapping[str, Any]) -> str:
    if document["outputs"] is None:
        return "none"
    rows: list[tuple[str | None, ...]] = []
    for head, found in sorted(document["outputs"]["heads"].items(), key=lambda item: head_order(item[0])):
        if found["masked"]:
            rows.append((head_title(head), None, None, None))
        else:
            rows.append((head_title(head), *(compact(found[f"absolute_{name}"]) for name in ("p50", "p10", "p90"))))
    return markdown_table(("forecast", "median", "10 %", "90 %"), rows)
