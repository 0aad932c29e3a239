"""The page of one training run: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from training.gate import FAIL, NORTH_STAR, NOT_JUDGED, PASS
from training.gate_texts import ACCEPTED, TITLES, WORDS, gate_details
from training.predictions import REPAIRS
from training.report import cards, figures
from training.report.importance import ablation, head_importance
from training.report.metric_tables import METRICS, comparison_matrix, head_table, signed
from training.report.run_files import Cell, Estimate, ReportedRun, read_reported_run
from training.report.verdicts import Verdict, against_persistence
from trendflow.presentation.blocks import Message, Tile
from trendflow.presentation.forecast_texts import METRICS as METRIC_NAMES
from trendflow.presentation.forecast_texts import comparator_title, head_title
from trendflow.presentation.formatting import fixed, interval, moment, percent, plural, short_hash
from trendflow.presentation.pages import asset, render_page

_PACKAGE = "training.report"
SYNTHETIC_NOTE = (
    "The data of this run were made up. Its numbers say that the program works, and nothing about real videos."
)
_OFTEN = 0.5
_BADGES = {PASS: "ok", FAIL: "error", NOT_JUDGED: "empty"}
_AGAINST = {"undecided": "no difference shown against", "worse": "worse than", "undefined": "not compared with"}


def render_training_report(folder: Path) -> bytes:
    """The report of the run in `folder` as UTF-8 HTML; the same files give the same bytes.

    Raises what `read_reported_run` raises, and `artifact_validation_failed` beyond 3 MB.
    """
    return render_page("training.html.j2", _context(read_reported_run(folder)), _PACKAGE).encode("utf-8")


def _context(run: ReportedRun) -> dict[str, Any]:
    verdicts = [against_persistence(run, head) for head in run.heads]
    comparators, matrix = comparison_matrix(run)
    coverage = {head: run.head(head).get("coverage") or {} for head in run.heads}
    ablation_heads, ablation_rows = ablation(run)
    rows = run.rows
    return {
        "title": f"{run.manifest['training_run_id']} · TrendFlow training report",
        "synthetic": run.synthetic,
        "run_id": run.manifest["training_run_id"],
        "verdict": _verdict(verdicts),
        "header": _header(run),
        "messages": _messages(run, verdicts),
        "tiles": _tiles(run),
        "gate": _gate(run),
        "comparators": comparators,
        "matrix": matrix,
        "orders": _made(figures.predictors_in_order(run, head) for head in run.heads),
        "accepted": ACCEPTED,
        "metrics": [METRIC_NAMES[name] for name in METRICS],
        "tables": [head_table(run, head) for head in run.heads],
        "scatter": _made(figures.predicted_against_actual(head, rows[head]) for head in run.heads),
        "quantiles": figures.quantile_reliability(rows),
        "quantile_names": [f"{name}, {percent(level)}" for name, level in figures.QUANTILES.items()],
        "quantile_rows": [
            (
                head_title(head),
                [percent(share) for share in figures.observed_shares(found).values()],
                [percent(run.head(head)["repairs"][name]) for name in REPAIRS],
                len(found.y),
            )
            for head, found in rows.items()
            if len(found.y)
        ],
        "coverage": _made(
            figures.coverage_by_bucket(
                head, {"overall": found["overall"], **found.get("buckets", {})}, float(found.get("nominal", 0.8))
            )
            for head, found in coverage.items()
            if found
        ),
        "importance": _made(head_importance(run, head) for head in run.heads),
        "ablation_heads": ablation_heads,
        "ablation": ablation_rows,
        "dataset": cards.dataset_facts(run),
        "masks": cards.mask_rows(run),
        "lists": cards.data_lists(run),
        "split": cards.split_facts(run),
        "parts": cards.split_rows(run),
        "components": cards.component_rows(run),
        "model": cards.model_facts(run),
        "hyperparameters": cards.hyperparameters(run),
        "libraries": cards.libraries(run),
        "bundles": cards.bundle_rows(run),
        "not_time_ordered": bool(run.metrics.get("not_time_ordered")),
        "css": asset("report.css") + asset("blocks.css") + asset("framed.css") + asset("training.css", _PACKAGE),
    }


def _made(found: Any) -> list[Any]:
    return [one for one in found if one is not None]


def _verdict(verdicts: list[Verdict]) -> tuple[str, str]:
    """Badge and words for the whole run."""
    won = sum(found.word == "better" for found in verdicts)
    if won == len(verdicts):
        return "ok", "Beats persistence in every head"
    return ("warning" if won else "error"), f"Beats persistence in {won} of {plural(len(verdicts), 'head')}"


def _header(run: ReportedRun) -> list[tuple[str, str]]:
    made = run.manifest
    where = str(run.metrics.get("evaluated_on") or "test").replace("_", " ")
    return [
        ("Model", str(made["model_version"])),
        ("Trained", moment(made.get("created_at"))),
        ("Dataset", short_hash(made["dataset"].get("dataset_fingerprint"), 12)),
        ("Features", f"{len(made['feature_names'])}"),
        ("Evaluated on", where + (", not time ordered" if run.metrics.get("not_time_ordered") else "")),
        ("Random state", f"{made.get('seed')}"),
    ]


def _messages(run: ReportedRun, verdicts: list[Verdict]) -> list[Message]:
    found = []
    if run.synthetic:
        found.append(Message("error", "SYNTHETIC", SYNTHETIC_NOTE))
    beaten = [one for one in verdicts if one.word != "better"]
    if beaten:
        heads = plural(len(beaten), "head")
        lines = [
            f"{head_title(one.head)}: {_AGAINST[one.word]} “{comparator_title(one.comparator)}”, "
            f"{METRIC_NAMES[one.metric]} {signed(one.difference)}"
            for one in beaten
        ]
        found.append(
            Message(
                "warning",
                f"The model does not beat log-linear persistence in {heads}",
                "The paired 95 % interval of the difference does not lie on the better side of zero. "
                "There the formula serves as well, or better.",
                lines,
            )
        )
    absent = run.manifest.get("heads_without_model") or []
    if absent:
        found.append(
            Message(
                "warning",
                f"No model for {plural(len(absent), 'head')}",
                f"Too few observed targets: {', '.join(head_title(head) for head in absent)}.",
            )
        )
    repaired = {head: float(run.head(head)["repairs"]["rearranged"]) for head in run.heads}
    often = [f"{head_title(head)}: {percent(share)}" for head, share in repaired.items() if share > _OFTEN]
    if often:
        found.append(
            Message(
                "warning",
                "The horizons contradict each other in most forecasts",
                "Each is forecast by models of its own, and often a later one lay below an earlier one before they "
                "were put in order. Their differences are noise rather than growth; more data would help.",
                often,
            )
        )
    if run.metrics.get("not_time_ordered"):
        found.append(
            Message(
                "warning",
                "Not ordered in time",
                "The folds hold out channels, not the future. Real forecasts are harder than these numbers say.",
            )
        )
    return found


def _tiles(run: ReportedRun) -> list[Tile]:
    tiles = []
    for head in NORTH_STAR:
        if head in run.heads:
            cell = Cell.of(run.head(head)["model"]["overall"])
            spearman = cell.metrics["spearman"]
            tiles.append(
                Tile(
                    head_title(head),
                    fixed(spearman.value, 3),
                    f"Spearman {interval(spearman.low, spearman.high)}, {plural(cell.n, 'video')}",
                    cell.low_n,
                )
            )
    tiles.append(_coverage_tile(run))
    return tiles


def _coverage_tile(run: ReportedRun) -> Tile:
    """The head whose interval misses its promise most."""
    found = {head: run.head(head).get("coverage") or {} for head in run.heads}
    measured = {head: Estimate.of(part["overall"]).value for head, part in found.items() if part}
    measured = {head: value for head, value in measured.items() if math.isfinite(value)}
    if not measured:
        return Tile("Interval p10 to p90", "not measured", "no coverage in the metrics", muted=True)
    worst = max(measured, key=lambda head: abs(measured[head] - 0.8))
    low, high = min(measured.values()), max(measured.values())
    return Tile(
        "Interval p10 to p90",
        f"{percent(low)} – {percent(high)}",
        f"of outcomes inside, should be 80 %; furthest off {head_title(worst).lower()}",
    )


def _gate(run: ReportedRun) -> dict[str, Any]:
    """The quality gate for replacing a model, as evaluation judged it."""
    gate = run.metrics["gate"]
    word = PASS if gate["passed"] else FAIL
    return {
        "badge": _BADGES[word],
        "word": WORDS[word],
        "checks": [
            {
                "name": TITLES[check["name"]],
                "badge": _BADGES[check["verdict"]],
                "word": WORDS[check["verdict"]],
                "details": gate_details(check),
            }
            for check in gate["checks"]
        ],
    }
