"""Packs the files that stand at the top level of a checkout into the wheel, where `data_path` looks for them.

A build hook rather than hatch's `force-include`, which would also copy them, soon stale, into editable installs.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DATA = (
    "component_graph.yaml",
    "constraints.txt",
    "dagster.yaml",
    "models",
    "requirements-triton.txt",
    "samples",
    "schemas",
    "workspace.yaml",
)


class WheelData(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            for name in DATA:
                build_data["force_include"][str(Path(self.root) / name)] = f"trendflow/_data/{name}"
