"""`make bench`: runs all benchmarks and prints one table; the numbers also go to `benchmarks/results.json`."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from dataclasses import asdict
from importlib import metadata

from rich.console import Console
from rich.table import Table

from benchmarks.common import REPO, Row

LIBRARIES = (
    "av",
    "dagster",
    "librosa",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pyarrow",
    "pyloudnorm",
    "scenedetect-headless",
    "tritonclient",
)
BENCHMARKS = (
    *("segmenter", "overhead", "memory", "components", "libraries", "cuts", "npz", "dataset"),
    *("triton", "precision", "queue"),
)


def table(rows: list[Row]) -> Table:
    shown = Table(title="TrendFlow benchmarks", title_justify="left")
    for heading in ("measure", "subject"):
        shown.add_column(heading)
    shown.add_column("value", justify="right")
    shown.add_column("goal", justify="right")
    shown.add_column("met")
    shown.add_column("measured times")
    for row in rows:
        goal = "" if row.goal is None else f"≤ {row.goal:g}"
        met = {None: "", True: "[green]yes", False: "[red]no"}[row.met]
        shown.add_row(row.what, row.subject, f"{row.value:.2f} {row.unit}", goal, met, row.note)
    return shown


def machine() -> dict[str, str | int | None]:
    """What the numbers depend on; ratios still move with the processor and the libraries."""
    import psutil

    return {
        "cpu_count": psutil.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", default=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")

    # A file has no width of its own, and the notes are long.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    rows: list[Row] = []
    for name in names:
        console.print(f"measuring {name} …", style="dim")
        rows += importlib.import_module(f"benchmarks.bench_{name}").measure()
    console.print(table(rows))
    report = {"machine": machine(), "rows": [{**asdict(row), "met": row.met} for row in rows]}
    (REPO / "benchmarks" / "results.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
