"""Several training runs on the same rows: one table per head, models and comparators side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from training.comparators import COMPARATORS
from training.documents import COMPARISON_SCHEMA, require_valid
from training.evaluation import better, difference, verdict
from training.metrics import METRICS
from training.predictions import by_head, paired, read_predictions
from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.bundle import ModelBundle

MODELS = "models"


@dataclass(frozen=True)
class Comparison:
    """`document` is the JSON form; `rows(head)` the lines of a table."""

    document: Mapping[str, Any]

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.document["heads"]
        return found

    def rows(self, head: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name, overall cell): the models' point forecasts, the medians they show, then comparators."""
        yield from self.heads[head][MODELS].items()
        yield from ((f"{name}, p50", cell) for name, cell in self.heads[head]["p50"].items())
        yield from self.heads[head]["comparators"].items()

    def unbeaten(self, head: str) -> dict[str, list[str]]:
        """Model → comparators that it is not shown to beat, `(worse)` where it is shown to lose on Spearman.

        Models that beat all are left out.
        """
        found = {
            model: [
                f"{name} (worse)" if verdicts[name]["spearman"] == "worse" else name
                for name in COMPARATORS
                if not better(verdicts[name])
            ]
            for model, verdicts in self.heads[head]["verdicts"].items()
        }
        return {model: names for model, names in found.items() if names}


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare runs. Raises `config_invalid` unless they share dataset and split and have different names."""
    bundles = [ModelBundle.read(folder) for folder in folders]
    first = bundles[0].manifest
    for bundle in bundles[1:]:
        for what, path in (("dataset", ("dataset", "dataset_fingerprint")), ("split", ("splits_sha256",))):
            if _at(bundle.manifest, path) != _at(first, path):
                raise TrendFlowError(
                    "config_invalid", f"The runs differ in their {what}; their numbers do not compare."
                )
    names = _names([bundle.manifest for bundle in bundles])
    tables = [by_head(read_predictions(folder)) for folder in folders]
    predictions = [{rows.head.name: rows for rows in table} for table in tables]
    resamples, seed = int(first["config"]["resamples"]), int(first["seed"])
    heads = {}
    for head, found in bundles[0].metrics["heads"].items():
        models = {name: bundle.metrics["heads"][head] for name, bundle in zip(names, bundles, strict=True)}
        differences = {}
        for one, two in combinations(range(len(names)), 2):
            change = difference(*paired(predictions[one][head], predictions[two][head]), resamples, seed)
            change["verdicts"] = {metric: verdict(metric, change[metric]) for metric in METRICS}
            differences[f"{names[one]} - {names[two]}"] = change
        heads[head] = {
            MODELS: {name: model["model"]["overall"] for name, model in models.items()},
            "p50": {name: model["p50"]["overall"] for name, model in models.items()},
            "coverage": {name: model["coverage"]["overall"] for name, model in models.items()},
            "comparators": {name: found["comparators"][name]["overall"] for name in COMPARATORS},
            "differences": {
                name: {c: model["differences"][c]["overall"] for c in COMPARATORS} for name, model in models.items()
            },
            "verdicts": {name: model["verdicts"] for name, model in models.items()},
            "between_models": differences,
        }
    document = {
        "schema_version": COMPARISON_SCHEMA,
        "runs": {name: bundle.manifest["training_run_id"] for name, bundle in zip(names, bundles, strict=True)},
        "dataset_fingerprint": first["dataset"]["dataset_fingerprint"],
        "synthetic": first["synthetic"],
        "split": first["split"]["method"],
        "not_time_ordered": first["split"]["not_time_ordered"],
        "heads": heads,
    }
    require_valid(document)
    return Comparison(document)


def _names(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    families = [str(manifest["model_family"]) for manifest in manifests]
    names = families if len(set(families)) == len(families) else [str(m["training_run_id"]) for m in manifests]
    if len(set(names)) < len(names):
        raise TrendFlowError("config_invalid", "A run is given twice.")
    return names


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value[key]
    return value


def markdown(comparison: Comparison) -> str:
    """One table per head: Spearman, RMSE and MAE with 95 % intervals, the models' coverage, and what beats nothing."""
    document = comparison.document
    lines = []
    if document["synthetic"]:
        lines += ["**SYNTHETIC data: these numbers say nothing about real videos.**", ""]
    if document["not_time_ordered"]:
        lines += ["`not_time_ordered`: folds are by channel only.", ""]
    for head in comparison.heads:
        rows = list(comparison.rows(head))
        lines += [f"### {head} (n = {rows[0][1]['n']}, {rows[0][1]['n_channels']} channels)", ""]
        lines += ["| | Spearman | RMSE | MAE | coverage of p10–p90 |", "|---|---|---|---|---|"]
        for name, cell in rows:
            coverage = comparison.heads[head]["coverage"].get(name)
            covered = "" if coverage is None else f"{coverage['value']:.2f}"
            metrics = " | ".join(interval(cell[metric]) for metric in ("spearman", "rmse", "mae"))
            lines.append(f"| {name} | {metrics} | {covered} |")
        for model, names in comparison.unbeaten(head).items():
            lines += ["", f"{model} is **not shown to beat** {', '.join(names)}."]
        lines.append("")
    return "\n".join(lines)


def interval(estimate: Mapping[str, float | None]) -> str:
    """`.85 [.80, .90]`; a dash where undefined."""
    if estimate["value"] is None:
        return "–"
    if estimate["low"] is None or estimate["high"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
