"""Data card and model card: what the numbers rest on, and what the model is for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.report.run_files import ReportedRun
from trendflow.presentation.forecast_texts import BUCKETS, bucket_title, head_order, head_title
from trendflow.presentation.formatting import MISSING, moment, number, percent, plural, short_hash

_SHOWN = 12  # of long lists

_CHANNEL_RULES = {"majority": "most of their rows", "latest": "their latest row"}

MASK_REASONS = {
    "no_snapshot": "no snapshot near the horizon",
    "bad_counter": "counter missing",
    "decreased": "counter fell",
    "hidden_likes": "likes hidden",
}


@dataclass(frozen=True)
class MaskRow:
    """How much of one target is observed, and why the rest is not."""

    title: str
    share: float
    coverage: str
    reasons: str


@dataclass(frozen=True)
class SplitRow:
    """One part of the split."""

    name: str
    rows: str
    channels: str


def dataset_facts(run: ReportedRun) -> list[tuple[str, str]]:
    """Identity and size of the dataset."""
    used, card = run.manifest["dataset"], run.dataset
    facts = [
        ("Fingerprint", short_hash(used.get("dataset_fingerprint"), 16)),
        ("Dataset version", _text(used.get("dataset_version"))),
        ("Rows", _count(card.get("n_rows"))),
        ("Videos", _count(card.get("n_videos"))),
        ("Channels", _count(card.get("n_channels"))),
        ("Feature columns", _count(card.get("n_feature_columns"))),
        ("Rows with real targets", _count(card.get("rows_with_real_targets"))),
        ("Time range", _time_range(card.get("time_range"))),
        ("Feature schema", _text(used.get("feature_schema_version"))),
        ("Feature selection", _text(used.get("feature_spec_version"))),
        ("Sampling policy", _text(used.get("sampling_policy_version"))),
        ("Targets", "SYNTHETIC" if card.get("synthetic_targets", run.synthetic) else "observed"),
    ]
    return [(label, value) for label, value in facts if value != MISSING]


def mask_rows(run: ReportedRun) -> list[MaskRow]:
    """One row per head whose observed share the dataset states."""
    coverage: Mapping[str, Any] = run.dataset.get("mask_coverage") or {}
    reasons: Mapping[str, Mapping[str, int]] = run.dataset.get("mask_reasons") or {}
    rows = []
    for head in sorted((_plain(name) for name in coverage), key=head_order):
        share = float(coverage.get(head, coverage.get(f"mask_{head}", math.nan)))
        why = reasons.get(head) or reasons.get(f"mask_reason_{head}") or {}
        told = [f"{MASK_REASONS.get(name, name)} {_count(count)}" for name, count in why.items() if count]
        rows.append(MaskRow(head_title(head), share, percent(share), ", ".join(told) or MISSING))
    return rows


def _plain(name: str) -> str:
    return name.removeprefix("mask_")


def counts(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Named counts, the largest first; the rest of a long list is summed up."""
    ordered = sorted((found or {}).items(), key=lambda item: (-float(item[1] or 0), str(item[0])))
    shown = [(str(name), _count(count)) for name, count in ordered[:_SHOWN]]
    rest = ordered[_SHOWN:]
    if rest:
        shown.append((f"{len(rest)} others", _count(sum(count for _, count in rest))))
    return shown


