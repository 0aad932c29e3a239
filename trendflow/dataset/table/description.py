"""`dataset_metadata.json`: what a dataset is, what it was made of, and what it lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trendflow.contracts.canonical import utc_text
from trendflow.dataset.table.columns import DOCUMENT_SEEN, FIRST_SEEN, METADATA, PUBLISHED, ColumnProvenance
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.first_sight import FirstSight
from trendflow.dataset.table.metadata_features import AGE_BUCKETS
from trendflow.dataset.table.selection import Refusal
from trendflow.dataset.targets import Targets

SCHEMA_VERSION = "dataset_metadata_v1"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Description:
    """What `describe` speaks of. `versions` as in `build`, `import_counts` per rule of the import."""

    created_at: str
    version: str
    fingerprint: str
    synthetic: bool
    table: pa.Table
    provenance: Sequence[ColumnProvenance]
    spec: FeatureSpec
    versions: Mapping[str, Any]
    sights: Sequence[FirstSight]
    targets: Targets
    import_counts: Mapping[str, int]
    refused: Sequence[Refusal]


def describe(found: Description) -> dict[str, Any]:
    """The document without `files`, which whoever writes them adds."""
    table, n_rows = found.table, found.table.num_rows
    heads = sorted(name.removeprefix("mask_") for name in table.column_names if _is_mask(name))
    masks = {head: np.asarray(table[f"mask_{head}"].to_numpy(), dtype=bool) for head in heads}
    with_target = int(np.any(list(masks.values()), axis=0).sum()) if masks else 0
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": found.created_at,
        "dataset_version": found.version,
        "dataset_fingerprint": found.fingerprint,
        "synthetic": found.synthetic,
        "synthetic_targets": found.synthetic,
        **found.versions,
        "feature_spec_version": found.spec.version,
        "feature_spec_hash": found.spec.hash,
        "n_rows": n_rows,
        "n_videos": n_rows,
        "n_channels": len(table["channel_id"].unique()),
        "n_feature_columns": len(found.provenance),
        "rows_with_real_targets": 0 if found.synthetic else with_target,
        "horizons": sorted({int(head.rpartition("_")[2].removesuffix("d")) for head in heads}),
        "mask_coverage": {head: float(mask.mean()) if n_rows else 0.0 for head, mask in masks.items()},
        "mask_reasons": {head: _counts(table[f"mask_reason_{head}"]) for head in heads},
        "edge_cases": _edge_cases(found),
        "included_components": sorted({column.component for column in found.provenance} - {METADATA}),
        "channel_enrichment": _channels(found),
        "time_range": {name: _range(table[name]) for name in (PUBLISHED, FIRST_SEEN)},
        "age_bucket_counts": {bucket: _counts(table["age_bucket"]).get(bucket, 0) for bucket in AGE_BUCKETS},
        "language_counts": _languages(table),
        "excluded": dict(sorted(Counter(refusal.reason for refusal in found.refused).items())),
    }


def _is_mask(name: str) -> bool:
    return name.startswith("mask_") and name.endswith("d") and not name.startswith("mask_reason_")


def _edge_cases(found: Description) -> dict[str, int]:
    """Rules of the import that fired, falls of counters, and pages and texts of runs that were seen too late."""
    keys = set(zip(found.table["platform_id"].to_pylist(), found.table["video_id"].to_pylist(), strict=True))
    falls = [fall for fall in found.targets.report["falls"] if (fall["platform_id"], fall["video_id"]) in keys]
    of_runs = any(column.observed_at == DOCUMENT_SEEN for column in found.provenance)
    return {
        **{f"import_{rule}": count for rule, count in sorted(found.import_counts.items()) if count},
        "falls": len(falls),
        "falls_masked": sum(fall["treatment"] != "floored" for fall in falls),
        "falls_floored": sum(fall["treatment"] == "floored" for fall in falls),
        "documents_too_late": sum(sight.document_late for sight in found.sights),
        "run_documents_too_late": sum(sight.run_document_late for sight in found.sights) if of_runs else 0,
    }


def _channels(found: Description) -> dict[str, int]:
    """Rows by where the id and the counters of their channel come from."""
    ids = Counter(sight.channel_id_from for sight in found.sights)
    counters = Counter(sight.channel_from or "missing" for sight in found.sights)
    return {
        **{f"id_{source}": ids[source] for source in ("snapshot", "lookup")},
        **{f"statistics_{source}": counters[source] for source in ("snapshot", "lookup", "missing")},
    }


def _languages(table: pa.Table) -> dict[str, int]:
    if "language" not in table.column_names:
        return {}
    counts = _counts(table["language"])
    missing = table.num_rows - sum(counts.values())
    return {**counts, **({UNKNOWN: missing} if missing else {})}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column.drop_null()).to_pylist()
    return dict(sorted((entry["values"], entry["counts"]) for entry in counted))


def _range(column: pa.ChunkedArray) -> dict[str, str | None]:
    found = pc.min_max(column).as_py()
    return {name: _utc(found[name]) for name in ("min", "max")}


def _utc(time: datetime | None) -> str | None:
    return None if time is None else utc_text(time)
