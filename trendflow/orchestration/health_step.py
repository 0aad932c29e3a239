"""Judging the feature vectors of all runs and storing the report; without Dagster, whose import takes seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.health import assess, read_corpus
from trendflow.dataset.health_document import read_reference, to_json
from trendflow.dataset.health_model import HealthReport, ReferenceReport
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import run_path_of
from trendflow.presentation.health_page import render_health_page

HEALTH = "feature_health"


@dataclass(frozen=True)
class StoredHealth:
    """A report and where its two presentations lie in the store."""

    report: HealthReport
    page_key: str
    json_key: str


def load_reference(path: Path, schemas: SchemaRegistry) -> ReferenceReport:
    """An earlier report from a file. Raises `config_invalid` when there is none at `path`."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise TrendFlowError("config_invalid", f"The reference {path.name!r} cannot be read: {reason}.") from exc
    return read_reference(data, schemas)


def judge(
    deployment: Deployment, profile: str, reference: ReferenceReport | None = None, keys: Sequence[str] = ()
) -> HealthReport:
    """The health of the finished runs of a profile, or of those among them that `keys` name; deleted videos have none.

    Raises `dependency_missing` when none has a feature vector, `config_invalid` for an unknown profile, or when videos
    were deleted and no key tells which.
    """
    components = deployment.graph.profile(profile).components
    required = [name for name, component in components.items() if component.required]
    paths = [run_path_of(key) for key in keys] or None
    gone = tombstones(deployment)
    readings = read_corpus(deployment.results, deployment.schemas, profile, required, paths, tombstones=gone)
    return assess(readings, reference)


def store_report(deployment: Deployment, report: HealthReport) -> StoredHealth:
    """Render and store a report, in place of the last one of its profile."""
    folder = f"render_cache/_corpus/{report.profile}"  # no platform begins with an underscore
    stored = StoredHealth(report, f"{folder}/{HEALTH}.html", f"{folder}/{HEALTH}.json")
    deployment.store.put(stored.page_key, render_health_page(report).encode())
    deployment.store.put(stored.json_key, to_json(report))
    return stored
