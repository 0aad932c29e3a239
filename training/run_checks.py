"""Verdicts on a training run, by the files of its folder and of its dataset as they are read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training import rules
from training.gate_texts import gate_summary
from training.run import SPLITS, TrainingRun
from training.split_table import verify_split
from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import audit_dataset
from trendflow.dataset.table.reader import Dataset
from trendflow.dataset.verdict import CheckVerdict
from trendflow.inference.bundle import ModelBundle


def check_run(run: TrainingRun, dataset: Path) -> list[CheckVerdict]:
    """Judge a run on the dataset of a folder by every rule of `rules.RULES`."""
    return [
        _models_check(run),
        _splits_check(run),
        _leakage_check(dataset),
        _coverage_check(run.metrics),
        _gate_check(run.metrics),
    ]


def _models_check(run: TrainingRun) -> CheckVerdict:
    try:
        heads = ModelBundle.read(run.folder).heads
    except TrendFlowError as error:
        return CheckVerdict(rules.MODELS, False, str(error), sound=False)
    return CheckVerdict(rules.MODELS, True, f"{len(heads)} heads")


def _splits_check(run: TrainingRun) -> CheckVerdict:
    path = run.folder / SPLITS
    try:
        if sha256_hex(path.read_bytes()) != run.manifest["splits_sha256"]:
            raise TrendFlowError("artifact_validation_failed", "The file is not the one that was trained on.")
        proof = verify_split(path)
    except TrendFlowError as error:
        return CheckVerdict(rules.SPLITS, False, str(error), sound=False)
    marks = "" if proof["times_ordered"] else ", not_time_ordered"
    return CheckVerdict(rules.SPLITS, True, f"{len(proof['folds'])} folds, {proof['n_test']} test rows{marks}")


def _leakage_check(dataset: Path) -> CheckVerdict:
    found = audit_dataset(Dataset.read(dataset))
    text = found.findings[0].message if found.findings else f"{found.n_columns} columns of {found.n_rows} rows"
    return CheckVerdict(rules.LEAKAGE, found.passed, text, sound=found.passed)


def _coverage_check(metrics: Mapping[str, Any]) -> CheckVerdict:
    found = next(check for check in metrics["gate"]["checks"] if check["name"] == rules.COVERAGE)
    shares = {name: head["coverage"]["overall"]["value"] for name, head in metrics["heads"].items()}
    told = ", ".join(f"{name} {'–' if share is None else f'{share:.2f}'}" for name, share in shares.items())
    return CheckVerdict(rules.COVERAGE, found["verdict"] == "pass", told)


def _gate_check(metrics: Mapping[str, Any]) -> CheckVerdict:
    return CheckVerdict(rules.GATE, bool(metrics["gate"]["passed"]), gate_summary(metrics["gate"]))
