"""`trendflow show`, `validate`, `explain` and `report`: look at what the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trendflow.commands.console import err, human_bytes, out, print_run, styled, table
from trendflow.commands.files import write_output
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import partition_key_of
from trendflow.contracts.manifest import find_row


def _deployment() -> Any:
    from trendflow.orchestration.deployment import open_deployment

    return open_deployment(load_settings())


def _open(key: str) -> Any:
    from trendflow.orchestration.runs import view_run

    return view_run(_deployment(), key)


def show(key: str | None, component: str | None) -> int:
    """List runs, the components of one run, or the arrays and features of one artifact."""
    if key is None:
        return _show_runs()
    run = _open(key)
    manifest = run.manifest()
    if component is None:
        block = manifest["run"]
        out.print(f"[bold]{key}[/]  profile {block['profile']}, created {block['created_at']}", highlight=False)
        print_run(run, manifest)
        return 0
    row = find_row(manifest, component)
    if row is None:
        raise TrendFlowError("dependency_missing", f"This run holds no result of {component!r}.", kind="artifact")
    for entry in row["artifacts"]:
        stem = entry["path"].rpartition("/")[2].removesuffix(".npz")
        stored = run.deployment.results.read_artifact(run.run_path, component, stem, expected_sha256=entry["sha256"])
        _show_artifact(stem, entry, stored.arrays, stored.meta)
    return 0


def _show_artifact(stem: str, entry: dict[str, Any], arrays: Any, meta: dict[str, Any]) -> None:
    out.print(f"[bold]{stem}[/]  {meta['schema_version']}  {human_bytes(entry['size'])}  {styled(meta['status'])}")
    rows = [
        [name, str(array.dtype), "x".join(map(str, array.shape)) or "scalar", _range(array)]
        for name, array in arrays.items()
    ]
    out.print(table("arrays", ["key", "dtype", "shape", "range"], rows))
    if "feature_names" in arrays:
        values = zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True)
        absent = meta.get("absent_features") or {}
        features = [[name, f"{value:.6g}", _why_nan(name, value, absent, meta)] for name, value in values]
        out.print(table("features", ["feature", "value", "note"], features, right=("value",)))


def _why_nan(name: str, value: float, absent: dict[str, str], meta: dict[str, Any]) -> str:
    if not np.isnan(value):
        return ""
    for prefix, reason in absent.items():
        if name.startswith(prefix):
            return reason
    return meta["empty_reason"] or ""


def _range(array: np.ndarray) -> str:
    if array.dtype.kind not in "fiu" or array.size == 0:
        return ""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return f"{finite.min():.6g} … {finite.max():.6g}" if finite.size else "all NaN"


def _show_runs() -> int:
    from trendflow.orchestration.runs import view_run
    from trendflow.orchestration.wrapper import run_status

    deployment = _deployment()
    rows = []
    for path in deployment.results.run_paths():
        manifest = deployment.results.read_manifest(path)
        if manifest is not None:
            block = manifest["run"]
            done = [row["status"] for row in manifest["components"]]
            rows.append(
                [
                    f"{block['video_id']}/{block['run_id']}",
                    block["created_at"],
                    styled(run_status(view_run(deployment, f"{block['video_id']}/{block['run_id']}"), manifest)),
                    ", ".join(f"{done.count(status)} {styled(status)}" for status in sorted(set(done))),
                ]
            )
    if not rows:
        out.print("The store holds no runs yet.")
        return 0
    out.print(table(None, ["run", "created", "status", "components"], sorted(rows, key=lambda row: row[1])))
    return 0


def validate(key: str | None) -> int:
    """Check stored runs against the contracts. Raises `artifact_validation_failed` when one has a problem."""
    from trendflow.orchestration.validation import validate_run
    from trendflow.presentation.formatting import plural

    deployment = _deployment()
    paths = [_open(key).run_path] if key is not None else list(deployment.results.run_paths())
    bad = 0
    for path in paths:
        findings = validate_run(deployment, path)
        problems = [finding for finding in findings if finding.severity == "problem"]
        bad += bool(problems)
        run_key = partition_key_of(path)
        out.print(
            f"{run_key}: {'[red]not valid[/]' if problems else '[green]valid[/]'}", highlight=False, soft_wrap=True
        )
        for finding in findings:
            out.print(
                f"  {finding.severity} {finding.code} {finding.path}: {finding.message}",
                highlight=False,
                soft_wrap=True,
            )
    if bad:
        raise TrendFlowError("artifact_validation_failed", f"{bad} of {len(paths)} runs are not valid.")
    out.print(f"{plural(len(paths), 'run')} checked")
    return 0


def explain(key: str, component: str) -> int:
    """Print why an artifact was reused or recomputed, key part by key part."""
    from trendflow.orchestration.explain import explain as explain_run

    found = explain_run(_open(key), component)
    out.print(f"[bold]{component}[/]: {found.verdict}", highlight=False)
    rows = []
    for part in found.parts:
        verdict = "" if part.there is None else ("[green]same[/]" if part.same else "[red]differs[/]")
        rows.append([part.part, _short(part.here), "" if part.there is None else _short(part.there), verdict])
    out.print(table(None, ["part of the key", "this run", found.compared_with or "", ""], rows))
    return 0


def _short(value: str) -> str:
    return value[:16] + "…" if len(value) == 64 else value


def report(key: str, target: Path | None) -> int:
    """Render the report of a run and say where it is."""
    from trendflow.orchestration.report_step import write_report

    run = _open(key)
    stored, size = write_report(run)
    if target is not None:
        write_output(target, run.deployment.store.get(stored))
    where = target or run.deployment.store.local_path(stored) or stored
    err.print(f"{human_bytes(size)}")
    out.print(str(where), highlight=False, soft_wrap=True)
    if where == stored:
        err.print("it lies in the object store; --output FILE copies it here", highlight=False)
    return 0
