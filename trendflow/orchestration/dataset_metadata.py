"""What Dagster's pages say about the assets between snapshots and dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster import MetadataValue

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.schema_docs import markdown_table
from trendflow.dataset.parquet import table_digest
from trendflow.dataset.snapshots.report import RULES
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.stored_tables import StoredTable
from trendflow.dataset.table.build import BuiltDataset
from trendflow.dataset.table.columns import FIRST_SEEN, ROW_KEY
from trendflow.dataset.targets import Targets
from trendflow.orchestration.dataset_step import Looked
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.report_step import report_location
from trendflow.presentation.forecast_texts import head_order

if TYPE_CHECKING:
    from trendflow.dataset.collector.collect import CollectReport

_ROWS = 40  # of a Markdown table; the files have all

Metadata = dict[str, Any]


def of_collector(report: CollectReport) -> Metadata:
    return {
        "observed": report.observed,
        "unavailable": report.unavailable,
        "missed": report.missed,
        "deferred": report.deferred,
        "hidden": MetadataValue.md(_counted("counter", report.hidden)),
        "stopped": "no" if report.stopped is None else str(report.stopped),
    }


def of_snapshots(deployment: Deployment, stored: StoredTable, found: SnapshotSet) -> Metadata:
    cases = [(rule, found.report.counts[rule], RULES[rule]) for rule in RULES if found.report.counts[rule]]
    sources = [
        (source["name"], source["snapshots"], ", ".join(source.get("ignored_columns", [])))
        for source in found.report.as_dict()["sources"]
    ]
    return {
        "videos": found.videos.num_rows,
        "snapshots": found.snapshots.num_rows,
        "sources": MetadataValue.md(_markdown(("source", "snapshots", "ignored columns"), sources)),
        "cases": MetadataValue.md(_markdown(("rule", "cases", "what was done"), cases)),
        **_stored(deployment, stored),
    }


def of_targets(deployment: Deployment, stored: StoredTable, made: Targets) -> Metadata:
    heads = sorted(made.report["heads"].items(), key=lambda item: head_order(item[0]))
    rows = [(head, found["n"], f"{found['coverage']:.1%}", _told(found["reasons"])) for head, found in heads]
    return {
        "videos": made.table.num_rows,
        "mask_coverage": MetadataValue.md(_markdown(("target", "known", "coverage", "missing"), rows)),
        "falls": len(made.report["falls"]),
        "policy": MetadataValue.json(made.report["policy"]),
        **_stored(deployment, stored),
    }


def of_channels(deployment: Deployment, stored: StoredTable, looked: Looked) -> Metadata:
    table = looked.enrichment.table
    return {
        "asked": looked.unasked or "yes",
        **looked.lacking,
        "videos": table.num_rows,
        "channels_found": table.num_rows - table["channel_id"].null_count,
        **_stored(deployment, stored),
    }


def feature_digest(built: BuiltDataset) -> str:
    """What the features of a dataset are, whatever its outcomes: targets that arrive later do not change it."""
    names = [*ROW_KEY, FIRST_SEEN, *built.provenance["column"].to_pylist()]
    return digest_of([table_digest(built.table.select(names)), table_digest(built.provenance)])


def of_feature_table(built: BuiltDataset) -> Metadata:
    found = built.metadata
    families = Counter(built.provenance["family"].to_pylist())
    cases = [(name.replace("_", " "), count) for name, count in found["edge_cases"].items() if count]
    return {
        **_marks(found),
        "videos": found["n_rows"],
        "channels": found["n_channels"],
        "features": found["n_feature_columns"],
        "features_by_family": MetadataValue.md(_counted("family", families)),
        "without_a_row": MetadataValue.md(_counted("reason", found["excluded"])),
        "edge_cases": MetadataValue.md(_markdown(("case", "rows"), cases)),
        "channel_enrichment": MetadataValue.md(_counted("channel", found["channel_enrichment"])),
    }


def of_dataset(deployment: Deployment, stored: StoredTable, built: BuiltDataset) -> Metadata:
    found = built.metadata
    shares = sorted(found["mask_coverage"].items(), key=lambda item: head_order(item[0]))
    coverage = [(head, f"{share:.1%}", _told(found["mask_reasons"][head])) for head, share in shares]
    return {
        **_marks(found),
        "dataset_version": built.version,
        "dataset_fingerprint": found["dataset_fingerprint"],
        "videos": found["n_rows"],
        "channels": found["n_channels"],
        "features": found["n_feature_columns"],
        "mask_coverage": MetadataValue.md(_markdown(("target", "coverage", "missing"), coverage)),
        "time_range": MetadataValue.md(
            _markdown(("time", "from", "to"), [(name, r["min"], r["max"]) for name, r in found["time_range"].items()])
        ),
        "dataset": MetadataValue.path(report_location(deployment.store, f"{stored.facts['prefix']}/dataset.parquet")),
    }


def findings_table(findings: Sequence[Sequence[str]]) -> str:
    """Markdown of what a check found; every row begins with a column or head."""
    if not findings:
        return "none"
    head = ("subject", "net", "finding") if len(findings[0]) == 3 else ("subject", "finding")
    return markdown_table(head, [(f"`{found[0]}`", *found[1:]) for found in findings[:_ROWS]])


def _marks(found: Mapping[str, Any]) -> Metadata:
    return {name.upper(): True for name in ("synthetic", "mixed") if found[name]}


def _stored(deployment: Deployment, stored: StoredTable) -> Metadata:
    files = {
        name: MetadataValue.path(report_location(deployment.store, f"{stored.prefix}/{name}")) for name in stored.files
    }
    return {"digest": stored.digest, **files}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count) or "none"


def _counted(what: str, counts: Mapping[str, int]) -> str:
    return _markdown((what, "count"), [(name, count) for name, count in counts.items() if count])


def _markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return markdown_table(head, rows) if rows else "none"
