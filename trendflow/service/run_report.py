"""The component report of a run: modality > group of components > component > metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trendflow.contracts.manifest import Manifest
from trendflow.service.parts import ComponentPlace
from trendflow.storage.object_store import ObjectNotFound
from trendflow.storage.result_store import ResultStore

_NAMES, _VALUES = "feature_names", "feature_values"
_COPIED = ("status", "empty_reason", "error", "error_code", "duration_ms", "cache_hit", "warnings", "retry_count")


def component_report(
    results: ResultStore, run_path: str, manifest: Manifest, places: Mapping[str, ComponentPlace]
) -> dict[str, Any]:
    """What every component of the run found, as far as it is a number with a name.

    Groups are kinds of components. A metric is null where the component could not measure it; components that store
    no table of features have no metrics. Raises as reading artifacts does.
    """
    modalities: dict[str, dict[str, dict[str, Any]]] = {}
    for row in manifest["components"]:
        place = places.get(row["name"])
        modality = place.processor if place is not None else "other"
        group = modalities.setdefault(modality, {}).setdefault(row["kind"], {})
        group[row["name"]] = {**{name: row[name] for name in _COPIED}, "metrics": _metrics(results, run_path, row)}
    run = manifest["run"]
    return {
        "run_id": run["run_id"],
        "video_id": run["video_id"],
        "platform_id": run["platform_id"],
        "profile": run["profile"],
        "finished_at": run["finished_at"],
        "warnings": run["warnings"],
        "skipped": run["skipped"],
        "modalities": modalities,
    }


def _metrics(results: ResultStore, run_path: str, row: Mapping[str, Any]) -> dict[str, float | None]:
    if row["status"] != "ok":
        return {}
    main = row["artifacts"][0]
    stem = main["path"].rpartition("/")[2].removesuffix(".npz")
    try:
        # The whole file, so that its digest can be compared: a report must not quote a damaged one.
        arrays = results.read_artifact(run_path, row["name"], stem, expected_sha256=main["sha256"]).arrays
    except ObjectNotFound:  # kept for fewer days than the manifest
        return {}
    if _NAMES not in arrays or _VALUES not in arrays:
        return {}
    pairs = zip(arrays[_NAMES].tolist(), arrays[_VALUES].ravel().tolist(), strict=True)
    return {str(name): float(value) if math.isfinite(value) else None for name, value in pairs}
