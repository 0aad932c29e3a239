"""What must hold of a stored dataset, judged on the files as they were read back; without Dagster."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import Finding, audit_dataset
from trendflow.dataset.stored_tables import StoredTable
from trendflow.dataset.table.columns import FIRST_SEEN, PUBLISHED, ROW_KEY
from trendflow.dataset.table.reader import Dataset
from trendflow.dataset.targets import HEADS
from trendflow.dataset.verdict import CheckVerdict
from trendflow.orchestration.dataset_step import read_stored
from trendflow.orchestration.deployment import Deployment

FINGERPRINT, VALID, LEAKAGE, MASK_COVERAGE = "fingerprint", "valid", "leakage", "mask_coverage"
RULES: Mapping[str, str] = {
    FINGERPRINT: "Every file has the digest its metadata state, and the dataset is the one that was built.",
    VALID: "One row per video, in order, with a channel, published before its first snapshot; no empty column names.",
    LEAKAGE: "No feature could only be known after the first snapshot.",
    MASK_COVERAGE: "Masks, targets and reasons agree, and enough videos have each target.",
}


def check_stored_dataset(deployment: Deployment, stored: StoredTable, min_coverage: float) -> list[CheckVerdict]:
    """Read the dataset of a record back and judge it by every rule. What cannot be read fails all of them."""
    with tempfile.TemporaryDirectory() as name:
        try:
            dataset = read_stored(deployment, stored, Path(name))
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            unread = [
                CheckVerdict(rule, False, "not judged: the files are not in order", sound=False) for rule in RULES
            ]
            return [CheckVerdict(FINGERPRINT, False, error.message, sound=False), *unread[1:]]
        return [
            _fingerprint(dataset, stored),
            _valid(dataset),
            leakage_check(audit_dataset(dataset).findings, dataset.table.num_rows),
            _mask_coverage(dataset, min_coverage),
        ]


def leakage_check(findings: Sequence[Finding], n_rows: int | None) -> CheckVerdict:
    """The verdict of the leakage guard. `n_rows` is None where the build was stopped by it."""
    judged = "the build was stopped" if n_rows is None else f"{n_rows} rows"
    return CheckVerdict(
        LEAKAGE,
        not findings,
        f"{len(findings)} findings, {judged}",
        sound=not findings,
        findings=[(found.column, found.net, found.message) for found in findings],
    )


def _fingerprint(dataset: Dataset, stored: StoredTable) -> CheckVerdict:
    same = dataset.fingerprint == stored.facts["fingerprint"]
    return CheckVerdict(FINGERPRINT, same, dataset.fingerprint, sound=same)


def _valid(dataset: Dataset) -> CheckVerdict:
    table = dataset.table
    keys = list(zip(*(table[name].to_pylist() for name in ROW_KEY), strict=True))
    problems = []
    if len(set(keys)) < len(keys):
        problems.append(("rows", f"{len(keys) - len(set(keys))} videos stand twice"))
    if keys != sorted(keys):
        problems.append(("rows", "are not in the order of their videos"))
    for name in (*ROW_KEY, "channel_id", PUBLISHED, FIRST_SEEN):
        if table[name].null_count:
            problems.append((name, f"is missing in {table[name].null_count} rows"))
    early = pc.sum(pc.less(table[FIRST_SEEN], table[PUBLISHED])).as_py() or 0
    if early:
        problems.append((FIRST_SEEN, f"lies before the publication in {early} rows"))
    result = f"{len(keys)} rows, {len(dataset.feature_names)} features"
    return CheckVerdict(VALID, not problems, result, sound=not problems, findings=problems)


def _mask_coverage(dataset: Dataset, minimum: float) -> CheckVerdict:
    wrong, short = [], []
    for head in HEADS:
        mask = dataset.table[f"mask_{head}"].to_numpy()
        known = np.isfinite(dataset.table[f"target_{head}"].to_numpy())
        explained = ~dataset.table[f"mask_reason_{head}"].is_null().to_numpy()
        broken = int(np.count_nonzero((mask != known) | (mask == explained)))
        if broken:
            wrong.append((head, f"mask, target and reason disagree in {broken} rows"))
        share = float(mask.mean())
        if not np.isclose(share, dataset.metadata["mask_coverage"][head]):
            wrong.append((head, f"{share:.1%} have a target, the metadata say otherwise"))
        if share < minimum:
            short.append((head, f"{share:.1%} of the videos have a target, fewer than {minimum:.0%}"))
    lowest = min(dataset.metadata["mask_coverage"][head] for head in HEADS)
    return CheckVerdict(
        MASK_COVERAGE, not wrong and not short, f"{lowest:.1%} at least", sound=not wrong, findings=[*wrong, *short]
    )
