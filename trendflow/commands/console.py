"""Shared look of the command line: tables, colours, and one-sentence errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from trendflow.commands.run_notes import run_notes

_PIPE_WIDTH = 120  # a pipe has no width of its own; 80 columns would fold every table


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


out = _console()
err = _console(stderr=True)

_STYLES = {"ok": "green", "success": "green", "empty": "yellow", "error": "red", "skipped": "dim"}


def styled(status: str) -> str:
    return f"[{_STYLES.get(status, 'default')}]{status}[/]"


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A plain table; `right` names right-aligned columns."""
    built = Table(
        title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in columns:
        built.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        built.add_row(*row)
    return built


def human_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def print_run(run: Any, manifest: Mapping[str, Any]) -> None:
    """The components of a run as a table, then what the codes in it mean."""
    out.print(_run_table(manifest, [node.name for node in run.enabled]))
    notes = run_notes(run, manifest)
    if notes:
        out.print(table(None, ["note", "meaning"], notes))


def _run_table(manifest: Mapping[str, Any], order: Sequence[str]) -> Table:
    """One row per component of a run, in graph order; skipped ones included."""
    rows = []
    by_name = {row["name"]: row for row in manifest["components"]}
    skipped = {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]}
    for name in order:
        row = by_name.get(name)
        if row is None:
            if name in skipped:
                rows.append([name, styled("skipped"), skipped[name], "", "", "", ""])
            continue
        size = sum(artifact["size"] for artifact in row["artifacts"])
        rows.append(
            [
                name,
                styled(row["status"]),
                row["empty_reason"] or row["error_code"] or ", ".join(row["warnings"]),
                "hit" if row["cache_hit"] else "",
                f"{row['duration_ms'] / 1000:.2f}",
                human_bytes(size),
                "" if row["status"] == "error" else row["artifacts"][0]["content_digest"][:10],
            ]
        )
    columns = ["component", "status", "reason or warning", "cache", "seconds", "size", "digest"]
    return table(None, columns, rows, right=("seconds", "size"))