def data_lists(run: ReportedRun) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of counts of the data card; empty ones are left out."""
    card, split = run.dataset, run.manifest["split"]
    ages = {bucket_title(name).capitalize(): n for name, n in (card.get("age_bucket_counts") or {}).items()}
    lists = [
        ("Age at the first snapshot", _in_order(ages)),
        ("Languages", counts(card.get("language_counts"))),
        ("Kept out of the dataset", counts(card.get("excluded"))),
        ("Edge cases", counts(_flat(card.get("edge_cases")))),
        ("Dropped by the split", counts(_flat(split.get("dropped")))),
        ("Channel enrichment", counts(_flat(card.get("channel_enrichment")))),
    ]
    return [(title, rows) for title, rows in lists if rows]


def _in_order(ages: Mapping[str, Any]) -> list[tuple[str, str]]:
    order = [title.capitalize() for title in BUCKETS.values()]
    names = sorted(ages, key=lambda name: order.index(name) if name in order else len(order))
    return [(name, _count(ages[name])) for name in names]


def _flat(found: Any) -> dict[str, float]:
    """Counts of a document of any depth: inner names are joined, what is no count is left out."""
    if not isinstance(found, Mapping):
        return {}
    flat: dict[str, float] = {}
    for name, value in found.items():
        words = str(name).replace("_", " ")
        if isinstance(value, Mapping):
            flat.update({f"{words}: {inner}": count for inner, count in _flat(value).items()})
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[words] = value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            flat[words] = len(value)
    return flat


def split_facts(run: ReportedRun) -> list[tuple[str, str]]:
    """How the parts were cut."""
    split = run.manifest["split"]
    return [
        ("Method", _text(split["method"]).replace("_", " ")),
        ("Ordered by", "nothing" if split["not_time_ordered"] else _text(split["time_key"]).replace("_", " ")),
        ("Validation from", moment(split.get("T_val"))),
        ("Test from", moment(split.get("T_test"))),
        ("Channels live in the part of", _CHANNEL_RULES.get(split["channel_rule"], _text(split["channel_rule"]))),
        ("Embargo on late targets", "yes" if split["embargo"] else "none"),
    ]


def split_rows(run: ReportedRun) -> list[SplitRow]:
    """Rows and channels per part."""
    split = run.manifest["split"]
    rows: Mapping[str, Any] = split.get("n") or {}
    channels: Mapping[str, Any] = split.get("n_channels") or {}
    found = [SplitRow(str(part), _count(count), _count(channels.get(part))) for part, count in rows.items()]
    folds = len(split.get("folds") or [])
    if folds > 1:
        found.append(SplitRow(f"test, {folds} folds together", _count(split.get("n_test_pooled")), MISSING))
    return found


def component_rows(run: ReportedRun) -> list[tuple[str, str]]:
    """Components whose features were on offer and the signature of their models."""
    signatures: Mapping[str, Any] = run.manifest["dataset"].get("model_signatures") or {}
    names = run.dataset.get("included_components") or sorted(signatures)
    return [(str(name), short_hash(_text(signatures.get(name)), 12)) for name in names]


def model_facts(run: ReportedRun) -> list[tuple[str, str]]:
    """What the model is and how it was made."""
    made = run.manifest
    selection, imputation = made.get("selection") or {}, made.get("imputation") or {}
    quantiles = made.get("quantiles") or {}
    stopping = made.get("early_stopping")
    facts = [
        ("Family", _text(made.get("model_family"))),
        ("Version", _text(made.get("model_version"))),
        ("Features", plural(len(made["feature_names"]), "column")),
        ("Categorical", ", ".join(made.get("categorical_features") or []) or "none"),
        ("Feature selection", _text(selection.get("method")).replace("_", " ")),
        ("Missing values", _text(imputation.get("strategy")).replace("_", " ")),
        ("Fitted on", _text(imputation.get("fitted_on"))),
        ("Interval", _text(quantiles.get("method")).replace("_", " ")),
        ("Early stopping", _stopping(stopping)),
        ("Random state", _text(made.get("seed"))),
        ("Source revision", short_hash(made.get("git_commit"))),
    ]
    return [(label, value) for label, value in facts if value != MISSING]


def _stopping(found: Any) -> str:
    if isinstance(found, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items())
    return _text(found)


def hyperparameters(run: ReportedRun) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _value(value)) for name, value in sorted(_leaves(run.manifest["hyperparameters"]))]


def _leaves(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in found.items():
        leaves += _leaves(value, f"{prefix}{name}: ") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return leaves


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(float(value)) if isinstance(value, (int, float)) else str(value)


def libraries(run: ReportedRun) -> list[tuple[str, str]]:
    return sorted((str(name), str(version)) for name, version in (run.manifest.get("library_versions") or {}).items())


@dataclass(frozen=True)
class BundleRow:
    """One trained head."""

    title: str
    n_train: str
    n_val: str
    best_iteration: str
    digest: str


def bundle_rows(run: ReportedRun) -> list[BundleRow]:
    """The model files, by head."""
    rows = []
    for bundle in run.manifest.get("bundles") or []:
        for horizon in bundle["horizons"]:
            name = str(horizon["target_col"]).removeprefix("target_")
            rows.append(
                (
                    head_order(name),
                    BundleRow(
                        head_title(name),
                        _count(horizon.get("n_train")),
                        _count(horizon.get("n_val")),
                        _count(horizon.get("best_iteration")),
                        short_hash(horizon.get("sha256")),
                    ),
                )
            )
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def _text(value: Any) -> str:
    return MISSING if value is None or value == "" else str(value)


def _count(value: Any) -> str:
    if value is None or isinstance(value, str):
        return _text(value)
    return f"{value:,}".replace(",", "\u202f")


def _time_range(found: Any) -> str:
    """First and last publication."""
    ends = (found or {}).get("publish_time") or {}
    if not (ends.get("min") and ends.get("max")):
        return MISSING
    return f"{moment(ends['min'])[:10]} to {moment(ends['max'])[:10]}"
