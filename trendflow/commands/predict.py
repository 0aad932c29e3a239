"""`trendflow predict`: how many views and likes a processed video will have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trendflow.commands.console import err, out, table
from trendflow.commands.files import write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError

_STYLES = {"ok": "green", "degraded": "yellow", "unavailable": "red"}


def predict(
    key: str,
    models: Sequence[str],
    snapshot: str | None,
    requested: str | None,
    page: Path | None,
    document: Path | None,
    allow_synthetic: bool,
) -> int:
    """Forecast one stored run, keep the report and print it.

    Without `snapshot` the stored snapshots are looked up; where they hold none, there is a report and no number.
    """
    if page is not None and document is not None and os.path.realpath(page) == os.path.realpath(document):
        raise TrendFlowError("config_invalid", "--output and --json name the same file; each needs one of its own.")
    from trendflow.inference.report import to_json
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.forecast_step import choose_snapshot, find_models, forecast, store_forecast

    deployment = open_deployment(load_settings())
    with err.status("forecasting"):
        first, origin = choose_snapshot(deployment, key, snapshot)
        folders = find_models(deployment, models)
        made = forecast(deployment, key, folders, first, requested=requested, allow_synthetic=allow_synthetic)
        stored = store_forecast(deployment, made)
    if page is not None:
        write_output(page, deployment.store.get(stored.page_key))
    if document is not None:
        write_output(document, to_json(made))
    print_forecast(key, made)
    at = made["timestamps"]["data_collection_at"]
    out.print(f"first snapshot {origin if at is None else f'{at}, {origin}'}", highlight=False, soft_wrap=True)
    where = page or deployment.store.local_path(stored.page_key) or stored.page_key
    out.print(f"page {where}", highlight=False, soft_wrap=True)
    return 0


def print_forecast(key: str, document: Mapping[str, Any]) -> None:
    """What a prediction report says, as a table."""
    from trendflow.presentation.forecast_texts import comparator_title, head_order, head_title, order_lines
    from trendflow.presentation.formatting import compact

    status = document["prediction_status"]
    stamp = "  [bold red]SYNTHETIC[/]" if document["synthetic"] else ""
    used = document["model_used"]
    model = "no model" if used is None else used["training_run_id"]
    out.print(f"[bold]{key}[/]  [{_STYLES[status]}]{status}[/]  {model}{stamp}", highlight=False, soft_wrap=True)
    for step in document["degraded_path"]:
        missing = f": {', '.join(step['missing'])}" if step["missing"] else ""
        out.print(f"  {step['from']} → {step['to'] or 'none'}  {step['reason']}{missing}", highlight=False)
    if document["outputs"] is None:
        return
    comparators = document["comparators"]
    rows = []
    for head in sorted(document["outputs"]["heads"], key=head_order):
        found = document["outputs"]["heads"][head]
        if found["masked"]:
            rows.append([head_title(head), "not known at first", *[""] * (2 + len(comparators))])
            continue
        others = [values[head]["absolute"] for values in comparators.values()]
        rows.append(
            [
                head_title(head),
                compact(found["absolute_p50"]),
                f"{compact(found['absolute_p10'])} to {compact(found['absolute_p90'])}",
                f"+{compact(found['delta_p50'])}",
                *("" if value is None else compact(value) for value in others),
            ]
        )
    columns = ["forecast", "median", "10 % to 90 %", "gain", *(comparator_title(name).lower() for name in comparators)]
    out.print(table(None, columns, rows, right=columns[1:]))
    for line in order_lines(document):
        out.print(f"[yellow]Put in order, for the models contradicted each other. {line}[/]", soft_wrap=True)
