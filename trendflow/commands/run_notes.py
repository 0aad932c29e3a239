"""What the codes of a run mean, in words: why something is empty, warned of, or failed while the run went on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trendflow.contracts.graph import SEGMENTER
from trendflow.contracts.manifest import find_row

_SHORTFALL = "sampling_shortfall"
_LOW_VALID_RATIO = "low_valid_ratio"


def run_notes(run: Any, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs (code, sentence), each code once, in the order in which the components show them.

    A shortfall names every component that got too few frames, how many it wanted and how many it got. `run` is a
    `RunContext`.
    """
    from trendflow.presentation.texts import empty_text, warning_text

    codes: dict[str, str] = {}
    for row in manifest["components"]:
        if row["status"] == "empty":
            codes.setdefault(row["empty_reason"], empty_text(row["empty_reason"]))
        for code in row["warnings"]:
            codes.setdefault(code, warning_text(code))
            if code == _LOW_VALID_RATIO and row["notes"]:
                codes[code] += f" {row['name']}: {row['notes']}"
        if row["status"] == "error" and not run.is_required(row["name"]):
            codes.setdefault(row["error_code"], f"{row['name']}: {row['error']}")
    for code in manifest["run"]["warnings"]:
        codes.setdefault(code, warning_text(code))
    if _SHORTFALL in codes:
        codes[_SHORTFALL] = _shortfall(run, manifest) or codes[_SHORTFALL]
    return list(codes.items())


def _shortfall(run: Any, manifest: Mapping[str, Any]) -> str:
    from trendflow.presentation.facts import shortfall_text

    row = find_row(manifest, SEGMENTER)
    if row is None or row["status"] == "error":
        return ""
    sha256 = next(entry["sha256"] for entry in row["artifacts"] if entry["path"].endswith(f"/{SEGMENTER}.npz"))
    names = ("component_names", "component_budget", "component_indices_row_splits")
    stored = run.deployment.results.read_artifact(run.run_path, SEGMENTER, names=names, expected_sha256=sha256)
    return shortfall_text(stored.arrays)
