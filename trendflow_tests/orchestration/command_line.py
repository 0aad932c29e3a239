"""The `trendflow` command, run as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class Cli:
    """Runs `trendflow` in a state folder of its own."""

    def __init__(self, home: Path, models: Path, **settings: str) -> None:
        self.home = home
        self.environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
        self.environment |= {
            "TRENDFLOW_HOME": str(home),
            "TRENDFLOW_MODELS": str(models),
            "TRENDFLOW_ONNX_THREADS": "1",
            **settings,
        }

    def __call__(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trendflow", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, input=stdin)
